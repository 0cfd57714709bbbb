//! Reading the replies to posted writes before sockets close: before a fork, at exit, and when the
//! last clone of a cache is dropped.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;

use crate::blocking_runtimes;
use crate::shared_store::SharedStore;
use crate::store::Exchange;
use crate::trip::Trip;

/// The open stores that take posts. Has no lock: a forked child could find a lock held by a thread
/// that does not exist there.
static ALL: ArcSwapOption<Vec<Weak<SharedStore>>> = ArcSwapOption::const_empty();

/// Adds `store` to the open stores.
pub(crate) fn register(store: &Arc<SharedStore>) {
    if !store.dispatcher.store().posts() {
        return;
    }
    ALL.rcu(|all| {
        let others = all.iter().flat_map(|all| all.iter());
        let open = others.filter(|other| other.strong_count() > 0).cloned();
        let all: Vec<_> = open.chain([Arc::downgrade(store)]).collect();
        Some(Arc::new(all))
    });
}

/// Reads the replies to posted writes of all caches. Waits for each store at most its
/// `trip_timeout`, and not at all if it has just failed.
///
/// Call it before a process ends: closing a socket with unread replies may lose posted writes. Does
/// nothing within a task of a Tokio runtime.
pub fn drain_all() {
    for store in ALL.load_full().iter().flat_map(|all| all.iter()) {
        if let Some(store) = store.upgrade() {
            store.drain(None);
        }
    }
}

/// Calls [`drain_all`] and closes the idle connections of blocking callers, in all caches.
///
/// Call it before a fork: children would hold copies of the sockets, and so keep connections open
/// that their parent has closed. Connections in use stay open; a child does not touch its copies.
pub fn close_all_idle() {
    drain_all();
    blocking_runtimes::close_all();
}

/// Reads the replies to posted writes when the last cache over a store is dropped. A task of a Tokio
/// runtime must not block, so another task does it there.
pub(crate) fn last(shared: &SharedStore) {
    if !shared.dispatcher.store().posts() {
        return;
    }
    let trip = Trip::drain(None);
    match shared.dispatcher.store().exchange(&trip) {
        Exchange::Ready(_) | Exchange::Refused(_) => return,
        Exchange::Pending(_) => {}
    }
    match Handle::try_current() {
        Ok(runtime) if !blocking_runtimes::is_blockable() => {
            let store = Arc::clone(shared.dispatcher.store());
            runtime.spawn(async move {
                if let Exchange::Pending(draining) = store.exchange(&Trip::drain(None)) {
                    // Failures go to the `Late` of each post.
                    let _ = draining.await;
                }
            });
        }
        _ => shared.drain(None),
    }
}

//! Reading the replies to posted writes before sockets close: before a fork, at exit, and when the
//! last clone of a cache is dropped.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;

use crate::blocking_runtimes;
use crate::cache::Inner;
use crate::store::Exchange;
use crate::trip::Trip;

/// The open caches with a server. Has no lock: a forked child could find a lock held by a thread
/// that does not exist there.
static ALL: ArcSwapOption<Vec<Weak<Inner>>> = ArcSwapOption::const_empty();

/// Adds `cache` to the open caches.
pub(crate) fn register(cache: &Arc<Inner>) {
    if !cache.dispatcher.store().posts() {
        return;
    }
    ALL.rcu(|all| {
        let others = all.iter().flat_map(|all| all.iter());
        let open = others.filter(|other| other.strong_count() > 0).cloned();
        let all: Vec<_> = open.chain([Arc::downgrade(cache)]).collect();
        Some(Arc::new(all))
    });
}

/// Reads the replies to posted writes of all caches. Waits for each store at most its
/// `trip_timeout`, and not at all if it has just failed.
///
/// Call it before a process ends: closing a socket with unread replies may lose posted writes. Does
/// nothing within a task of a Tokio runtime.
pub fn drain_all() {
    for cache in ALL.load_full().iter().flat_map(|all| all.iter()) {
        if let Some(cache) = cache.upgrade() {
            cache.drain(None);
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

/// Reads the replies to posted writes when the last clone of a cache is dropped. A task of a Tokio
/// runtime must not block, so another task does it there.
pub(crate) fn last(cache: &Inner) {
    if !cache.dispatcher.store().posts() {
        return;
    }
    let trip = Trip::drain(None);
    match cache.dispatcher.store().exchange(&trip) {
        Exchange::Ready(_) | Exchange::Refused(_) => return,
        Exchange::Pending(_) => {}
    }
    match Handle::try_current() {
        Ok(runtime) if !blocking_runtimes::is_blockable() => {
            let store = Arc::clone(cache.dispatcher.store());
            runtime.spawn(async move {
                if let Exchange::Pending(draining) = store.exchange(&Trip::drain(None)) {
                    // Failures go to the `Late` of each post.
                    let _ = draining.await;
                }
            });
        }
        _ => cache.drain(None),
    }
}

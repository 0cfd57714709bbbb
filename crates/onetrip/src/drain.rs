//! What was posted is read before sockets are closed: before a fork, at the exit, and when the last
//! clone of a cache is dropped.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;

use crate::blocking_runtimes;
use crate::cache::Inner;
use crate::store::Exchange;
use crate::trip::Trip;

/// The caches that are open and have a server. Without a lock, which a forked child could find
/// taken by a thread that it does not have.
static ALL: ArcSwapOption<Vec<Weak<Inner>>> = ArcSwapOption::const_empty();

/// Notes that `cache` is open.
pub(crate) fn register(cache: &Arc<Inner>) {
    if cache.dispatcher.is_local() {
        return;
    }
    ALL.rcu(|all| {
        let others = all.iter().flat_map(|all| all.iter());
        let open = others.filter(|other| other.strong_count() > 0).cloned();
        let all: Vec<_> = open.chain([Arc::downgrade(cache)]).collect();
        Some(Arc::new(all))
    });
}

/// Reads the replies to what was posted, in all caches. A store is waited for no longer than its
/// `trip_timeout`, and not at all if it failed just now.
///
/// For the end of a process: what was posted on a socket that is closed with replies unread may be
/// lost. Within a task of a Tokio runtime it does nothing.
pub fn drain_all() {
    for cache in ALL.load_full().iter().flat_map(|all| all.iter()) {
        if let Some(cache) = cache.upgrade() {
            cache.drain(None);
        }
    }
}

/// Closes the connections that blocking callers left idle, those of all caches, after
/// [`drain_all`].
///
/// For a process that is about to fork: its children would hold copies of their sockets, and so
/// keep a connection open that their parent has closed. Those that are in use stay; a child does
/// not touch its copies of them.
pub fn close_all_idle() {
    drain_all();
    blocking_runtimes::close_all();
}

/// Reads the replies to what was posted in a cache of which nobody has a clone any more. A task of a
/// Tokio runtime, which must not be blocked, leaves it to another one.
pub(crate) fn last(cache: &Inner) {
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
                    // Those who posted hear of what failed.
                    let _ = draining.await;
                }
            });
        }
        _ => cache.drain(None),
    }
}

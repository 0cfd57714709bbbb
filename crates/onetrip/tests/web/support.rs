//! Caches for these tests.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onetrip::{Cache, PageMode, Watch};

/// Lets this test run alone until it ends. All writes of a process use one write clock, so another
/// test may end what the scopes of this one hold.
pub(crate) fn turn() {
    static TURN: Mutex<()> = Mutex::new(());
    thread_local! {
        static MINE: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
    }
    MINE.with_borrow_mut(|mine| {
        mine.get_or_insert_with(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// A cache whose trips take time, which exposes callers that wait.
pub(crate) fn remote() -> Cache {
    open("memory://?latency=100us")
}

/// The same, without learning pages.
pub(crate) fn unlearned() -> Cache {
    turn();
    let cache = Cache::builder("memory://?latency=100us").pages(PageMode::Off);
    cache
        .build()
        .unwrap_or_else(|error| unreachable!("these options can be had: {error}"))
}

/// A cache that answers at once.
pub(crate) fn local() -> Cache {
    open("memory://")
}

/// A cache without a working store.
pub(crate) fn broken() -> Cache {
    open("redis://127.0.0.1:1")
}

fn open(url: &str) -> Cache {
    turn();
    Cache::open(url).unwrap_or_else(|error| unreachable!("{url} names a store: {error}"))
}

/// Returns the names of the operations of each trip.
pub(crate) fn words(seen: &Arc<Watch>) -> Vec<Vec<&'static str>> {
    let records = seen.records().into_iter();
    records
        .map(|record| record.ops.iter().map(|(word, _)| *word).collect())
        .collect()
}

/// Counts computations.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU32);

impl Count {
    pub(crate) fn up(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

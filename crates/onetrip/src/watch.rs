//! Watching trips as they are made: for tests that count them and for pages that show them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::key;
use crate::trip::{Replies, Reply, Trip};

/// The most trips that one watch describes. It counts those beyond as well.
pub const MAX_RECORDS: usize = 10_000;

/// The most operations of one trip that are described.
const MAX_OPS: usize = 100;

/// The trips that were made while it was open, and how many reads were answered.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Mutex<Seen>,
    hits: AtomicUsize,
    misses: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seen {
    count: usize,
    records: Vec<Record>,
}

/// One trip that was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The store, as its URL names it, without password.
    pub store: Arc<str>,
    /// Word and name of the first hundred operations: `("get", "blog:note:5")`.
    pub ops: Vec<(&'static str, String)>,
    /// How many operations travelled.
    pub len: usize,
    /// Bytes of entries sent.
    pub bytes_out: usize,
    /// Bytes of entries received.
    pub bytes_in: usize,
    /// How many operations failed.
    pub failed: usize,
    /// From sending the trip until its answer.
    pub took: Duration,
}

impl Watch {
    /// How many trips were made.
    #[must_use]
    pub fn trips(&self) -> usize {
        self.seen(|seen| seen.count)
    }

    /// How many reads were answered with a value, by a scope or by the store. A watch over the
    /// whole process does not count them.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// How many reads were answered with none; counted as the hits are.
    #[must_use]
    pub fn misses(&self) -> usize {
        self.misses.load(Ordering::Relaxed)
    }

    /// Counts a read that was answered, with a value or with none.
    pub(crate) fn answered(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The trips, oldest first; no more than [`MAX_RECORDS`].
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.seen(|seen| seen.records.clone())
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, record: &Record) {
        self.seen(|seen| {
            seen.count += 1;
            if seen.records.len() < MAX_RECORDS {
                seen.records.push(record.clone());
            }
        });
    }
}

/// Watches that see every trip of the process, whoever makes it.
static EVERYWHERE: Mutex<Vec<Weak<Watch>>> = Mutex::new(Vec::new());
/// How many there are, so that a trip need not take the lock to learn that there are none.
static EVERYWHERE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Watches all caches of this process, in all threads, until the guard is dropped.
///
/// For tests; a page that counts its own trips uses [`Cache::watch`](crate::Cache::watch).
#[must_use]
pub fn watch_everything() -> Everything {
    let watch = Arc::new(Watch::default());
    if let Ok(mut all) = EVERYWHERE.lock() {
        all.push(Arc::downgrade(&watch));
        EVERYWHERE_COUNT.store(all.len(), Ordering::Release);
    }
    Everything(watch)
}

/// Keeps a watch over the whole process open.
#[derive(Debug)]
pub struct Everything(Arc<Watch>);

impl Everything {
    /// What was seen so far.
    #[must_use]
    pub fn watch(&self) -> &Arc<Watch> {
        &self.0
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        if let Ok(mut all) = EVERYWHERE.lock() {
            all.retain(|watch| watch.as_ptr() != Arc::as_ptr(&self.0));
            EVERYWHERE_COUNT.store(all.len(), Ordering::Release);
        }
    }
}

/// Whether anyone would see a trip made under `watches`.
pub(crate) fn is_watched(watches: &[Arc<Watch>]) -> bool {
    !watches.is_empty() || EVERYWHERE_COUNT.load(Ordering::Acquire) > 0
}

/// Shows a trip to those who watch.
pub(crate) fn show(
    watches: &[Arc<Watch>],
    store: &Arc<str>,
    trip: &Trip,
    replies: &Replies,
    took: Duration,
) {
    let described = trip.ops().iter().take(MAX_OPS);
    let record = Record {
        store: Arc::clone(store),
        ops: described
            .map(|op| (op.word(), key::display(op.name())))
            .collect(),
        len: trip.len(),
        bytes_out: trip.ops().iter().map(crate::trip::Op::carries).sum(),
        bytes_in: replies.iter().map(Reply::carries).sum(),
        failed: replies
            .iter()
            .filter(|reply| matches!(reply, Reply::Failed(_)))
            .count(),
        took,
    };
    for watch in watches {
        watch.record(&record);
    }
    if EVERYWHERE_COUNT.load(Ordering::Acquire) > 0 {
        let all = EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner);
        for watch in all.iter().filter_map(Weak::upgrade) {
            watch.record(&record);
        }
    }
}

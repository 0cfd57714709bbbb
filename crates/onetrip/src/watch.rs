//! Watching trips as they are made: for tests that count them and for pages that show them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::key;
use crate::process::PerProcess;
use crate::trip::{Purpose, Replies, Reply, Trip};

/// The most trips that one watch describes. It counts those beyond as well.
pub const MAX_RECORDS: usize = 10_000;

/// The most operations of one trip that are described.
const MAX_OPS: usize = 100;

/// The trips that were made while it was open, and how many reads were answered. In a forked child
/// the trips begin anew.
#[derive(Debug, Default)]
pub struct Watch {
    seen: PerProcess<Mutex<Seen>>,
    hits: AtomicUsize,
    misses: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seen {
    count: usize,
    posted: usize,
    records: Vec<TripRecord>,
}

/// One trip that was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TripRecord {
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
    /// Whether it was posted: sent, and not waited for. Such a trip is not counted as one.
    pub posted: bool,
    /// From sending the trip until its answer.
    pub took: Duration,
}

impl Watch {
    /// How many trips were made.
    #[must_use]
    pub fn trips(&self) -> usize {
        self.seen(|seen| seen.count)
    }

    /// Returns how many writes were posted: sent, and not waited for.
    #[must_use]
    pub fn posted(&self) -> usize {
        self.seen(|seen| seen.posted)
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
    pub fn records(&self) -> Vec<TripRecord> {
        self.seen(|seen| seen.records.clone())
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        self.seen
            .with(|seen| look(&mut seen.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn record(&self, record: &TripRecord) {
        self.seen(|seen| {
            if record.posted {
                seen.posted += record.len;
            } else {
                seen.count += 1;
            }
            if seen.records.len() < MAX_RECORDS {
                seen.records.push(record.clone());
            }
        });
    }
}

/// Watches that see every trip of the process, whoever makes it; none is an empty option, which
/// costs a trip next to nothing. Without a lock, which a forked child could find taken by a thread
/// that it does not have.
static EVERYWHERE: ArcSwapOption<Vec<Weak<Watch>>> = ArcSwapOption::const_empty();

fn change_everywhere(change: impl Fn(&mut Vec<Weak<Watch>>)) {
    EVERYWHERE.rcu(|all| {
        let mut all = all.as_deref().cloned().unwrap_or_default();
        change(&mut all);
        (!all.is_empty()).then(|| Arc::new(all))
    });
}

/// Watches all caches of this process, in all threads, until the guard is dropped.
///
/// For tests; a page that counts its own trips uses [`Cache::watch`](crate::Cache::watch).
#[must_use]
pub fn watch_everything() -> Everything {
    let watch = Arc::new(Watch::default());
    change_everywhere(|all| all.push(Arc::downgrade(&watch)));
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
        change_everywhere(|all| all.retain(|watch| watch.as_ptr() != Arc::as_ptr(&self.0)));
    }
}

/// Whether anyone would see a trip made under `watches`.
pub(crate) fn is_watched(watches: &[Arc<Watch>]) -> bool {
    !watches.is_empty() || EVERYWHERE.load().is_some()
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
    let record = TripRecord {
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
        posted: matches!(trip.purpose(), Purpose::Post(_)),
        took,
    };
    for watch in watches {
        watch.record(&record);
    }
    if let Some(all) = &*EVERYWHERE.load() {
        for watch in all.iter().filter_map(Weak::upgrade) {
            watch.record(&record);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A thread that holds the lock while another forks is not there to give it back.
    #[test]
    fn a_child_finds_no_lock_of_its_parents_threads() {
        let everything = watch_everything();
        let watch = everything.watch();
        watch.seen(|_| {
            let child = fork();
            if child == 0 {
                alarm(20);
                let record = TripRecord {
                    store: "test://".into(),
                    ops: Vec::new(),
                    len: 0,
                    bytes_out: 0,
                    bytes_in: 0,
                    failed: 0,
                    posted: false,
                    took: Duration::ZERO,
                };
                watch.record(&record);
                leave(i32::try_from(watch.trips()).unwrap_or(0));
            }
            // It saw its own trip alone.
            assert_eq!(exit_code(child), Some(1));
        });
        assert_eq!(watch.trips(), 0);
    }

    #[expect(unsafe_code, reason = "no safe function forks")]
    fn fork() -> libc::pid_t {
        unsafe { libc::fork() }
    }

    #[expect(unsafe_code, reason = "a plain call of the system")]
    fn alarm(seconds: u32) {
        unsafe { libc::alarm(seconds) };
    }

    #[expect(unsafe_code, reason = "a plain call of the system")]
    fn leave(code: i32) -> ! {
        unsafe { libc::_exit(code) }
    }

    #[expect(unsafe_code, reason = "a plain call, with memory of our own")]
    fn exit_code(child: libc::pid_t) -> Option<i32> {
        let mut status = 0;
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }
}

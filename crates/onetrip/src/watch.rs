//! Watching trips: for tests that count them and for pages that show them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::key;
use crate::process::PerProcess;
use crate::trip::{Purpose, Replies, Reply, Trip};

/// The most trips that one watch records. It counts all of them.
pub const MAX_RECORDS: usize = 10_000;

/// The most operations of one trip that are recorded.
const MAX_OPS: usize = 100;

/// Records the trips, and counts the hits and misses, made while it is open. A forked child starts
/// without trips.
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

/// One recorded trip.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TripRecord {
    /// The URL of the store, without its password.
    pub store: Arc<str>,
    /// Kind and name of the first hundred operations: `("get", "blog:note:5")`.
    pub ops: Vec<(&'static str, String)>,
    /// Number of operations.
    pub len: usize,
    /// Bytes of entries sent.
    pub bytes_out: usize,
    /// Bytes of entries received.
    pub bytes_in: usize,
    /// Number of operations that failed.
    pub failed: usize,
    /// Whether it was posted: sent without waiting for its replies. Posts do not count as trips.
    pub posted: bool,
    /// Time from sending the trip to its answer.
    pub took: Duration,
}

impl Watch {
    /// Returns the number of trips made.
    #[must_use]
    pub fn trips(&self) -> usize {
        self.seen(|seen| seen.count)
    }

    /// Returns the number of posted writes: sent without waiting for their replies.
    #[must_use]
    pub fn posted(&self) -> usize {
        self.seen(|seen| seen.posted)
    }

    /// Returns the number of hits, in a scope or in the store. A watch over the whole process does
    /// not count them.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// Returns the number of misses. A watch over the whole process does not count them.
    #[must_use]
    pub fn misses(&self) -> usize {
        self.misses.load(Ordering::Relaxed)
    }

    /// Counts a hit or a miss.
    pub(crate) fn answered(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the trips, oldest first; no more than [`MAX_RECORDS`].
    #[must_use]
    pub fn records(&self) -> Vec<TripRecord> {
        self.seen(|seen| seen.records.clone())
    }

    fn seen<T>(&self, body: impl FnOnce(&mut Seen) -> T) -> T {
        self.seen
            .with(|seen| body(&mut seen.lock().unwrap_or_else(PoisonError::into_inner)))
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

/// The watches over the whole process. `None` if there are none, which costs a trip next to
/// nothing. Has no lock: a forked child could find a lock held by a thread that does not exist
/// there.
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
/// Meant for tests. To count the trips of one page, use [`Cache::watch`](crate::Cache::watch).
#[must_use]
pub fn watch_everything() -> Everything {
    let watch = Arc::new(Watch::default());
    change_everywhere(|all| all.push(Arc::downgrade(&watch)));
    Everything(watch)
}

/// Guard of a watch over the whole process.
#[derive(Debug)]
pub struct Everything(Arc<Watch>);

impl Everything {
    /// Returns the watch.
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

/// Returns whether any watch would see a trip made under `watches`.
pub(crate) fn is_watched(watches: &[Arc<Watch>]) -> bool {
    !watches.is_empty() || EVERYWHERE.load().is_some()
}

/// Records a trip in `watches` and in all watches over the whole process.
pub(crate) fn show(
    watches: &[Arc<Watch>],
    store: &Arc<str>,
    trip: &Trip,
    replies: &Replies,
    took: Duration,
) {
    let recorded = trip.ops().iter().take(MAX_OPS);
    let record = TripRecord {
        store: Arc::clone(store),
        ops: recorded
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

    /// The child lacks the thread that held the lock during the fork.
    #[test]
    fn a_forked_child_does_not_wait_for_locks_of_its_parent() {
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
            // The child saw only its own trip.
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

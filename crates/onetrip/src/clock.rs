//! The time that expiry and age are measured by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A point of monotonic time, in microseconds since some beginning.
///
/// Entries in this process expire by it, so that setting the wall clock expires nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// This moment and `span` more; the end of time if that overflows.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// How long it is from `earlier` until this moment; nothing if it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

fn micros(span: Duration) -> u64 {
    // Not by `as_micros`, since arithmetic of 128 bits is slow and every hit reads the clock.
    let micros = span.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(u64::from(span.subsec_micros()))
}

/// Where a cache reads the time: the system's clocks, or one that a test moves by hand.
///
/// ```
/// use std::time::Duration;
/// use onetrip::{Cache, Clock};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let clock = Clock::manual();
/// let cache = Cache::builder("memory://").clock(clock.clone()).build()?;
/// cache.set_for("greeting", &"hello", Duration::from_secs(60)).await?;
/// clock.advance(Duration::from_secs(61));
/// assert_eq!(cache.get::<String>("greeting").await?, None);
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clocks: monotonic within this process, the wall's for what it shares.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it. Clones share it.
    #[must_use]
    pub fn manual() -> Self {
        Self(Some(Arc::default()))
    }

    /// Moves a manual clock on by `span`; the system's clock goes its own way.
    pub fn advance(&self, span: Duration) {
        if let Some(now) = &self.0 {
            now.fetch_add(micros(span), Ordering::SeqCst);
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            None => Moment(monotonic::now()),
            Some(now) => Moment(now.load(Ordering::SeqCst)),
        }
    }

    /// Whether `end` has come.
    ///
    /// It is mostly far ahead. Then a clock tells as much that goes in steps, of some milliseconds,
    /// and is quicker to read.
    pub(crate) fn has_come(&self, end: Moment) -> bool {
        const LATE_AT_MOST: Duration = Duration::from_secs(1);
        let lately = match &self.0 {
            None => Moment(monotonic::lately()),
            Some(_) => self.now(),
        };
        lately.after(LATE_AT_MOST) >= end && self.now() >= end
    }

    /// The wall clock's time, as the span since 1970 began (UTC). A manual clock begins there, and
    /// goes as far as it was moved.
    ///
    /// Entries that several processes share, or that outlive one, expire by it: setting the clock
    /// of the machine shifts their end.
    #[must_use]
    pub fn wall(&self) -> Duration {
        match &self.0 {
            None => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            Some(now) => Duration::from_micros(now.load(Ordering::SeqCst)),
        }
    }
}

/// The system's monotonic clock, in microseconds.
#[cfg(target_os = "linux")]
mod monotonic {
    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn now() -> u64 {
        read(ClockId::Monotonic)
    }

    /// What it told at the last tick of the system's timer.
    pub(super) fn lately() -> u64 {
        read(ClockId::MonotonicCoarse)
    }

    fn read(clock: ClockId) -> u64 {
        // Never negative: it counts from the start of the system.
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
    }
}

#[cfg(not(target_os = "linux"))]
mod monotonic {
    use std::sync::LazyLock;
    use std::time::Instant;

    pub(super) fn now() -> u64 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        super::micros(BEGAN.elapsed())
    }

    /// There is no cheaper clock.
    pub(super) fn lately() -> u64 {
        now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_comes_with_its_moment_and_not_before() {
        let clock = Clock::manual();
        for span in [Duration::from_micros(1), Duration::from_secs(10)] {
            let end = clock.now().after(span);
            assert!(!clock.has_come(end));
            clock.advance(span - Duration::from_micros(1));
            assert!(!clock.has_come(end));
            clock.advance(Duration::from_micros(1));
            assert!(clock.has_come(end));
        }
    }

    #[test]
    fn the_systems_clocks_agree() {
        let clock = Clock::system();
        assert!(clock.has_come(clock.now()));
        assert!(!clock.has_come(clock.now().after(Duration::from_secs(3600))));
        assert!(monotonic::lately() <= monotonic::now());
    }
}

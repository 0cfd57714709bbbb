//! The clock for ttls and ages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A point in monotonic time, in microseconds since an arbitrary start.
///
/// Entries in this process expire by it, so setting the wall clock expires nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Returns the moment `span` after this one. Saturates on overflow.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// Returns the time from `earlier` until this moment. Zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

fn micros(span: Duration) -> u64 {
    // Every hit reads the clock, and `as_micros` uses slow 128-bit arithmetic.
    let micros = span.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(u64::from(span.subsec_micros()))
}

/// The clock of a cache: the system's clocks, or one that a test moves by hand.
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
    /// Returns the system's clocks: monotonic within this process, wall time for shared entries.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that stands still until [`advance`](Self::advance) moves it. Clones share
    /// it.
    #[must_use]
    pub fn manual() -> Self {
        Self(Some(Arc::default()))
    }

    /// Moves a manual clock forward by `span`. Does nothing to the system's clocks.
    pub fn advance(&self, span: Duration) {
        if let Some(now) = &self.0 {
            now.fetch_add(micros(span), Ordering::SeqCst);
        }
    }

    /// Returns the current moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            None => Moment(monotonic::now()),
            Some(now) => Moment(now.load(Ordering::SeqCst)),
        }
    }

    /// Returns whether `end` has come.
    ///
    /// Mostly it is far ahead. A coarse clock, which is faster to read, then suffices.
    pub(crate) fn has_come(&self, end: Moment) -> bool {
        const MAX_LAG: Duration = Duration::from_secs(1);
        let coarse = match &self.0 {
            None => Moment(monotonic::coarse()),
            Some(_) => self.now(),
        };
        coarse.after(MAX_LAG) >= end && self.now() >= end
    }

    /// Returns the wall clock's time since the Unix epoch. A manual clock starts at the epoch.
    ///
    /// Entries that several processes share, or that outlive a process, expire by it: setting the
    /// machine's clock shifts their expiry.
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

    /// The time of the last tick of the system's timer.
    pub(super) fn coarse() -> u64 {
        read(ClockId::MonotonicCoarse)
    }

    fn read(clock: ClockId) -> u64 {
        // Never negative: it counts from boot.
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
    pub(super) fn coarse() -> u64 {
        now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_come_exactly_at_its_moment() {
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
        assert!(monotonic::coarse() <= monotonic::now());
    }
}

//! A circuit breaker for each server.
//!
//! Without it, a server that hangs would cost every read a timeout. After a few failures the
//! breaker opens and trips fail at once; now and then it lets one trip through as a probe. The
//! pause between probes is ten times as long as the last one took to fail, so probes take at most a
//! tenth of a caller's time. A refused connection fails quickly and is soon tried again; a server
//! that hangs is left alone for longer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::trip::{Replies, Reply};

/// The number of failures in a row that opens the breaker. One timeout also does: it costs a page
/// too much.
const MAX_FAILURES: u32 = 3;

/// The pause after a failure, as a multiple of the time that it took.
const PAUSE_FACTOR: u32 = 10;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The breaker of one server.
#[derive(Debug)]
pub(crate) struct Breaker {
    label: Arc<str>,
    clock: Clock,
    state: PerProcess<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// Trips go through. Counts the failures in a row.
    Closed { failures: u32 },
    /// Trips fail with `error` until this moment; then one trip goes through as a probe.
    Open { until: Moment, error: Error },
}

/// Permission to make one trip; its outcome is reported back.
///
/// A pass that is dropped reports nothing. If it was a probe, the next one comes as soon as if it
/// had failed at that moment.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    began: Moment,
    /// Whether the breaker is open and waits for this outcome.
    is_probe: bool,
}

impl Breaker {
    pub(crate) fn new(label: Arc<str>, clock: Clock) -> Self {
        Self {
            label,
            clock,
            state: PerProcess::default(),
        }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.state
            .with(|state| change(&mut state.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Lets a trip through, or returns the error to answer it with.
    pub(crate) fn admit(&self) -> Result<Pass<'_>> {
        let now = self.clock.now();
        let is_probe = self.state(|state| match state {
            State::Open { until, error } if now < *until => Err(error.clone()),
            State::Closed { .. } => Ok(false),
            State::Open { until, .. } => {
                *until = now.after(LONGEST_PAUSE);
                Ok(true)
            }
        })?;
        Ok(Pass {
            breaker: self,
            began: now,
            is_probe,
        })
    }

    /// Lets a trip through that is no use as a probe, or returns the error to answer it with.
    pub(crate) fn admit_if_closed(&self) -> Result<Pass<'_>> {
        self.state(|state| match state {
            State::Open { error, .. } => Err(error.clone()),
            State::Closed { .. } => Ok(()),
        })?;
        Ok(Pass {
            breaker: self,
            began: self.clock.now(),
            is_probe: false,
        })
    }

    /// Calls `read` to read the replies to posted writes, with the time limit as its argument:
    /// `None` is the limit of a trip, and an open breaker allows no time. A failure counts against
    /// the server; success does not count.
    pub(crate) async fn drain<F>(&self, read: impl FnOnce(Option<Duration>) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let pass = self.admit_if_closed().ok();
        let patience = match pass {
            Some(_) => None,
            None => Some(Duration::ZERO),
        };
        match (read(patience).await, pass) {
            (Ok(()), _) => Ok(()),
            (Err(error), Some(pass)) => Err(pass.failed(error)),
            (Err(error), None) => Err(error.logged()),
        }
    }

    /// Returns whether the last trip failed.
    #[cfg(feature = "redis")]
    pub(crate) fn is_failing(&self) -> bool {
        self.state(|state| !matches!(state, State::Closed { failures: 0 }))
    }

    fn succeeded(&self) {
        let before = self.state(|state| match state {
            State::Closed { failures: 0 } => State::Closed { failures: 0 },
            _ => std::mem::take(state),
        });
        if let State::Open { .. } = before {
            log::warn!("{} answers again", self.label);
        }
    }

    /// Returns the pause after a trip that failed between `began` and `now`.
    fn pause(&self, began: Moment, now: Moment) -> Duration {
        (now.since(began) * PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    fn failed(&self, began: Moment, error: Error) -> Error {
        let now = self.clock.now();
        let pause = self.pause(began, now);
        let opens = self.state(|state| {
            if let State::Closed { failures } = state {
                *failures += 1;
                if *failures < MAX_FAILURES && error.kind() != ErrorKind::Timeout {
                    return None;
                }
            }
            let open = State::Open {
                until: now.after(pause),
                error: Error::with_source(
                    error.kind(),
                    format!(
                        "{} is not asked, since it failed just now: {error}",
                        self.label
                    ),
                    error.clone(),
                ),
            };
            Some(matches!(
                std::mem::replace(state, open),
                State::Closed { .. }
            ))
        });
        if opens == Some(true) {
            log::warn!(
                "{} is not asked for {pause:?}, and then by one trip at a time until it answers: {error}",
                self.label
            );
        }
        match opens {
            Some(_) => error.logged(),
            None => error,
        }
    }
}

impl Pass<'_> {
    /// Reports the outcome of a post, and returns it.
    pub(crate) fn posted(self, outcome: Result<Replies>) -> Result<Replies> {
        match outcome {
            Ok(replies) => {
                // A write handed to the system says nothing about the server.
                if !replies.iter().any(|reply| matches!(reply, Reply::Posted)) {
                    self.succeeded();
                }
                Ok(replies)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reports that the server answered, even with a refusal.
    pub(crate) fn succeeded(mut self) {
        self.is_probe = false;
        self.breaker.succeeded();
    }

    /// Reports that the server could not be reached or did not answer. Returns the error, marked as
    /// logged if the breaker is open.
    pub(crate) fn failed(mut self, error: Error) -> Error {
        self.is_probe = false;
        self.breaker.failed(self.began, error)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        let breaker = self.breaker;
        let now = breaker.clock.now();
        let again = now.after(breaker.pause(self.began, now));
        breaker.state(|state| {
            if let State::Open { until, .. } = state {
                *until = (*until).min(again);
            }
        });
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "no answer")
    }

    fn breaker() -> (Breaker, Clock) {
        let clock = Clock::manual();
        (Breaker::new("test://".into(), clock.clone()), clock)
    }

    fn fail(breaker: &Breaker, clock: &Clock, took: Duration, kind: ErrorKind) {
        let pass = breaker.admit().unwrap();
        clock.advance(took);
        pass.failed(error(kind));
    }

    fn succeed(breaker: &Breaker) {
        breaker.admit().unwrap().succeeded();
    }

    #[test]
    fn one_timeout_opens_the_breaker() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, Duration::from_secs(1), ErrorKind::Timeout);
        assert_eq!(breaker.admit().unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn three_refused_connections_open_the_breaker() {
        let (breaker, clock) = breaker();
        for _ in 1..MAX_FAILURES {
            fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
        }
        fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
        assert!(breaker.admit().is_err());
    }

    #[test]
    fn a_success_resets_the_count_of_failures() {
        let (breaker, clock) = breaker();
        for _ in 0..10 {
            fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
            succeed(&breaker);
        }
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn probes_are_made_one_at_a_time() {
        let (breaker, clock) = breaker();
        fail(
            &breaker,
            &clock,
            Duration::from_millis(50),
            ErrorKind::Timeout,
        );
        clock.advance(Duration::from_millis(499));
        assert!(breaker.admit().is_err());
        clock.advance(Duration::from_millis(1));
        let pass = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        pass.failed(error(ErrorKind::Timeout));
        clock.advance(SHORTEST_PAUSE);
        succeed(&breaker);
        let several = [breaker.admit(), breaker.admit(), breaker.admit()];
        assert!(several.iter().all(Result::is_ok));
    }

    #[test]
    fn a_probe_without_outcome_is_followed_by_another() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, Duration::from_secs(1), ErrorKind::Timeout);
        clock.advance(LONGEST_PAUSE);
        let _stuck = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        clock.advance(LONGEST_PAUSE);
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn a_dropped_probe_is_soon_followed_by_another() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, Duration::from_secs(1), ErrorKind::Timeout);
        clock.advance(LONGEST_PAUSE);
        let cancelled = breaker.admit().unwrap();
        clock.advance(Duration::from_millis(20));
        drop(cancelled);
        clock.advance(Duration::from_millis(199));
        assert!(breaker.admit().is_err());
        clock.advance(Duration::from_millis(1));
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn dropped_passes_do_not_open_the_breaker() {
        let (breaker, _) = breaker();
        for _ in 0..10 {
            drop(breaker.admit().unwrap());
        }
        assert!(breaker.admit().is_ok());
    }
}

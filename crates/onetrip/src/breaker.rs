//! Whether a store is worth asking: a circuit breaker.
//!
//! A store that hangs would cost every read its timeout. After a few failures the breaker opens
//! and trips are answered at once; now and then it lets one through to try. How long it waits
//! between tries follows from what a try costs: ten times as long as it took to fail, so that
//! trying takes no more than a tenth of a caller's time. A refused connection fails in no time and
//! is tried again soon; a server that hangs is left alone for longer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::trip::{Replies, Reply};

/// Failures in a row that open the breaker. One timeout is enough: it has cost a page too much.
const FEW: u32 = 3;

/// How much longer than a failed try to wait before the next one.
const PATIENCE: u32 = 10;

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
    /// The store is asked. So many trips in a row have failed.
    Closed { failures: u32 },
    /// The store is not asked before this moment, and then by one trip alone.
    Open { until: Moment, error: Error },
}

/// The right to make one trip, and the duty to tell how it went.
///
/// A caller that gives up tells nothing. What it tried may be tried again as soon as if it had
/// failed by then.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    began: Moment,
    /// Whether others wait for what this one tells.
    awaited: bool,
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

    /// Lets a trip through, or gives the error to answer it with.
    pub(crate) fn admit(&self) -> Result<Pass<'_>> {
        let now = self.clock.now();
        let awaited = self.state(|state| match state {
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
            awaited,
        })
    }

    /// Lets a trip through that would tell nothing of whether the store answers again, or gives
    /// the error to answer it with.
    pub(crate) fn admit_if_closed(&self) -> Result<Pass<'_>> {
        self.state(|state| match state {
            State::Open { error, .. } => Err(error.clone()),
            State::Closed { .. } => Ok(()),
        })?;
        Ok(Pass {
            breaker: self,
            began: self.clock.now(),
            awaited: false,
        })
    }

    /// Has `read` read the replies to what was posted, within its argument; `None` is as long as a
    /// trip may take. That is no trip; but if they do not come in time, the breaker hears of it.
    /// While it is open, they are not waited for.
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

    /// Whether the store failed the last time that it was asked.
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

    /// How long not to ask after a try that began `then` and ends now.
    fn pause(&self, then: Moment, now: Moment) -> Duration {
        (now.since(then) * PATIENCE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    fn failed(&self, began: Moment, error: Error) -> Error {
        let now = self.clock.now();
        let pause = self.pause(began, now);
        let opens = self.state(|state| {
            if let State::Closed { failures } = state {
                *failures += 1;
                if *failures < FEW && error.kind() != ErrorKind::Timeout {
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
    /// Notes how a post went, and gives that back.
    pub(crate) fn posted(self, outcome: Result<Replies>) -> Result<Replies> {
        match outcome {
            Ok(replies) => {
                // What was handed to the system says nothing of the server.
                if !replies.iter().any(|reply| matches!(reply, Reply::Posted)) {
                    self.succeeded();
                }
                Ok(replies)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Notes that the store answered, whatever it answered.
    pub(crate) fn succeeded(mut self) {
        self.awaited = false;
        self.breaker.succeeded();
    }

    /// Notes that the store could not be reached, or did not answer. Gives back the error, which
    /// needs no further word in the log while the breaker is open.
    pub(crate) fn failed(mut self, error: Error) -> Error {
        self.awaited = false;
        self.breaker.failed(self.began, error)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.awaited {
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
    fn one_timeout_opens_it() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, Duration::from_secs(1), ErrorKind::Timeout);
        assert_eq!(breaker.admit().unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_few_refusals_open_it_and_fewer_do_not() {
        let (breaker, clock) = breaker();
        for _ in 1..FEW {
            fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
        }
        fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
        assert!(breaker.admit().is_err());
    }

    #[test]
    fn a_success_between_failures_counts_from_nought() {
        let (breaker, clock) = breaker();
        for _ in 0..10 {
            fail(&breaker, &clock, Duration::ZERO, ErrorKind::Unavailable);
            succeed(&breaker);
        }
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn one_trip_at_a_time_tries_again() {
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
    fn a_try_that_never_tells_is_followed_by_another() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, Duration::from_secs(1), ErrorKind::Timeout);
        clock.advance(LONGEST_PAUSE);
        let _stuck = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        clock.advance(LONGEST_PAUSE);
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn a_try_that_is_given_up_is_soon_followed_by_another() {
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
    fn a_trip_that_is_given_up_says_nothing_of_a_store_that_answers() {
        let (breaker, _) = breaker();
        for _ in 0..10 {
            drop(breaker.admit().unwrap());
        }
        assert!(breaker.admit().is_ok());
    }
}

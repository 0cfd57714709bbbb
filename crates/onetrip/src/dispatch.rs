//! Carries trips to the store: whatever concerns every trip is done here, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::blocking_runtimes;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::single_flight::StoreId;
use crate::stats::Counters;
use crate::store::{Exchange, Store};
use crate::trip::{Late, Op, Purpose, Replies, Reply, ScopeId, Trip};
use crate::watch;

/// What becomes of a failure of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// Reads become misses and writes are dropped; both are counted and logged.
    #[default]
    Miss,
    /// The call returns the error.
    Raise,
}

/// A trip that was begun.
pub(crate) enum Dispatched<F> {
    /// It is over: answered without waiting, or refused.
    Back(Result<Replies>),
    /// Its answer is to be waited for.
    Away(F),
}

impl<F: Future<Output = Result<Replies>>> Dispatched<F> {
    /// Its answer, once it is there.
    pub(crate) async fn answer(self) -> Result<Replies> {
        match self {
            Self::Back(answer) => answer,
            Self::Away(answer) => answer.await,
        }
    }
}

/// Counts and tells the failures of posted writes.
struct LateFailures {
    counters: Arc<Counters>,
    label: Arc<str>,
}

impl Late for LateFailures {
    fn failed(&self, failed: usize, error: &Error) {
        self.counters.errors.add(failed as u64);
        if !error.is_logged() {
            let label = &self.label;
            log::warn!("{failed} writes that were posted to {label} are lost: {error}");
        }
    }
}

/// One store and the way to it.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    store: Arc<dyn Store>,
    label: Arc<str>,
    on_error: OnError,
    /// Whether a delete failed since the last trip that did not.
    may_owe: AtomicBool,
}

impl Dispatcher {
    pub(crate) fn new(store: Arc<dyn Store>, on_error: OnError) -> Self {
        let label = store.label();
        Self {
            store,
            label,
            on_error,
            may_owe: AtomicBool::new(false),
        }
    }

    /// Returns whether the store may be owed a delete.
    pub(crate) fn may_owe(&self) -> bool {
        self.may_owe.load(Ordering::Acquire)
    }

    /// Notes what became of a trip.
    fn note(&self, trip: &Trip, failed: bool) {
        if !failed {
            // It carried what was owed.
            if self.may_owe() {
                self.may_owe.store(false, Ordering::Release);
            }
        } else if trip
            .ops()
            .iter()
            .any(|op| matches!(op, Op::Delete { .. } | Op::Clear { .. }))
        {
            self.may_owe.store(true, Ordering::Release);
        }
    }

    /// Whether trips are answered without waiting.
    pub(crate) fn is_local(&self) -> bool {
        self.store.is_local()
    }

    /// Returns a number that tells this store from the others of the process.
    pub(crate) fn store_id(&self) -> StoreId {
        Arc::as_ptr(&self.store).cast::<()>() as StoreId
    }

    /// Whether writes that nobody asks for are posted: not where the store answers at once, nor
    /// where its failures are to be raised.
    pub(crate) fn posts(&self) -> bool {
        !self.is_local() && self.on_error == OnError::Miss
    }

    /// Returns what the failures of posted writes are told to.
    pub(crate) fn late(&self, counters: &Arc<Counters>) -> Arc<dyn Late> {
        Arc::new(LateFailures {
            counters: Arc::clone(counters),
            label: Arc::clone(&self.label),
        })
    }

    #[cfg(feature = "minijinja")]
    pub(crate) fn on_error(&self) -> OnError {
        self.on_error
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Begins one trip: its answer, whatever it failed with, or what to wait for.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`], why no trip was made.
    pub(crate) fn depart<'a>(
        &'a self,
        counters: &'a Counters,
        at: &'a Context,
        trip: &'a Trip,
    ) -> Dispatched<impl Future<Output = Result<Replies>> + Send + 'a> {
        let began = watch::is_watched(at.watches()).then(Instant::now);
        let arrive = move |replies| {
            if matches!(trip.purpose(), Purpose::Drain) {
                return Ok(replies);
            }
            counters.trip(trip, &replies);
            let failed = replies
                .iter()
                .any(|reply| matches!(reply, Reply::Failed(_)));
            self.note(trip, failed);
            if let Some(began) = began {
                watch::show(at.watches(), &self.label, trip, &replies, began.elapsed());
            }
            self.log(&replies);
            Ok(replies)
        };
        match self.store.exchange(trip) {
            Exchange::Ready(replies) => Dispatched::Back(arrive(replies)),
            // Its breaker has told already.
            Exchange::Refused(error) => Dispatched::Back(self.fail(counters, trip, error.logged())),
            Exchange::Pending(answer) => Dispatched::Away(async move {
                blocking_runtimes::runtime().await;
                arrive(answer.await.unwrap_or_else(|error| trip.failed(&error)))
            }),
        }
    }

    /// Reads the replies to what `scope` posted, or to all that is posted. Done at once where
    /// nothing is; counted in no case. Those who posted hear of what failed.
    pub(crate) async fn drain(&self, scope: Option<ScopeId>) {
        let trip = Trip::drain(scope);
        let Exchange::Pending(draining) = self.store.exchange(&trip) else {
            return;
        };
        blocking_runtimes::runtime().await;
        if let Err(error) = draining.await
            && !error.is_logged()
        {
            log::warn!("the replies to posted writes did not come in time: {error}");
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The replies to a trip that was not made. None is counted but for its failures.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`], `error`.
    pub(crate) fn fail(&self, counters: &Counters, trip: &Trip, error: Error) -> Result<Replies> {
        counters.errors.add(trip.len() as u64);
        self.note(trip, true);
        match self.on_error {
            OnError::Raise => Err(error),
            OnError::Miss => {
                let replies = trip.failed(&error);
                self.log(&replies);
                Ok(replies)
            }
        }
    }

    /// Logs what became misses and dropped writes.
    fn log(&self, replies: &Replies) {
        if self.on_error == OnError::Raise {
            return;
        }
        let mut failures = replies.iter().filter_map(|reply| match reply {
            Reply::Failed(error) if error.kind().is_store_failure() => Some(error),
            _ => None,
        });
        if let Some(first) = failures.next()
            && !first.is_logged()
        {
            let (failed, all) = (failures.count() + 1, replies.len());
            log::warn!(
                "{failed} of {all} operations failed and count as misses or dropped writes: {first}"
            );
        }
    }

    /// The replies of one caller, unless there is a failure that it has to hear of among its `own`,
    /// which are the first.
    ///
    /// # Errors
    ///
    /// What is wrong with the operations themselves; failures of the store only under
    /// [`OnError::Raise`].
    pub(crate) fn judge(&self, own: usize, replies: Replies) -> Result<Replies> {
        let grave = replies.iter().take(own).find_map(|reply| match reply {
            Reply::Failed(error)
                if self.on_error == OnError::Raise || !error.kind().is_store_failure() =>
            {
                Some(error.clone())
            }
            _ => None,
        });
        match grave {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }
}

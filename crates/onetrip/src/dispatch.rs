//! Sends trips to the store, and does once what every trip needs.

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

/// What a cache does when its store fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// Reads become misses and writes are dropped; both are counted and logged.
    #[default]
    Miss,
    /// The call returns the error.
    Raise,
}

/// A started trip.
pub(crate) enum Dispatched<F> {
    /// It was answered or refused at once.
    Ready(Result<Replies>),
    /// Its answer has to be awaited.
    Pending(F),
}

impl<F: Future<Output = Result<Replies>>> Dispatched<F> {
    /// Waits for the answer.
    pub(crate) async fn answer(self) -> Result<Replies> {
        match self {
            Self::Ready(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }
}

/// Counts and logs the failures of posted writes.
struct PostFailures {
    counters: Arc<Counters>,
    label: Arc<str>,
}

impl Late for PostFailures {
    fn failed(&self, failed: usize, error: &Error) {
        self.counters.errors.add(failed as u64);
        if !error.is_logged() {
            let label = &self.label;
            log::warn!("{failed} writes posted to {label} are lost: {error}");
        }
    }
}

/// One store, and how its failures are handled.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    store: Arc<dyn Store>,
    label: Arc<str>,
    on_error: OnError,
    /// Whether a delete failed since the last trip without failures.
    may_have_pending_deletes: AtomicBool,
}

impl Dispatcher {
    pub(crate) fn new(store: Arc<dyn Store>, on_error: OnError) -> Self {
        let label = store.label();
        Self {
            store,
            label,
            on_error,
            may_have_pending_deletes: AtomicBool::new(false),
        }
    }

    /// Returns whether the store may have pending deletes.
    pub(crate) fn may_have_pending_deletes(&self) -> bool {
        self.may_have_pending_deletes.load(Ordering::Acquire)
    }

    /// Notes whether a trip failed.
    fn note(&self, trip: &Trip, failed: bool) {
        if !failed {
            // It carried the pending deletes.
            if self.may_have_pending_deletes() {
                self.may_have_pending_deletes
                    .store(false, Ordering::Release);
            }
        } else if trip
            .ops()
            .iter()
            .any(|op| matches!(op, Op::Delete { .. } | Op::Clear { .. }))
        {
            self.may_have_pending_deletes.store(true, Ordering::Release);
        }
    }

    /// Returns whether trips are answered without waiting.
    pub(crate) fn is_local(&self) -> bool {
        self.store.is_local()
    }

    /// Returns a number that identifies this store within the process.
    pub(crate) fn store_id(&self) -> StoreId {
        Arc::as_ptr(&self.store).cast::<()>() as StoreId
    }

    /// Returns whether writes that no caller waits for are posted. They are not if the store is
    /// local, or if its failures are raised.
    pub(crate) fn posts(&self) -> bool {
        self.store.posts() && self.on_error == OnError::Miss
    }

    /// Returns the handler for failures of posted writes.
    pub(crate) fn late(&self, counters: &Arc<Counters>) -> Arc<dyn Late> {
        Arc::new(PostFailures {
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

    /// Starts one trip. Failures of the store are replies.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`], returns why no trip was made.
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
            Exchange::Ready(replies) => Dispatched::Ready(arrive(replies)),
            // The breaker has logged it.
            Exchange::Refused(error) => {
                Dispatched::Ready(self.fail(counters, trip, error.logged()))
            }
            Exchange::Pending(answer) => Dispatched::Pending(async move {
                blocking_runtimes::runtime().await;
                arrive(answer.await.unwrap_or_else(|error| trip.failed(&error)))
            }),
        }
    }

    /// Reads the replies to writes that `scope` posted; `None` means all posted writes. Returns at
    /// once if there are none, and is never counted. Failures go to the [`Late`] of each post.
    pub(crate) async fn drain(&self, scope: Option<ScopeId>) {
        if !self.store.posts() {
            return;
        }
        let trip = Trip::drain(scope);
        let Exchange::Pending(draining) = self.store.exchange(&trip) else {
            return;
        };
        blocking_runtimes::runtime().await;
        if let Err(error) = draining.await
            && !error.is_logged()
        {
            log::warn!("replies to posted writes did not arrive in time: {error}");
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the replies to a trip that was not made. Counts its operations as failed, and no
    /// trip.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`], returns `error`.
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

    /// Logs the failures that become misses and dropped writes.
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

    /// Returns the replies of one caller. Its `own` operations are the first.
    ///
    /// # Errors
    ///
    /// Returns the first error among its `own` operations: faults of the operations themselves, and
    /// failures of the store under [`OnError::Raise`].
    pub(crate) fn check_replies(&self, own: usize, replies: Replies) -> Result<Replies> {
        let error = replies.iter().take(own).find_map(|reply| match reply {
            Reply::Failed(error)
                if self.on_error == OnError::Raise || !error.kind().is_store_failure() =>
            {
                Some(error.clone())
            }
            _ => None,
        });
        match error {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }
}

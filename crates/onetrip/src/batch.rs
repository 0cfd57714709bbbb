//! Trips of many callers that travel as one.

use std::sync::Arc;

use crate::background;
use crate::cache::Cache;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Trip};

/// Trips that are about to leave together, such as those of one turn of an event loop.
#[derive(Debug, Default)]
pub struct Batch {
    trip: Trip,
    /// All that watch one of the trips see the one that is made.
    at: Context,
    /// How many operations each caller has, in the order of the trip.
    parts: Vec<usize>,
}

impl Batch {
    /// Whether others may travel with `trip`.
    ///
    /// Not with what must not be sent twice, since then none of them could be sent again when an
    /// idle connection turns out to be closed; nor with what takes a store many steps.
    #[must_use]
    pub fn takes(trip: &Trip) -> bool {
        !trip
            .ops()
            .iter()
            .any(|op| matches!(op, Op::Add { .. } | Op::Incr { .. } | Op::Clear { .. }))
    }

    /// Takes the trip of one more caller along; its place among those who are answered.
    pub fn join(&mut self, at: &Context, trip: Trip) -> usize {
        for watch in at.watches() {
            let seen = self.at.watches().iter();
            if !seen.into_iter().any(|other| Arc::ptr_eq(other, watch)) {
                self.at = self.at.with_watch(Arc::clone(watch));
            }
        }
        self.parts.push(trip.len());
        self.trip.extend(trip);
        self.parts.len() - 1
    }

    /// The replies of each caller.
    fn split(&self, replies: Replies) -> Vec<Replies> {
        let mut replies = replies.into_iter();
        let parts = self.parts.iter();
        parts
            .map(|len| replies.by_ref().take(*len).collect())
            .collect()
    }
}

/// Who is told the answers. Told of a failure if it is dropped before: whoever waits for an answer
/// gets one, whatever happened to the trip.
struct Delivery<F: FnOnce(Vec<Result<Replies>>)> {
    deliver: Option<F>,
    parts: usize,
}

impl<F: FnOnce(Vec<Result<Replies>>)> Delivery<F> {
    fn make(mut self, answers: Vec<Result<Replies>>) {
        if let Some(deliver) = self.deliver.take() {
            deliver(answers);
        }
    }
}

impl<F: FnOnce(Vec<Result<Replies>>)> Drop for Delivery<F> {
    fn drop(&mut self) {
        if let Some(deliver) = self.deliver.take() {
            let lost = Error::new(ErrorKind::Unavailable, "the trip ended without an answer");
            deliver((0..self.parts).map(|_| Err(lost.clone())).collect());
        }
    }
}

impl Cache {
    /// Makes one trip of `batch` in the background and tells `deliver`, on the thread that made
    /// it, what [`send`](Self::send) would have answered each caller, in their order.
    pub fn dispatch(
        &self,
        batch: Batch,
        deliver: impl FnOnce(Vec<Result<Replies>>) + Send + 'static,
    ) {
        let delivery = Delivery {
            deliver: Some(deliver),
            parts: batch.parts.len(),
        };
        let cache = self.clone();
        let work = async move {
            let replies = cache.carry(&batch.at, &batch.trip).await;
            let answers = match replies {
                Ok(replies) => {
                    let parts = batch.split(replies).into_iter();
                    parts.map(|replies| cache.judge(replies)).collect()
                }
                Err(error) => batch.parts.iter().map(|_| Err(error.clone())).collect(),
            };
            delivery.make(answers);
        };
        match background::handle() {
            Ok(runtime) => drop(runtime.spawn(work)),
            // Dropping the work has told everyone; the log says why.
            Err(error) => log::error!("{error}"),
        }
    }
}

//! Trips of many callers, merged into one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::background;
use crate::blocking_runtimes;
use crate::cache::Cache;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::scope::Scope;
use crate::trip::{Op, Purpose, Replies, Trip};

/// Trips that are sent as one, such as all trips of one turn of an event loop.
#[derive(Debug, Default)]
pub struct MergedTrip {
    trip: Trip,
    /// The watches of all callers: each sees the merged trip.
    at: Context,
    /// For each caller, in order: how many operations its trip has, and how many of them are its
    /// own.
    parts: Vec<(usize, usize)>,
    /// For each operation of each caller: its index in the merged trip.
    places: Vec<usize>,
    /// The reads that callers brought along, by name: they answer other callers too.
    along: HashMap<Bytes, usize>,
    /// Whether any operation answers several callers.
    shares: bool,
    /// The scopes whose reads are in the trip.
    scopes: Vec<Arc<Scope>>,
    footprint: Footprint,
}

/// The names that a trip reads and changes.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    reads: Vec<Bytes>,
    changes: HashSet<Bytes>,
    /// Whether it clears a prefix, and so may change any name.
    clears: bool,
}

impl Footprint {
    /// Returns the footprint of `trip`.
    #[must_use]
    pub fn of(trip: &Trip) -> Self {
        let mut footprint = Self::default();
        trip.ops().iter().for_each(|op| footprint.add(op));
        footprint
    }

    fn add(&mut self, op: &Op) {
        match op {
            Op::Get { name } => self.reads.push(name.clone()),
            Op::Clear { .. } => self.clears = true,
            op => drop(self.changes.insert(op.name().clone())),
        }
    }

    /// Returns whether the order of the two matters: one changes a name that the other reads or
    /// changes.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let changes = |one: &Self, other: &Self| {
            !one.changes.is_empty()
                && (other.reads.iter().chain(&other.changes)).any(|name| one.changes.contains(name))
        };
        self.clears || other.clears || changes(self, other) || changes(other, self)
    }
}

impl MergedTrip {
    /// Returns whether `trip` may be merged with others.
    ///
    /// Operations that must not be sent twice travel alone: otherwise the whole merged trip could
    /// not be retried when an idle connection turns out to be closed. So do operations that take a
    /// store many steps.
    #[must_use]
    pub fn takes(trip: &Trip) -> bool {
        !trip
            .ops()
            .iter()
            .any(|op| matches!(op, Op::Add { .. } | Op::Incr { .. } | Op::Clear { .. }))
            && !matches!(trip.purpose(), Purpose::Drain)
    }

    /// Adds the trip of one more caller.
    ///
    /// Merge posts only with posts (see [`suits`](Self::suits)): reads may be retried, posts never.
    pub fn join(&mut self, at: &Context, trip: &Trip) {
        if self.parts.is_empty() {
            self.trip.take_purpose_of(trip);
        }
        for watch in at.watches() {
            let mut seen = self.at.watches().iter();
            if !seen.any(|other| Arc::ptr_eq(other, watch)) {
                self.at = self.at.with_watch(Arc::clone(watch));
            }
        }
        if let Some(scope) = at.scope().filter(|_| trip.reads())
            && !self.scopes.iter().any(|other| Arc::ptr_eq(other, scope))
        {
            self.scopes.push(Arc::clone(scope));
        }
        self.parts.push((trip.len(), trip.own()));
        for (nth, op) in trip.ops().iter().enumerate() {
            let place = self.place(op).unwrap_or_else(|| {
                let place = self.trip.len();
                if let Op::Get { name } = op
                    && nth >= trip.own()
                {
                    self.along.insert(name.clone(), place);
                }
                self.footprint.add(op);
                self.trip.push(op.clone());
                place
            });
            self.places.push(place);
        }
    }

    /// Returns the index of a read that already answers `op`. The first read of a page brings along
    /// keys that other tasks of the page often read in the same turn.
    fn place(&mut self, op: &Op) -> Option<usize> {
        let Op::Get { name } = op else {
            return None;
        };
        let place = *self.along.get(name)?;
        // A read must see the writes before it.
        let is_unchanged = !self.footprint.changes.contains(name);
        self.shares |= is_unchanged;
        is_unchanged.then_some(place)
    }

    /// Returns the names that it reads and changes. Trips whose footprints [meet](Footprint::meets)
    /// must be sent one after the other: concurrent trips may overtake each other.
    #[must_use]
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Returns whether both are posts or neither is, so that `trip` may join.
    #[must_use]
    pub fn suits(&self, trip: &Trip) -> bool {
        self.trip.is_post() == trip.is_post()
    }

    /// Splits the replies by caller.
    fn split(&self, replies: Replies) -> Vec<(usize, Replies)> {
        let parts = self.parts.iter();
        if self.shares {
            let mut places = self.places.iter();
            let mut answers = |len| {
                let places = places.by_ref().take(len);
                places
                    .filter_map(|place| replies.get(*place))
                    .cloned()
                    .collect()
            };
            return parts.map(|(len, own)| (*own, answers(*len))).collect();
        }
        let mut replies = replies.into_iter();
        parts
            .map(|(len, own)| (*own, replies.by_ref().take(*len).collect()))
            .collect()
    }
}

/// Delivers the answers to the callers. Delivers a failure if it is dropped before, so that no
/// caller waits forever.
struct Delivery<F: FnOnce(Vec<Result<Replies>>)> {
    deliver: Option<F>,
    parts: usize,
}

impl<F: FnOnce(Vec<Result<Replies>>)> Delivery<F> {
    fn deliver(mut self, answers: Vec<Result<Replies>>) {
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

#[doc(hidden)]
impl Cache {
    /// Sends `batch` as one trip in the background. Then calls `deliver`, on the background thread,
    /// with the result that [`send`](Self::send) would have returned to each caller, in order.
    pub fn dispatch(
        &self,
        batch: MergedTrip,
        deliver: impl FnOnce(Vec<Result<Replies>>) + Send + 'static,
    ) {
        let delivery = Delivery {
            deliver: Some(deliver),
            parts: batch.parts.len(),
        };
        let runtime = match background::handle() {
            Ok(runtime) => runtime,
            Err(error) => {
                let answers = self.answers(&batch, self.fail(&batch.trip, error));
                return delivery.deliver(answers);
            }
        };
        for scope in &batch.scopes {
            scope.count_trip();
        }
        let cache = self.clone();
        let is_post = batch.trip.is_post();
        let mut work = Box::pin(async move {
            let replies = cache.carry(&batch.at, &batch.trip).await;
            let answers = cache.answers(&batch, replies);
            delivery.deliver(answers);
        });
        // Posts start here, so that later operations of this thread on the same names follow them.
        if !is_post || blocking_runtimes::poll_once(work.as_mut()).is_pending() {
            runtime.spawn(work);
        }
    }

    /// Returns the replies to a trip that could not be made, as for any failure of the store.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), returns `error`.
    pub fn fail(&self, trip: &Trip, error: Error) -> Result<Replies> {
        self.0
            .store
            .dispatcher
            .fail(&self.0.policy.counters, trip, error)
    }

    fn answers(&self, batch: &MergedTrip, replies: Result<Replies>) -> Vec<Result<Replies>> {
        match replies {
            Ok(replies) => {
                let parts = batch.split(replies).into_iter();
                parts
                    .map(|(own, replies)| self.check_replies(own, replies))
                    .collect()
            }
            Err(error) => batch.parts.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trip::{Reply, Stored};

    fn get(name: &'static str) -> Op {
        let name = Bytes::from_static(name.as_bytes());
        Op::Get { name }
    }

    fn delete(name: &'static str) -> Op {
        let name = Bytes::from_static(name.as_bytes());
        Op::Delete { name }
    }

    /// The answers of each caller, from a store that answers with names, and the number of
    /// operations sent.
    fn answers(trips: &[Trip]) -> (Vec<Vec<String>>, usize) {
        let mut batch = MergedTrip::default();
        for trip in trips {
            batch.join(&Context::default(), trip);
        }
        let ops = batch.trip.ops().iter().enumerate();
        let replies = ops.map(|(at, op)| match op {
            Op::Get { name } => {
                let entry = [name, at.to_string().as_bytes()].concat();
                Reply::Entry(Some(Stored::new(entry.into())))
            }
            _ => Reply::Done,
        });
        let told = batch.split(replies.collect()).into_iter();
        let told = told.map(|(_, replies)| replies.iter().map(show).collect());
        (told.collect(), batch.trip.len())
    }

    fn show(reply: &Reply) -> String {
        match reply {
            Reply::Entry(Some(stored)) => String::from_utf8_lossy(&stored.bytes).into_owned(),
            _ => "done".to_owned(),
        }
    }

    fn ahead() -> Trip {
        let mut trip = Trip::from(get("a"));
        trip.push_along(get("b"));
        trip.push_along(get("c"));
        trip
    }

    #[test]
    fn reads_brought_along_answer_other_callers() {
        let many: Trip = [get("c"), get("d")].into_iter().collect();
        let (told, sent) = answers(&[ahead(), get("b").into(), many, get("a").into()]);
        assert_eq!(told[0], ["a0", "b1", "c2"]);
        assert_eq!(told[1..], [vec!["b1"], vec!["c2", "d3"], vec!["a4"]]);
        assert_eq!(sent, 5);
    }

    #[test]
    fn reads_after_a_write_are_sent_again() {
        let (told, sent) = answers(&[ahead(), delete("b").into(), get("b").into()]);
        assert_eq!(told[1..], [vec!["done"], vec!["b4"]]);
        assert_eq!(sent, 5);
    }
}

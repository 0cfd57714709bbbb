//! Trips of many callers that travel as one.

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

/// Trips that are about to leave together, such as those of one turn of an event loop.
#[derive(Debug, Default)]
pub struct MergedTrip {
    trip: Trip,
    /// All that watch one of the trips see the one that is made.
    at: Context,
    /// How many operations each caller has, in the order of the trip, and how many of them it asked
    /// for.
    parts: Vec<(usize, usize)>,
    /// Where in the trip each operation of each caller is answered.
    places: Vec<usize>,
    /// Where entries are read that came along with the trip of a caller: they answer others too.
    along: HashMap<Bytes, usize>,
    /// Whether an operation answers several callers.
    shares: bool,
    /// The scopes whose reads travel.
    scopes: Vec<Arc<Scope>>,
    footprint: Footprint,
}

/// The names that a batch reads and changes.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    reads: Vec<Bytes>,
    changes: HashSet<Bytes>,
    /// Whether it clears a prefix, and so changes names that it does not tell.
    clears: bool,
}

impl Footprint {
    /// That of one trip.
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

    /// Whether the order of the two matters: one changes what the other reads or changes.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let disturbs = |one: &Self, other: &Self| {
            !one.changes.is_empty()
                && (other.reads.iter().chain(&other.changes)).any(|name| one.changes.contains(name))
        };
        self.clears || other.clears || disturbs(self, other) || disturbs(other, self)
    }
}

impl MergedTrip {
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
            && !matches!(trip.purpose(), Purpose::Drain)
    }

    /// Takes the trip of one more caller along, who is answered after those that came before.
    ///
    /// What is posted leaves with other posts alone: it is never sent again, and reads may be.
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

    /// Where a read is answered already: one page's tasks ask in one turn for what its first read
    /// brings ahead.
    fn place(&mut self, op: &Op) -> Option<usize> {
        let Op::Get { name } = op else {
            return None;
        };
        let place = *self.along.get(name)?;
        // A read that follows a write has to see it.
        let as_it_was = !self.footprint.changes.contains(name);
        self.shares |= as_it_was;
        as_it_was.then_some(place)
    }

    /// What it reads and changes. Batches that meet another's must leave one after the other: those
    /// that are under way at once may overtake each other.
    #[must_use]
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Returns whether it waits for the same as `trip` does, so that the two may leave together.
    #[must_use]
    pub fn suits(&self, trip: &Trip) -> bool {
        self.trip.is_post() == trip.is_post()
    }

    /// The replies of each caller.
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
                return delivery.make(answers);
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
            delivery.make(answers);
        });
        // Begun here, so that what this thread does next on the same names comes behind it.
        if !is_post || blocking_runtimes::poll_once(work.as_mut()).is_pending() {
            runtime.spawn(work);
        }
    }

    /// What becomes of a trip that could not be made at all, as of any failure of the store.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), `error`.
    pub fn fail(&self, trip: &Trip, error: Error) -> Result<Replies> {
        self.0.dispatcher.fail(&self.0.policy.counters, trip, error)
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
    use crate::trip::Reply;

    fn get(name: &'static str) -> Op {
        let name = Bytes::from_static(name.as_bytes());
        Op::Get { name }
    }

    fn delete(name: &'static str) -> Op {
        let name = Bytes::from_static(name.as_bytes());
        Op::Delete { name }
    }

    /// What each caller is answered by a store that tells each name, and how many operations left.
    fn answers(trips: &[Trip]) -> (Vec<Vec<String>>, usize) {
        let mut batch = MergedTrip::default();
        for trip in trips {
            batch.join(&Context::default(), trip);
        }
        let ops = batch.trip.ops().iter().enumerate();
        let replies = ops.map(|(at, op)| match op {
            Op::Get { name } => {
                Reply::Entry(Some([name, at.to_string().as_bytes()].concat().into()))
            }
            _ => Reply::Done,
        });
        let told = batch.split(replies.collect()).into_iter();
        let told = told.map(|(_, replies)| replies.iter().map(show).collect());
        (told.collect(), batch.trip.len())
    }

    fn show(reply: &Reply) -> String {
        match reply {
            Reply::Entry(Some(entry)) => String::from_utf8_lossy(entry).into_owned(),
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
    fn what_came_along_answers_others() {
        let many: Trip = [get("c"), get("d")].into_iter().collect();
        let (told, sent) = answers(&[ahead(), get("b").into(), many, get("a").into()]);
        assert_eq!(told[0], ["a0", "b1", "c2"]);
        assert_eq!(told[1..], [vec!["b1"], vec!["c2", "d3"], vec!["a4"]]);
        assert_eq!(sent, 5);
    }

    #[test]
    fn a_read_that_follows_a_change_is_made_anew() {
        let (told, sent) = answers(&[ahead(), delete("b").into(), get("b").into()]);
        assert_eq!(told[1..], [vec!["done"], vec!["b4"]]);
        assert_eq!(sent, 5);
    }
}

//! A server that may fail: a breaker in front of it, and a note of the deletes it has missed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Exchange, Store};
use crate::breaker::{Breaker, Pass};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::trip::{Op, Replies, Reply, Trip};

/// The most deletes that are kept for a server that cannot be reached.
const MAX_OWED: usize = 10_000;

/// A server, and what it takes to live with its failures.
///
/// A delete that could not be delivered is owed. Until it is, every trip carries all that is owed
/// in front of its own operations, so that no read of this process sees what was to be deleted,
/// and the first trip that succeeds has delivered it. Deleting twice does no harm.
#[derive(Debug)]
pub(super) struct Guarded {
    server: Arc<dyn Store>,
    breaker: Breaker,
    owed: PerProcess<Mutex<Owed>>,
}

#[derive(Debug, Default)]
struct Owed {
    /// When each became owed, counted; a delivery settles only what it carried.
    ops: HashMap<Op, u64>,
    count: u64,
    lost: u64,
}

/// The deletes of a trip under way. Dropped before they are delivered, they are owed.
struct Pledge<'a> {
    guarded: &'a Guarded,
    trip: &'a Trip,
    delivered: bool,
}

impl Guarded {
    pub(super) fn new(server: Arc<dyn Store>, clock: Clock) -> Self {
        let breaker = Breaker::new(server.label(), clock);
        Self {
            server,
            breaker,
            owed: PerProcess::default(),
        }
    }

    fn owed<T>(&self, look: impl FnOnce(&mut Owed) -> T) -> T {
        self.owed
            .with(|owed| look(&mut owed.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    async fn answer(&self, trip: &Trip, pass: Pass) -> Result<Replies> {
        let mut pledge = self.pledge(trip);
        let (ahead, until) = self.owed(|owed| owed.list());
        let answer = if ahead.is_empty() {
            self.ask(trip).await
        } else {
            let carried = ahead.len();
            let all = ahead
                .into_iter()
                .chain(trip.ops().iter().cloned())
                .collect();
            self.ask(&all)
                .await
                .map(|replies| replies.into_iter().skip(carried).collect())
        };
        let silence = answer.as_ref().map_or_else(Some, silence);
        match silence.cloned() {
            Some(error) => Err(self.breaker.failed(&pass, error)),
            None => {
                self.breaker.succeeded();
                self.owed(|owed| owed.settle(until));
                pledge.delivered = true;
                answer
            }
        }
    }

    fn pledge<'a>(&'a self, trip: &'a Trip) -> Pledge<'a> {
        Pledge {
            guarded: self,
            trip,
            delivered: false,
        }
    }

    async fn ask(&self, trip: &Trip) -> Result<Replies> {
        match self.server.exchange(trip) {
            Exchange::Ready(replies) => Ok(replies),
            Exchange::Refused(error) => Err(error),
            Exchange::Pending(answer) => answer.await,
        }
    }
}

/// The failure to reach the server that all of `replies` tell of, if none tells anything else.
fn silence(replies: &Replies) -> Option<&Error> {
    let mut errors = replies.iter().map(|reply| match reply {
        Reply::Failed(error)
            if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) =>
        {
            Some(error)
        }
        _ => None,
    });
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then_some(first)
}

impl Owed {
    /// What is owed, and how to say later that this much was delivered.
    fn list(&self) -> (Vec<Op>, u64) {
        (self.ops.keys().cloned().collect(), self.count)
    }

    fn settle(&mut self, until: u64) {
        if self.ops.is_empty() {
            return;
        }
        self.ops.retain(|_, since| *since > until);
        if self.ops.is_empty() && self.lost > 0 {
            self.lost = 0;
        }
    }

    /// Adds a delete, unless there are too many. Whether it was the first that is lost.
    fn add(&mut self, op: &Op) -> bool {
        self.count += 1;
        let (count, full) = (self.count, self.ops.len() >= MAX_OWED);
        match self.ops.entry(op.clone()) {
            Entry::Occupied(mut since) => {
                since.insert(count);
            }
            Entry::Vacant(_) if full => {
                self.lost += 1;
                return self.lost == 1;
            }
            Entry::Vacant(place) => {
                place.insert(count);
            }
        }
        false
    }
}

impl Drop for Pledge<'_> {
    fn drop(&mut self) {
        if self.delivered {
            return;
        }
        let deletes = self.trip.ops().iter();
        let mut deletes = deletes
            .filter(|op| matches!(op, Op::Delete { .. } | Op::Clear { .. }))
            .peekable();
        if deletes.peek().is_none() {
            return;
        }
        let overflows = self
            .guarded
            .owed(|owed| deletes.filter(|op| owed.add(op)).count());
        if overflows > 0 {
            log::error!(
                "{} cannot be reached and owes {MAX_OWED} deletes; those that follow are lost, and what they were to remove stays until it expires",
                self.guarded.server.label()
            );
        }
    }
}

impl Store for Guarded {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match self.breaker.admit() {
            Ok(pass) => Exchange::Pending(Box::pin(self.answer(trip, pass))),
            Err(error) => {
                drop(self.pledge(trip));
                Exchange::Refused(error)
            }
        }
    }

    fn is_local(&self) -> bool {
        false
    }

    fn label(&self) -> Arc<str> {
        self.server.label()
    }
}

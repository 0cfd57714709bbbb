//! A server that may fail: a breaker in front of it, and a note of the deletes it has missed.

use std::sync::Arc;

use super::owed::Owed;
use super::{Exchange, Store};
use crate::breaker::{Breaker, Pass};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::trip::{Replies, Reply, Trip};

/// A server, and what it takes to live with its failures.
///
/// Every trip carries the deletes that are owed in front of its own operations, and the first one
/// that succeeds has delivered them.
#[derive(Debug)]
pub(super) struct Guarded {
    server: Arc<dyn Store>,
    breaker: Breaker,
    owed: Owed<()>,
}

impl Guarded {
    pub(super) fn new(server: Arc<dyn Store>, clock: Clock) -> Self {
        let label = server.label();
        Self {
            server,
            breaker: Breaker::new(Arc::clone(&label), clock),
            owed: Owed::new(label),
        }
    }

    async fn answer(&self, trip: &Trip, pass: Pass) -> Result<Replies> {
        let mut pledge = self.owed.pledge(trip, |_| ());
        let ahead = self.owed.ahead(|_, ()| true);
        let answer = if ahead.ops.is_empty() {
            self.ask(trip).await
        } else {
            let carried = ahead.ops.len();
            let all = ahead
                .ops
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
                self.owed.settle(ahead.until, |_, ()| true);
                pledge.paid(|_, ()| true);
                answer
            }
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
        Reply::Failed(error) if error.kind().is_silence() => Some(error),
        _ => None,
    });
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then_some(first)
}

impl Store for Guarded {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match self.breaker.admit() {
            Ok(pass) => Exchange::Pending(Box::pin(self.answer(trip, pass))),
            Err(error) => {
                drop(self.owed.pledge(trip, |_| ()));
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

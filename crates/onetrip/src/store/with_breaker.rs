//! A server behind a circuit breaker, with its pending deletes.

use std::sync::Arc;

use super::pending_deletes::PendingDeletes;
use super::{Exchange, Remote, Store};
use crate::breaker::{Breaker, Pass};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::trip::{Purpose, Replies, ScopeId, Trip};

/// A server with its breaker and its pending deletes.
///
/// Every trip carries the pending deletes ahead of its own operations.
#[derive(Debug)]
pub(super) struct WithBreaker {
    server: Arc<dyn Remote>,
    breaker: Breaker,
    pending_deletes: PendingDeletes<()>,
}

impl WithBreaker {
    pub(super) fn new(server: Arc<dyn Remote>, clock: Clock) -> Self {
        let label = server.label();
        Self {
            server,
            breaker: Breaker::new(Arc::clone(&label), clock.clone()),
            pending_deletes: PendingDeletes::new(label, clock),
        }
    }

    async fn answer(&self, trip: &Trip, pass: Pass<'_>) -> Result<Replies> {
        let mut deletes = self.pending_deletes.track(trip, |_| ());
        let due = self.pending_deletes.due(|_, ()| true);
        let answer = if due.ops.is_empty() {
            self.ask(trip).await
        } else {
            let all = due.ops.iter().chain(trip.ops()).cloned();
            let all = all.collect::<Trip>().within(trip.scope());
            self.ask(&all).await
        };
        let mut replies = match answer {
            Ok(replies) => replies,
            Err(error) => return Err(pass.failed(error)),
        };
        pass.succeeded();
        if !due.ops.is_empty() {
            let carried = due.ops.len().min(replies.len());
            let carried: Replies = replies.drain(..carried).collect();
            let told = due.ops.iter().zip(&carried);
            self.pending_deletes
                .record_answers(told.map(|(op, reply)| (op, due.until, reply.failure())));
        }
        deletes.record_replies(trip, &replies, |_, ()| {});
        drop(deletes);
        self.pending_deletes.mask(trip.ops(), &mut replies);
        Ok(replies)
    }

    async fn ask(&self, trip: &Trip) -> Result<Replies> {
        reached(self.server.exchange(trip).await?)
    }

    /// Posts `trip`, unless the server has just failed or has pending deletes.
    ///
    /// A delete may become pending between this check and the registration of the post. It is sent
    /// ahead of the next trip. If it names a posted name, that trip first reads the reply to the
    /// post, so the delete removes the posted entry.
    pub(super) fn post(&self, trip: Trip) -> Exchange<'_> {
        let pass = match self.breaker.admit_if_closed() {
            Ok(pass) => pass,
            Err(error) => return Exchange::Refused(error),
        };
        if let Some(error) = self.pending_deletes.blocks_post(&trip) {
            return Exchange::Ready(trip.failed(&error));
        }
        let posting = self.server.post(trip);
        Exchange::Pending(Box::pin(async move {
            pass.posted(posting.await.and_then(reached))
        }))
    }

    /// Reads the replies to posted writes, as [`Breaker::drain`].
    pub(super) fn drain(&self, scope: Option<ScopeId>) -> Exchange<'_> {
        if !self.server.has_posted(scope) {
            return Exchange::Ready(Replies::new());
        }
        Exchange::Pending(Box::pin(async move {
            let read = |patience| self.server.drain(scope, patience);
            self.breaker.drain(read).await?;
            Ok(Replies::new())
        }))
    }
}

/// Returns `replies`, or the error if all of them are failures to reach the server.
fn reached(replies: Replies) -> Result<Replies> {
    match failure_of_all(&replies) {
        Some(error) => Err(error.clone()),
        None => Ok(replies),
    }
}

/// Returns the first error if all of `replies` are failures to reach the server.
fn failure_of_all(replies: &Replies) -> Option<&Error> {
    let mut errors = replies.iter().map(|reply| {
        let error = reply.failure();
        error.filter(|error| error.kind().is_silence())
    });
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then_some(first)
}

impl Store for WithBreaker {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match trip.purpose() {
            Purpose::Answer => {}
            Purpose::Post(_) => return self.post(trip.clone()),
            Purpose::Drain => return self.drain(trip.scope()),
        }
        match self.breaker.admit() {
            Ok(pass) => Exchange::Pending(Box::pin(self.answer(trip, pass))),
            Err(error) => {
                drop(self.pending_deletes.track(trip, |_| ()));
                Exchange::Refused(error)
            }
        }
    }

    fn posts(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        self.server.label()
    }
}

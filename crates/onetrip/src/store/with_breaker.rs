//! A server that may fail: a breaker in front of it, and a note of the deletes it has missed.

use std::sync::Arc;

use super::pending_deletes::PendingDeletes;
use super::{Exchange, Remote, Store};
use crate::breaker::{Breaker, Pass};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::trip::{Purpose, Replies, ScopeId, Trip};

/// A server, and what it takes to live with its failures.
///
/// Every trip carries the deletes that are owed in front of its own operations.
#[derive(Debug)]
pub(super) struct WithBreaker {
    server: Arc<dyn Remote>,
    breaker: Breaker,
    owed: PendingDeletes<()>,
}

impl WithBreaker {
    pub(super) fn new(server: Arc<dyn Remote>, clock: Clock) -> Self {
        let label = server.label();
        Self {
            server,
            breaker: Breaker::new(Arc::clone(&label), clock.clone()),
            owed: PendingDeletes::new(label, clock),
        }
    }

    async fn answer(&self, trip: &Trip, pass: Pass<'_>) -> Result<Replies> {
        let mut pledge = self.owed.pledge(trip, |_| ());
        let ahead = self.owed.ahead(|_, ()| true);
        let answer = if ahead.ops.is_empty() {
            self.ask(trip).await
        } else {
            let all = ahead.ops.iter().chain(trip.ops()).cloned();
            let all = all.collect::<Trip>().within(trip.scope());
            self.ask(&all).await
        };
        let mut replies = match answer {
            Ok(replies) => replies,
            Err(error) => return Err(pass.failed(error)),
        };
        pass.succeeded();
        if !ahead.ops.is_empty() {
            let carried = ahead.ops.len().min(replies.len());
            let carried: Replies = replies.drain(..carried).collect();
            let told = ahead.ops.iter().zip(&carried);
            self.owed
                .told(told.map(|(op, reply)| (op, ahead.until, reply.failure())));
        }
        pledge.told(trip, &replies, |_, ()| {});
        drop(pledge);
        self.owed.mask(trip.ops(), &mut replies);
        Ok(replies)
    }

    async fn ask(&self, trip: &Trip) -> Result<Replies> {
        spoken(self.server.exchange(trip).await?)
    }

    /// Posts `trip`, unless the server failed just now or has deletes to hear of first.
    ///
    /// Looking for those and registering the post are two steps. A delete that becomes owed between
    /// them was made while this post was: it goes ahead of the next trip, which first reads the
    /// reply to the post if it names the same name, and so removes what was posted.
    pub(super) fn post(&self, trip: Trip) -> Exchange<'_> {
        let pass = match self.breaker.admit_if_closed() {
            Ok(pass) => pass,
            Err(error) => return Exchange::Refused(error),
        };
        if let Some(error) = self.owed.bars(&trip) {
            return Exchange::Ready(trip.failed(&error));
        }
        let posting = self.server.post(trip);
        Exchange::Pending(Box::pin(async move {
            pass.posted(posting.await.and_then(spoken))
        }))
    }

    /// Reads the replies to what was posted, as [`Breaker::drain`].
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

/// `replies`, unless all of them are one failure to reach the server.
fn spoken(replies: Replies) -> Result<Replies> {
    match silence(&replies) {
        Some(error) => Err(error.clone()),
        None => Ok(replies),
    }
}

/// The failure to reach the server that all of `replies` tell of, if none tells anything else.
fn silence(replies: &Replies) -> Option<&Error> {
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
                drop(self.owed.pledge(trip, |_| ()));
                Exchange::Refused(error)
            }
        }
    }

    fn label(&self) -> Arc<str> {
        self.server.label()
    }
}

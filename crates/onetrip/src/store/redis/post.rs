//! Writes that are posted to one server, and the answers to them.
//!
//! `CLIENT REPLY OFF` would spare the answers, and with them the only word of when a write has
//! happened: what follows on another connection could overtake it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::commands::{self, MAX_ENTRY, OpBatch, failure, nonsense, refused};
use super::connection::{Broken, Connection};
use super::server::{Server, Wire};
use super::shared::Shared;
use crate::blocking_runtimes::{self, PollMode};
use crate::error::{Error, Result};
use crate::store::Remote;
use crate::store::posted::{Call, Held, Posted, Ticket};
use crate::store::posting::{self, Draining, Poster, Posting};
use crate::store::stream::until;
use crate::trip::{Op, Replies, Reply, ScopeId, Trip};
use crate::wire::redis::{Commands, Value};

/// The most answers that are kept to learn from.
const MOST_STRAYS: usize = 16;

/// Responses to posted writes that tell of another node. Nobody sends those writes again, but what
/// the cluster looks like is to be learned.
#[derive(Debug, Default)]
pub(super) struct Strays {
    some: AtomicBool,
    replies: Mutex<Vec<Reply>>,
}

impl Strays {
    /// Keeps what of `replies` tells of another node.
    pub(super) fn note(&self, replies: &[Reply]) {
        let moved = replies.iter().filter(|reply| {
            commands::refusal(reply).is_some_and(|error| matches!(error.code(), "MOVED" | "ASK"))
        });
        let moved: Vec<&Reply> = moved.take(MOST_STRAYS).collect();
        if moved.is_empty() {
            return;
        }
        let mut kept = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_STRAYS - kept.len().min(MOST_STRAYS);
        kept.extend(moved.into_iter().take(room).cloned());
        self.some.store(true, Ordering::Release);
    }

    /// What was kept.
    pub(super) fn take(&self) -> Vec<Reply> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut kept = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut kept)
    }
}

impl Server {
    /// The replies to posted writes that were answered like this.
    pub(super) fn posted_replies(&self, values: impl Iterator<Item = Value>) -> Replies {
        let replies: Replies = values
            .map(|value| match value {
                value if value.is_ok() => Reply::Done,
                Value::Error(error) => Reply::Failed(refused(&self.label, error)),
                _ => Reply::Failed(nonsense(&self.label, "set")),
            })
            .collect();
        self.strays.note(&replies);
        replies
    }

    /// Makes `trip` on the connection that tasks share. What they send later follows it there.
    async fn post_shared(&self, trip: &Trip, ticket: Ticket<Box<Connection>>) -> Result<Replies> {
        let call = Call::post(trip, ticket.id(), false);
        let line = self.free_line(Some(call)).await?;
        let Wire::Shared(lease) = &line.wire else {
            return Err(self.broke(Broken::Stale));
        };
        let (commands, shapes) = commands::commands(OpBatch::whole(trip));
        let (id, shared_id) = (ticket.id(), lease.connection.shared_id);
        let answer = match lease.connection.put(commands, Some(ticket)) {
            Ok(told) => {
                // Once it is: who sees it sends behind it.
                self.posted.sent(id, shared_id);
                Shared::hear(told, until(self.trip_timeout)).await
            }
            Err(broken) => Err(broken),
        };
        let mut replies = Replies::with_capacity(trip.len());
        let answer = answer.and_then(|values| {
            commands::replies(&self.label, trip.ops(), &shapes, values, &mut replies)
        });
        match answer {
            Ok(()) => {
                self.strays.note(&replies);
                Ok(replies)
            }
            Err(broken) => Err(self.fail(line, broken).await.error),
        }
    }
}

impl Poster for Server {
    type Connection = Box<Connection>;

    fn posted(&self) -> &Posted<Box<Connection>> {
        &self.posted
    }

    fn trip_timeout(&self) -> Duration {
        self.trip_timeout
    }

    fn timed_out(&self) -> Error {
        failure(&self.label, Broken::Timeout)
    }

    fn idle(&self) -> Option<Held<Box<Connection>>> {
        self.idle_line()
    }

    async fn send(
        &self,
        connection: &mut Box<Connection>,
        ops: &[Op],
        until: Instant,
    ) -> Result<()> {
        let batch = OpBatch {
            ops,
            asking: None,
            scope: None,
        };
        let (commands, _) = commands::commands(batch);
        let sent = connection.post(commands, until).await;
        sent.map_err(|broken| self.broke(broken))
    }

    async fn read(
        &self,
        connection: &mut Box<Connection>,
        until: Instant,
    ) -> Result<(Replies, bool)> {
        let read = connection.exchange(Commands::default(), until).await;
        let values = read.map_err(|broken| self.broke(broken))?;
        let replies = self.posted_replies(values.into_iter());
        let is_of_use = self.is_current(connection.term) && !self.is_demoted(&replies);
        connection.used = Instant::now();
        Ok((replies, is_of_use))
    }

    async fn wait(&self, trip: &Trip, ticket: Ticket<Box<Connection>>) -> Result<Replies> {
        if blocking_runtimes::poll_mode() == PollMode::Shared {
            return self.post_shared(trip, ticket).await;
        }
        let mut line = self.free_line(None).await?;
        match self.ask(&mut line, OpBatch::whole(trip)).await {
            Ok(replies) => {
                self.strays.note(&replies);
                if self.is_demoted(&replies) {
                    return Ok(replies);
                }
                Self::keep(line);
                Ok(replies)
            }
            Err(broken) => Err(self.fail(line, broken).await.error),
        }
    }

    fn takes(ops: &[Op]) -> bool {
        ops.iter().all(|op| op.carries() <= MAX_ENTRY)
    }
}

impl Remote for Server {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Posting<'a> {
        Box::pin(async move {
            let answer = self.exchange(OpBatch::whole(trip)).await;
            answer.map_err(|failure| failure.error)
        })
    }

    fn post(&self, trip: Trip) -> Posting<'_> {
        posting::begin(self, trip)
    }

    fn has_posted(&self, scope: Option<ScopeId>) -> bool {
        self.posted.has(scope)
    }

    fn drain(&self, scope: Option<ScopeId>, patience: Option<Duration>) -> Draining<'_> {
        Box::pin(posting::drain(self, scope, patience))
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

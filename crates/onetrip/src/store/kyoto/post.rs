//! Writes that are posted to the server, and the answers to them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Kyoto;
use super::connection::{Broken, Connection};
use super::plan::{self, Pipeline, Segment};
use crate::error::{Error, Result};
use crate::store::Remote;
use crate::store::pool::Pool;
use crate::store::posted::{Call, Held, Posted, Ticket};
use crate::store::posting::{self, Draining, Poster, Posting};
use crate::trip::{Op, Replies, Reply, ScopeId, Trip};
use crate::wire::kyoto::{MAX_DATA, RequestKind, ServerReply};

impl Kyoto {
    /// Sends a batch and reads its answers, behind those to what was posted before it. Calls by
    /// HTTP wait for the latter: the two protocols take turns on a connection.
    pub(super) async fn converse(
        &self,
        held: &mut Held<Connection>,
        batch: Pipeline,
        until: Instant,
    ) -> Result<(Vec<ServerReply>, Bytes), Broken> {
        let posted = held.connected()?.unread().to_vec();
        if posted.is_empty() {
            return held.connected()?.exchange(batch, until).await;
        }
        let calls = batch.questions.contains(&RequestKind::Call);
        let sent = if calls {
            Pipeline::default()
        } else {
            batch.clone()
        };
        let (mut answers, buffer) = held.connected()?.exchange(sent, until).await?;
        let own = answers.split_off(posted.len().min(answers.len()));
        held.told(&self.posted_replies(&posted, answers));
        if !calls {
            return Ok((own, buffer));
        }
        if !held.connected()?.in_step {
            // It hung up on what was posted.
            return Err(Broken::Io(io::ErrorKind::NotConnected.into()));
        }
        held.connected()?.exchange(batch, until).await
    }

    /// The replies to posted writes that were answered like this.
    fn posted_replies(&self, questions: &[RequestKind], answers: Vec<ServerReply>) -> Replies {
        let label = &self.door.label;
        let mut answers = answers.into_iter();
        let replies = questions.iter().flat_map(|question| {
            let RequestKind::Set(count) = *question else {
                return std::iter::repeat_n(Reply::Done, 0);
            };
            let reply = match answers.next() {
                Some(ServerReply::Count(written)) if written == count => Reply::Done,
                // The one reason to leave records out without a word.
                Some(ServerReply::Count(_)) => Reply::Failed(plan::no_database(label)),
                _ => Reply::Failed(plan::refused(label, "a request in its binary protocol")),
            };
            std::iter::repeat_n(reply, count)
        });
        replies.collect()
    }
}

impl Poster for Kyoto {
    type Connection = Connection;

    fn posted(&self) -> &Posted<Connection> {
        &self.posted
    }

    fn trip_timeout(&self) -> Duration {
        self.door.trip_timeout
    }

    fn timed_out(&self) -> Error {
        let late = io::Error::from(io::ErrorKind::TimedOut);
        self.door.failure(Broken::Io(late))
    }

    fn idle(&self) -> Option<Held<Connection>> {
        let pool = self.pools.get(Pool::new);
        let idle = pool.take(|idle| idle.is_in_step());
        idle.map(|idle| Held::new(idle.reused(), pool))
    }

    async fn send(&self, connection: &mut Connection, ops: &[Op], until: Instant) -> Result<()> {
        let (batch, _) = Segment::new(self.door.db, ops).ask();
        let sent = connection.post(batch, until).await;
        sent.map_err(|broken| self.door.failure(broken))
    }

    async fn read(&self, connection: &mut Connection, until: Instant) -> Result<(Replies, bool)> {
        let posted = connection.unread().to_vec();
        let read = connection.exchange(Pipeline::default(), until).await;
        let (answers, _) = read.map_err(|broken| self.door.failure(broken))?;
        Ok((self.posted_replies(&posted, answers), connection.in_step))
    }

    async fn wait(&self, trip: &Trip, ticket: Ticket<Connection>) -> Result<Replies> {
        posting::wait_for_posts(self, Call::post(trip, ticket.id(), false)).await?;
        self.ask_anybody(trip, false).await
    }

    fn takes(ops: &[Op]) -> bool {
        let fits = |op: &Op| op.carries() <= MAX_DATA && op.name().len() <= MAX_DATA;
        ops.iter().all(fits)
    }
}

impl Remote for Kyoto {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Posting<'a> {
        Box::pin(self.answer(trip))
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
        Arc::clone(&self.door.label)
    }
}

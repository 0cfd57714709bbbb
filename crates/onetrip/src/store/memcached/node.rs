//! One server: what a trip to it takes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::timeout;

use super::address::Address;
use super::commands::{self, Asked};
use super::connection::{Broken, Connection};
use super::name;
use crate::error::{Error, ErrorKind, Result};
use crate::key;
use crate::store::per_runtime::ByRuntime;
use crate::store::pool::{Pool, Turn};
use crate::store::posted::{Call, Held, Posted, Ticket};
use crate::store::posting::{self, Draining, Poster, Posting};
use crate::store::stream::until;
use crate::store::{Remote, StoreOptions};
use crate::trip::{Op, Replies, Reply, ScopeId, Trip};
use crate::wire::memcached::{Command, MAX_VALUE, Nonsense, Response};

/// How often an increment is tried whose number others change meanwhile. Each time one of them
/// gets ahead.
const TRIES: usize = 100;

/// One server.
#[derive(Debug)]
pub(super) struct Node {
    address: Address,
    label: Arc<str>,
    pools: ByRuntime<Pool<Connection>>,
    posted: Posted<Connection>,
    connect_timeout: Duration,
    trip_timeout: Duration,
}

impl Node {
    pub(super) fn new(address: Address, options: &StoreOptions) -> Self {
        Self {
            label: address.to_string().into(),
            address,
            pools: ByRuntime::new(),
            posted: Posted::new(),
            connect_timeout: options.connect_timeout,
            trip_timeout: options.trip_timeout,
        }
    }

    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        if !self.posted.is_empty() {
            let call = Call::trip(trip);
            // Apart, so that trips which nothing was posted before take no room for it.
            if let Some(held) = Box::pin(posting::wait_for_posts(self, call)).await? {
                match self.make(held, trip, self.trip_timeout).await {
                    // As below.
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable && trip.is_repeatable() => {}
                    answer => return answer,
                }
            }
        }
        self.ask_anybody(trip, trip.is_repeatable()).await
    }

    /// Makes the trip by a connection that is idle, or a new one; twice if it may be sent `again`.
    async fn ask_anybody(&self, trip: &Trip, again: bool) -> Result<Replies> {
        let began = Instant::now();
        let pool = self.pools.get(Pool::new);
        let Some(turn) = pool.turn(self.trip_timeout).await else {
            return Err(self.timed_out());
        };
        let patience = self.trip_timeout.saturating_sub(began.elapsed());
        if let Some(connection) = pool.take(|idle| idle.is_in_step()) {
            let held = Held::new(connection, Arc::clone(&pool));
            match self.make(held, trip, patience).await {
                // The server closed the idle connection just now. Nothing is lost by asking once
                // more, unless the trip might have arrived and must not be done twice.
                Err(error) if error.kind() == ErrorKind::Unavailable && again => {}
                answer => return answer,
            }
        }
        let (connection, _turn) = self.connect(&pool, turn).await?;
        self.make(Held::new(connection, pool), trip, patience).await
    }

    async fn connect(
        &self,
        pool: &Arc<Pool<Connection>>,
        turn: Turn,
    ) -> Result<(Connection, Turn)> {
        let (address, patience) = (self.address.clone(), self.connect_timeout);
        let opening = async move {
            let opened = timeout(patience, Connection::open(&address)).await;
            opened.unwrap_or_else(|elapsed| Err(elapsed.into()))
        };
        match pool.open(turn, opening).await {
            Some((Ok(connection), turn)) => Ok((connection, turn)),
            Some((Err(error), _)) => Err(self.failure(Broken::Io(error))),
            None => Err(self.failure(Broken::Io(io::ErrorKind::NotConnected.into()))),
        }
    }

    /// Makes the trip by `held`, which is put back if it is still of use.
    async fn make(
        &self,
        mut held: Held<Connection>,
        trip: &Trip,
        patience: Duration,
    ) -> Result<Replies> {
        match self.ask(&mut held, trip, until(patience)).await {
            Ok(replies) => {
                held.keep();
                Ok(replies)
            }
            Err(broken) => {
                let error = self.failure(broken);
                held.lost(&error);
                Err(error)
            }
        }
    }

    async fn ask(
        &self,
        held: &mut Held<Connection>,
        trip: &Trip,
        until: Instant,
    ) -> Result<Replies, Broken> {
        let now = now();
        let mut replies = Replies::with_capacity(trip.len());
        let mut rest = trip.ops();
        // All goes out at once up to an increment, which takes a second step.
        while !rest.is_empty() {
            let increment = rest.iter().position(|op| matches!(op, Op::Incr { .. }));
            let (ops, after) = rest.split_at(increment.map_or(rest.len(), |at| at + 1));
            let asked: Vec<_> = ops.iter().map(|op| Asked::new(op, now)).collect();
            let commands = asked.iter().filter_map(Asked::command);
            let connection = held.connected()?;
            let unread = connection.unread();
            let mut answers = connection.exchange(commands, until).await?;
            if unread > 0 {
                held.told(&self.posted_replies(answers.by_ref().take(unread)));
            }
            let connection = held.connected()?;
            let mut stale = Vec::new();
            for asked in &asked {
                let answer = asked.command().and_then(|_| answers.next());
                let reply = match (asked.op, answer) {
                    (Op::Incr { name, delta }, Some(looked)) => {
                        self.add(connection, name, *delta, looked, until).await?
                    }
                    (_, answer) => commands::reply(&self.label, asked, answer)?,
                };
                let later = trip.ops().get(replies.len() + 1..).unwrap_or_default();
                if asked.leaves_stale(&reply, later) {
                    stale.push((&*asked.key, Command::Delete));
                }
                replies.push(reply);
            }
            if !stale.is_empty() {
                drop(connection.exchange(stale.into_iter(), until).await?);
            }
            rest = after;
        }
        Ok(replies)
    }

    /// The replies to posted writes that were answered like this.
    fn posted_replies(&self, answers: impl Iterator<Item = Response>) -> Replies {
        let replies = answers.map(|answer| match answer {
            Response::Done => Reply::Done,
            Response::Refused(why) => Reply::Failed(commands::refused(&self.label, &why)),
            _ => Reply::Failed(self.failure(Nonsense("an answer of another kind").into())),
        });
        replies.collect()
    }

    /// Adds to the number that was `looked` at, or to what it has become meanwhile.
    async fn add(
        &self,
        connection: &mut Connection,
        name: &Bytes,
        delta: i64,
        mut looked: Response,
        until: Instant,
    ) -> Result<Reply, Broken> {
        let key = &*name::key(name);
        for _ in 0..TRIES {
            let sum = match commands::sum(&self.label, name, delta, looked)? {
                Ok(sum) => sum,
                Err(reply) => return Ok(reply),
            };
            let answer = connection.one(key, sum.command(now()), until).await?;
            if let Some(reply) = sum.reply(&self.label, answer)? {
                return Ok(reply);
            }
            looked = connection.one(key, Command::Look, until).await?;
        }
        Ok(Reply::Failed(Error::new(
            ErrorKind::Refused,
            format!(
                "others changed {:?} on {} each of the {TRIES} times that it was added to; try again",
                key::display(name),
                self.label
            ),
        )))
    }

    fn timed_out(&self) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "{} did not answer in time; see connect_timeout and trip_timeout",
                self.label
            ),
        )
    }

    fn failure(&self, broken: Broken) -> Error {
        match broken {
            Broken::Io(error) if error.kind() == io::ErrorKind::TimedOut => self.timed_out(),
            Broken::Io(error) => Error::with_source(
                ErrorKind::Unavailable,
                format!(
                    "{} cannot be reached; is the server running, and the URL right? ({error})",
                    self.label
                ),
                error,
            ),
            Broken::Nonsense(nonsense) => Error::with_source(
                ErrorKind::Unavailable,
                format!(
                    "{} answered what the protocol does not allow ({nonsense}); is it a Memcached server?",
                    self.label
                ),
                nonsense,
            ),
        }
    }
}

/// Seconds of Unix time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Poster for Node {
    type Connection = Connection;

    fn posted(&self) -> &Posted<Connection> {
        &self.posted
    }

    fn trip_timeout(&self) -> Duration {
        self.trip_timeout
    }

    fn timed_out(&self) -> Error {
        self.timed_out()
    }

    fn idle(&self) -> Option<Held<Connection>> {
        let pool = self.pools.get(Pool::new);
        let idle = pool.take(|idle| idle.is_in_step());
        idle.map(|idle| Held::new(idle, pool))
    }

    async fn send(&self, connection: &mut Connection, ops: &[Op], until: Instant) -> Result<()> {
        let now = now();
        let asked: Vec<_> = ops.iter().map(|op| Asked::new(op, now)).collect();
        let commands = asked.iter().filter_map(Asked::command);
        let sent = connection.post(commands, until).await;
        sent.map_err(|broken| self.failure(broken))
    }

    async fn read(&self, connection: &mut Connection, until: Instant) -> Result<(Replies, bool)> {
        let read = connection.read_posted(until).await;
        let answers = read.map_err(|broken| self.failure(broken))?;
        Ok((self.posted_replies(answers), true))
    }

    async fn wait(&self, trip: &Trip, ticket: Ticket<Connection>) -> Result<Replies> {
        posting::wait_for_posts(self, Call::post(trip, ticket.id(), false)).await?;
        self.ask_anybody(trip, false).await
    }

    fn takes(ops: &[Op]) -> bool {
        ops.iter().all(|op| op.carries() <= MAX_VALUE)
    }
}

impl Remote for Node {
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
        Arc::clone(&self.label)
    }
}

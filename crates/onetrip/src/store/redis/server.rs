//! One Redis server: its connections, and what is asked of it.

use std::io::{self, ErrorKind::BrokenPipe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::address::Door;
use super::commands::{self, OpBatch, failure, is_from_replica, nonsense, refused};
use super::connection::{Broken, Connection, only};
use super::post::Strays;
use super::sentinel::Sentinel;
use super::shared::Shared;
use crate::blocking_runtimes::{self, PollMode};
use crate::error::{Error, ErrorKind, Result};
use crate::store::connections::{Connections, Lease};
use crate::store::per_runtime::ByRuntime;
use crate::store::pool::Pool;
use crate::store::posted::{Call, Held, Posted};
use crate::store::stream::until;
use crate::store::{StoreOptions, posting};
use crate::trip::{Op, Replies, Reply};
use crate::wire::digits::Digits;
use crate::wire::redis::{Commands, Value};

/// Keys looked at in one step of a clear.
const SCAN_COUNT: u64 = 1000;

pub(super) type Idle = Pool<Box<Connection>>;

/// A Redis server.
#[derive(Debug)]
pub(super) struct Server {
    way: Arc<Way>,
    connect_timeout: Duration,
    pub(super) trip_timeout: Duration,
    /// Idle connections of blocking callers (one trip at a time).
    idle: ByRuntime<Idle>,
    /// Those with writes whose answers are unread.
    pub(super) posted: Posted<Box<Connection>>,
    /// What posted writes were answered of which another node holds the name.
    pub(super) strays: Strays,
    /// One for all tasks of each other runtime.
    shared: Connections<Shared>,
    /// When an answer was last waited for in vain. Connections that are idle since before may lead
    /// nowhere as well, and each would cost a timeout of its own.
    silent: Mutex<Option<Instant>>,
    pub(super) label: Arc<str>,
}

/// How a server is found.
#[derive(Debug)]
pub(super) enum Way {
    /// It is where it always is.
    Direct(Door),
    /// It is whichever server these name.
    Sentinel(Sentinel),
}

/// A connection to use for one exchange.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) wire: Wire,
    /// Whether it was open already. The server may have closed it since.
    reused: bool,
    /// Whether something was answered on it in this exchange.
    heard: bool,
    /// Whether what was posted on it before was answered by a replica.
    demoted: bool,
}

#[derive(Debug)]
pub(super) enum Wire {
    Own(Held<Box<Connection>>),
    Shared(Lease<Shared>),
}

impl Line {
    fn new(wire: Wire, reused: bool) -> Self {
        Self {
            wire,
            reused,
            heard: false,
            demoted: false,
        }
    }
}

/// An exchange that failed as a whole.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the operations may have been carried out all the same.
    pub(super) sent: bool,
}

impl Failure {
    pub(super) fn sent(error: Error) -> Self {
        Self { error, sent: true }
    }

    fn unsent(error: Error) -> Self {
        Self { error, sent: false }
    }
}

impl Server {
    pub(super) fn new(way: Way, label: Arc<str>, options: &StoreOptions) -> Self {
        Self {
            way: Arc::new(way),
            connect_timeout: options.connect_timeout,
            trip_timeout: options.trip_timeout,
            idle: ByRuntime::new(),
            posted: Posted::new(),
            strays: Strays::default(),
            shared: Connections::new(),
            silent: Mutex::default(),
            label,
        }
    }

    /// Carries out the operations of `batch`: one reply for each.
    pub(super) async fn exchange(&self, batch: OpBatch<'_>) -> Result<Replies, Failure> {
        let mut line = self.line(batch).await.map_err(Failure::unsent)?;
        let again = match self.ask(&mut line, batch).await {
            // No primary any more: it has written nothing, and what it read is out of date.
            Ok(replies) if line.demoted || self.is_demoted(&replies) => {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{} has lost its primary", self.label),
                );
                self.discard(line, &error).await;
                error
            }
            Ok(replies) => {
                Self::keep(line);
                return Ok(replies);
            }
            Err(broken) => {
                let is_repeatable =
                    matches!(broken, Broken::Stale) || batch.ops.iter().all(Op::is_repeatable);
                self.lost(line, broken, is_repeatable).await?
            }
        };
        log::debug!("{again}; connecting anew");
        let mut line = self.line(batch).await.map_err(Failure::sent)?;
        match self.ask(&mut line, batch).await {
            Ok(replies) => {
                Self::keep(line);
                Ok(replies)
            }
            Err(broken) => Err(self.fail(line, broken).await),
        }
    }

    /// Sends one command, which may be carried out twice.
    pub(super) async fn command(&self, words: &[&[u8]]) -> Result<Value, Failure> {
        let mut line = self.free_line(None).await.map_err(Failure::unsent)?;
        let answer = match self.say(&mut line, words).await {
            Err(broken) => {
                self.lost(line, broken, true).await?;
                line = self.free_line(None).await.map_err(Failure::sent)?;
                self.say(&mut line, words).await
            }
            answer => answer,
        };
        match answer {
            Ok(answer) => {
                Self::keep(line);
                match answer {
                    Value::Error(error) => Err(Failure::sent(refused(&self.label, error))),
                    answer => Ok(answer),
                }
            }
            Err(broken) => Err(self.fail(line, broken).await),
        }
    }

    /// What to think of a connection that broke: the failure, or why it can be asked once more.
    async fn lost(&self, line: Line, broken: Broken, again: bool) -> Result<Error, Failure> {
        let reused = line.reused;
        let failure = self.fail(line, broken).await;
        // The server had closed the idle connection. Nothing is lost by asking once more, unless
        // the trip might have arrived and must not be done twice.
        if reused && again && failure.error.kind() == ErrorKind::Unavailable {
            Ok(failure.error)
        } else {
            Err(failure)
        }
    }

    fn silent(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn fail(&self, line: Line, broken: Broken) -> Failure {
        let error = self.broke(broken);
        self.discard(line, &error).await;
        Failure::sent(error)
    }

    /// The failure of a connection that broke.
    pub(super) fn broke(&self, broken: Broken) -> Error {
        if matches!(broken, Broken::Timeout) {
            *self.silent() = Some(Instant::now());
        }
        failure(&self.label, broken)
    }

    pub(super) fn is_demoted(&self, replies: &[Reply]) -> bool {
        matches!(*self.way, Way::Sentinel(_)) && replies.iter().any(is_from_replica)
    }

    /// Whether connections of this term lead to where the server is, as far as is known.
    pub(super) fn is_current(&self, term: u64) -> bool {
        match &*self.way {
            Way::Direct(_) => true,
            Way::Sentinel(sentinel) => sentinel.is_current(term),
        }
    }

    /// A connection for `batch`: the one on which its scope has posted, or one that is free.
    async fn line(&self, batch: OpBatch<'_>) -> Result<Line> {
        if self.posted.is_empty() {
            return self.free_line(None).await;
        }
        // Apart, so that trips which nothing was posted before take no room for it.
        Box::pin(self.line_behind(batch)).await
    }

    async fn line_behind(&self, batch: OpBatch<'_>) -> Result<Line> {
        let call = Call {
            ops: batch.ops,
            scope: batch.scope,
            ticket: None,
            shared_id: None,
            may_use_parked: true,
        };
        if blocking_runtimes::poll_mode() == PollMode::Shared {
            return self.free_line(Some(call)).await;
        }
        while let Some(mut held) = posting::wait_for_posts(self, call).await? {
            if (held.connection()).is_some_and(|connection| self.is_current(connection.term)) {
                return Ok(Line::new(Wire::Own(held), true));
            }
            posting::finish(self, held, until(self.trip_timeout)).await?;
        }
        self.free_line(None).await
    }

    /// Takes an idle connection of this blocking runtime.
    pub(super) fn idle_line(&self) -> Option<Held<Box<Connection>>> {
        let pool = self.idle.get(Pool::new);
        let silent = *self.silent();
        let idle = pool.take(|idle| {
            self.is_current(idle.term)
                && silent.is_none_or(|silent| idle.used > silent)
                && idle.is_in_step()
        });
        idle.map(|idle| Held::new(idle, pool))
    }

    /// A connection on which nothing is posted; where tasks share one, `behind` what was posted on
    /// others.
    pub(super) async fn free_line(&self, behind: Option<Call<'_>>) -> Result<Line> {
        if blocking_runtimes::poll_mode() != PollMode::Shared {
            if let Some(held) = self.idle_line() {
                return Ok(Line::new(Wire::Own(held), true));
            }
            // Others of the same trip may be on their way.
            let connection = blocking_runtimes::concurrently(self.connect()).await?;
            let held = Held::new(Box::new(connection), self.idle.get(Pool::new));
            return Ok(Line::new(Wire::Own(held), false));
        }
        let mut lease = self.shared.get(self.share()).await?;
        // A post is never sent again, so it is not to find out that nobody is there.
        let is_of_use = self.is_current(lease.connection.term) && !lease.connection.is_over();
        if lease.reused && !is_of_use {
            self.shared.discard(&lease).await;
            lease = self.shared.get(self.share()).await?;
        }
        if let Some(call) = behind {
            let call = Call {
                shared_id: Some(lease.connection.shared_id),
                may_use_parked: false,
                ..call
            };
            Box::pin(posting::wait_for_posts(self, call)).await?;
        }
        let reused = lease.reused;
        Ok(Line::new(Wire::Shared(lease), reused))
    }

    /// Makes a connection, whether anybody waits for it or not.
    fn connect(&self) -> impl Future<Output = Result<Connection>> + Send + 'static {
        let (way, label) = (Arc::clone(&self.way), Arc::clone(&self.label));
        let patience = self.connect_timeout;
        async move {
            match &*way {
                Way::Direct(door) => {
                    let connection = Connection::open(door, patience).await;
                    connection.map_err(|broken| failure(&label, broken))
                }
                Way::Sentinel(sentinel) => sentinel.connect().await,
            }
        }
    }

    fn share(&self) -> impl Future<Output = Result<Shared>> + Send + 'static {
        let connecting = self.connect();
        async move { Ok(Shared::new(connecting.await?)) }
    }

    /// Keeps what an exchange has left in step.
    pub(super) fn keep(line: Line) {
        if let Wire::Own(mut held) = line.wire {
            if let Some(connection) = held.connection() {
                connection.used = Instant::now();
            }
            held.keep();
        }
    }

    /// Never uses this connection again: what is on the wire is unknown.
    async fn discard(&self, line: Line, error: &Error) {
        match line.wire {
            Wire::Own(held) => held.lost(error),
            Wire::Shared(lease) => self.shared.discard(&lease).await,
        }
    }

    /// Sends commands: as many answers.
    async fn converse(&self, line: &mut Line, commands: Commands) -> Result<Vec<Value>, Broken> {
        let until = until(self.trip_timeout);
        let answer = match &mut line.wire {
            Wire::Own(held) => {
                let Some(connection) = held.connection() else {
                    return Err(Broken::Stale);
                };
                let posted = connection.unread;
                let mut answer = connection.exchange(commands, until).await;
                if posted > 0
                    && let Ok(values) = &mut answer
                {
                    let replies = self.posted_replies(values.drain(..posted));
                    line.demoted = self.is_demoted(&replies);
                    held.told(&replies);
                }
                answer
            }
            Wire::Shared(lease) => lease.connection.exchange(commands, until).await,
        };
        match answer {
            // These commands were not sent, but others of the same trip were.
            Err(Broken::Stale) if line.heard => Err(io::Error::from(BrokenPipe).into()),
            Err(broken) => Err(broken),
            Ok(values) => {
                line.heard = true;
                Ok(values)
            }
        }
    }

    async fn say(&self, line: &mut Line, words: &[&[u8]]) -> Result<Value, Broken> {
        only(self.converse(line, Commands::one(words)).await?)
    }

    pub(super) async fn ask(&self, line: &mut Line, batch: OpBatch<'_>) -> Result<Replies, Broken> {
        let mut replies = Replies::with_capacity(batch.ops.len());
        let mut ops = batch.ops;
        // All but a clear, which takes many steps, goes out at once.
        while let Some(op) = ops.first() {
            if let Op::Clear { prefix } = op {
                replies.push(self.clear(line, prefix).await?);
                ops = ops.get(1..).unwrap_or_default();
                continue;
            }
            let run = ops
                .iter()
                .take_while(|op| !matches!(op, Op::Clear { .. }))
                .count();
            let (run, rest) = ops.split_at(run);
            let begin = replies.len();
            let run = OpBatch { ops: run, ..batch };
            self.pipe(line, run, &mut replies).await?;
            let told = replies.get_mut(begin..).unwrap_or_default();
            let deletes = commands::remedy(run.ops, told);
            if !deletes.is_empty() {
                let apart = vec![false; deletes.len()];
                let run = OpBatch {
                    ops: &deletes,
                    asking: batch.asking.map(|_| apart.as_slice()),
                    scope: batch.scope,
                };
                self.pipe(line, run, &mut Replies::new()).await?;
            }
            ops = rest;
        }
        Ok(replies)
    }

    async fn pipe(
        &self,
        line: &mut Line,
        batch: OpBatch<'_>,
        replies: &mut Replies,
    ) -> Result<(), Broken> {
        let (commands, shapes) = commands::commands(batch);
        let values = match commands.count {
            // Nothing but what is too large to send.
            0 => Vec::new(),
            _ => self.converse(line, commands).await?,
        };
        commands::replies(&self.label, batch.ops, &shapes, values, replies)
    }

    /// Removes what begins with `prefix`, some at a time, so that the server serves others too.
    async fn clear(&self, line: &mut Line, prefix: &Bytes) -> Result<Reply, Broken> {
        let (mut cursor, mut removed) = (0_u64, 0_u64);
        loop {
            let step = ScanPage::new(cursor, prefix);
            let answer = self.say(line, &step.words()).await?;
            let (next, names) = match self.scanned(answer) {
                Ok(scanned) => scanned,
                Err(error) => return Ok(Reply::Failed(error)),
            };
            if !names.is_empty() {
                let unlink: Vec<&[u8]> = std::iter::once(&b"UNLINK"[..])
                    .chain(names.iter().map(|name| &**name))
                    .collect();
                match self.say(line, &unlink).await? {
                    Value::Integer(count) => removed += count.unsigned_abs(),
                    Value::Error(error) => return Ok(Reply::Failed(refused(&self.label, error))),
                    _ => return Err(Broken::Nonsense("unlink")),
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(Reply::Count(removed));
            }
        }
    }

    /// One step through all names that begin with `prefix`: where the next one begins (nought at
    /// the end), and the names found.
    pub(super) async fn scan(
        &self,
        cursor: u64,
        prefix: &Bytes,
    ) -> Result<(u64, Vec<Bytes>), Failure> {
        let step = ScanPage::new(cursor, prefix);
        let answer = self.command(&step.words()).await?;
        self.scanned(answer).map_err(Failure::sent)
    }

    fn scanned(&self, answer: Value) -> Result<(u64, Vec<Bytes>)> {
        let read = |told: Vec<Value>| {
            let [cursor, Value::Array(names)] = <[Value; 2]>::try_from(told).ok()? else {
                return None;
            };
            let names = names.into_iter().map(|name| match name {
                Value::Bulk(name) => Some(name),
                _ => None,
            });
            Some((cursor.text()?.parse().ok()?, names.collect::<Option<_>>()?))
        };
        match answer {
            Value::Error(error) => Err(refused(&self.label, error)),
            Value::Array(told) => {
                read(told).ok_or_else(|| nonsense(&self.label, "no cursor and names"))
            }
            _ => Err(nonsense(&self.label, "no cursor and names")),
        }
    }
}

/// One SCAN.
struct ScanPage {
    cursor: Digits,
    pattern: Vec<u8>,
    count: Digits,
}

impl ScanPage {
    fn new(cursor: u64, prefix: &[u8]) -> Self {
        Self {
            cursor: Digits::of(cursor),
            pattern: pattern(prefix),
            count: Digits::of(SCAN_COUNT),
        }
    }

    fn words(&self) -> [&[u8]; 6] {
        let (cursor, count) = (self.cursor.as_ref(), self.count.as_ref());
        [b"SCAN", cursor, b"MATCH", &self.pattern, b"COUNT", count]
    }
}

/// The pattern of SCAN's MATCH that all names match that begin with `prefix`, and no others.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

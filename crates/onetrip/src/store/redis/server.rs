//! One Redis server: its connections, and what is asked of it.

use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use super::commands::{self, Batch, failure, is_from_replica};
use super::sentinel::Sentinel;
use crate::error::{Error, ErrorKind, Result};
use crate::store::connections::{Connections, Lease};
use crate::store::{Exchange, Store, StoreOptions};
use crate::trip::{Op, Replies, Reply, Trip};

/// Keys looked at in one step of a clear.
const SCAN_COUNT: usize = 1000;

/// A Redis server.
#[derive(Debug)]
pub(super) struct Server {
    way: Arc<Way>,
    config: AsyncConnectionConfig,
    connections: Connections<Wire>,
    label: Arc<str>,
}

/// How a server is found.
#[derive(Debug)]
pub(super) enum Way {
    /// It is where it always is.
    Direct(Client),
    /// It is whichever server these name.
    Sentinel(Sentinel),
}

/// A connection.
#[derive(Clone, Debug)]
struct Wire {
    connection: MultiplexedConnection,
    /// How many primaries there were before the one that this leads to.
    term: u64,
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
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(options.trip_timeout)),
            connections: Connections::new(),
            label,
        }
    }

    /// Carries out the operations of `batch`: one reply for each.
    pub(super) async fn exchange(&self, batch: Batch<'_>) -> Result<Replies, Failure> {
        let lease = self.lease().await.map_err(Failure::unsent)?;
        let again = match self.send(&lease, batch).await {
            // The server had closed the idle connection. Nothing is lost by asking once more,
            // unless the trip might have arrived and must not be done twice.
            Err(error) if lease.reused && error.kind() == ErrorKind::Unavailable => {
                if !batch.ops.iter().all(Op::is_repeatable) {
                    return Err(Failure::sent(error));
                }
                error
            }
            // No primary any more: it has written nothing, and what it read is out of date.
            Ok(replies) if self.is_demoted(&replies) => {
                self.connections.discard(&lease).await;
                Error::new(
                    ErrorKind::Unavailable,
                    format!("{} has lost its primary", self.label),
                )
            }
            answer => return answer.map_err(Failure::sent),
        };
        log::debug!("{again}; connecting anew");
        let lease = self.lease().await.map_err(Failure::sent)?;
        self.send(&lease, batch).await.map_err(Failure::sent)
    }

    /// Sends one command, which may be carried out twice.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let lease = self.lease().await.map_err(Failure::unsent)?;
        match self.query(&lease, command).await {
            // As above: the server had closed the idle connection.
            Err(error) if lease.reused && error.kind() == ErrorKind::Unavailable => {}
            answer => return answer.map_err(Failure::sent),
        }
        let lease = self.lease().await.map_err(Failure::sent)?;
        self.query(&lease, command).await.map_err(Failure::sent)
    }

    async fn query<T: FromRedisValue>(&self, lease: &Lease<Wire>, command: &Cmd) -> Result<T> {
        let mut connection = lease.connection.connection.clone();
        let answer = command.query_async(&mut connection).await;
        let answer = answer.map_err(|error| failure(&self.label, &error));
        if answer
            .as_ref()
            .is_err_and(|error| error.kind().is_silence())
        {
            self.connections.discard(lease).await;
        }
        answer
    }

    /// One step through all names that begin with `prefix`: where the next one begins (nought at
    /// the end), and the names found.
    pub(super) fn scan(cursor: u64, prefix: &Bytes) -> Cmd {
        let pattern = [escape_glob(prefix).as_slice(), b"*"].concat();
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern);
        command.arg("COUNT").arg(SCAN_COUNT);
        command
    }

    fn is_demoted(&self, replies: &[Reply]) -> bool {
        matches!(*self.way, Way::Sentinel(_)) && replies.iter().any(is_from_replica)
    }

    async fn lease(&self) -> Result<Lease<Wire>> {
        let lease = self.connections.get(self.connect()).await?;
        let stale = match &*self.way {
            Way::Direct(_) => false,
            Way::Sentinel(sentinel) => !sentinel.is_current(lease.connection.term),
        };
        if stale && lease.reused {
            self.connections.discard(&lease).await;
            return self.connections.get(self.connect()).await;
        }
        Ok(lease)
    }

    /// Makes a connection, whether anybody waits for it or not.
    fn connect(&self) -> impl Future<Output = Result<Wire>> + Send + 'static {
        let (way, label) = (Arc::clone(&self.way), Arc::clone(&self.label));
        let config = self.config.clone();
        async move {
            let (connection, term) = match &*way {
                Way::Direct(client) => {
                    let connection = client.get_multiplexed_async_connection_with_config(&config);
                    let connection = connection.await;
                    (connection.map_err(|error| failure(&label, &error))?, 0)
                }
                Way::Sentinel(sentinel) => sentinel.connect(&config).await?,
            };
            Ok(Wire { connection, term })
        }
    }

    async fn send(&self, lease: &Lease<Wire>, batch: Batch<'_>) -> Result<Replies> {
        let result = self.ask(lease.connection.connection.clone(), batch).await;
        if result.is_err() {
            self.connections.discard(lease).await;
        }
        result
    }

    async fn ask(
        &self,
        mut connection: MultiplexedConnection,
        batch: Batch<'_>,
    ) -> Result<Replies> {
        let mut replies = Replies::with_capacity(batch.ops.len());
        let mut ops = batch.ops;
        // All but a clear, which takes many steps, goes out at once.
        while let Some(op) = ops.first() {
            if let Op::Clear { prefix } = op {
                replies.push(match self.clear(&mut connection, prefix).await {
                    Ok(reply) => reply,
                    Err(error) if error.kind().is_silence() => return Err(error),
                    Err(error) => Reply::Failed(error),
                });
                ops = ops.get(1..).unwrap_or_default();
                continue;
            }
            let run = ops
                .iter()
                .take_while(|op| !matches!(op, Op::Clear { .. }))
                .count();
            let (run, rest) = ops.split_at(run);
            let begin = replies.len();
            let run = Batch { ops: run, ..batch };
            self.pipe(&mut connection, run, &mut replies).await?;
            let told = replies.get_mut(begin..).unwrap_or_default();
            let deletes = commands::remedy(run.ops, told);
            if !deletes.is_empty() {
                let apart = vec![false; deletes.len()];
                let run = Batch {
                    ops: &deletes,
                    asking: batch.asking.map(|_| apart.as_slice()),
                };
                self.pipe(&mut connection, run, &mut Replies::new()).await?;
            }
            ops = rest;
        }
        Ok(replies)
    }

    async fn pipe(
        &self,
        connection: &mut MultiplexedConnection,
        batch: Batch<'_>,
        replies: &mut Replies,
    ) -> Result<()> {
        let (pipeline, shapes) = commands::commands(batch);
        let values = match pipeline.len() {
            // Nothing but what is too large to send.
            0 => Vec::new(),
            count => connection
                .send_packed_commands(&pipeline, 0, count)
                .await
                .map_err(|error| failure(&self.label, &error))?,
        };
        commands::replies(&self.label, batch.ops, &shapes, values, replies)
    }

    /// Removes what begins with `prefix`, some at a time, so that the server serves others too.
    async fn clear(&self, connection: &mut MultiplexedConnection, prefix: &Bytes) -> Result<Reply> {
        let failure = |error| failure(&self.label, &error);
        let (mut cursor, mut removed) = (0_u64, 0_u64);
        loop {
            let step = Self::scan(cursor, prefix);
            let (next, names): (u64, Vec<Vec<u8>>) =
                step.query_async(connection).await.map_err(failure)?;
            if !names.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                let unlink = unlink.arg(&names).query_async::<u64>(connection);
                removed += unlink.await.map_err(failure)?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(Reply::Count(removed));
            }
        }
    }

    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let answer = self.exchange(Batch::whole(trip.ops())).await;
        answer.map_err(|failure| failure.error)
    }
}

/// The pattern that matches `text` alone, in the syntax of SCAN's MATCH.
fn escape_glob(text: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len());
    for byte in text {
        if b"*?[]\\^-".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

impl Store for Server {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        Exchange::Pending(Box::pin(self.answer(trip)))
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

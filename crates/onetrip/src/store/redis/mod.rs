//! Redis and Valkey, over TCP, TLS or a Unix socket, by redis-rs.

mod address;
mod commands;

use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

pub(super) use self::address::SCHEMES;
use self::commands::failure;
use super::connections::{Connections, Lease};
use super::{Exchange, Store, StoreOptions};
use crate::error::{ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, Trip};
use crate::url::StoreUrl;

/// Keys looked at in one step of a clear.
const SCAN_COUNT: usize = 1000;

/// A Redis server.
#[derive(Debug)]
struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    connections: Connections<MultiplexedConnection>,
    label: Arc<str>,
}

/// Opens the store that a URL names.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Redis {
        client: address::client(url)?,
        config: AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.trip_timeout)),
        connections: Connections::new(),
        label: url.label().into(),
    }))
}

impl Redis {
    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let lease = self.connections.get(self.connect()).await?;
        match self.send(&lease, trip).await {
            // The server had closed the idle connection. Nothing is lost by asking once more,
            // unless the trip might have arrived and must not be done twice.
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && lease.reused
                    && trip.is_repeatable() =>
            {
                let lease = self.connections.get(self.connect()).await?;
                self.send(&lease, trip).await
            }
            answer => answer,
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        self.client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await
            .map_err(|error| failure(&self.label, &error))
    }

    async fn send(&self, lease: &Lease<MultiplexedConnection>, trip: &Trip) -> Result<Replies> {
        let result = self.ask(lease.connection.clone(), trip).await;
        if result.is_err() {
            self.connections.discard(lease).await;
        }
        result
    }

    async fn ask(&self, mut connection: MultiplexedConnection, trip: &Trip) -> Result<Replies> {
        let mut replies = Replies::with_capacity(trip.len());
        let mut ops = trip.ops();
        // All but a clear, which takes many steps, goes out at once.
        while let Some(op) = ops.first() {
            if let Op::Clear { prefix } = op {
                replies.push(self.clear(&mut connection, prefix).await?);
                ops = ops.get(1..).unwrap_or_default();
                continue;
            }
            let run = ops
                .iter()
                .take_while(|op| !matches!(op, Op::Clear { .. }))
                .count();
            let (batch, rest) = ops.split_at(run);
            let (pipeline, shapes) = commands::commands(batch);
            let values = match pipeline.len() {
                // Nothing but what is too large to send.
                0 => Vec::new(),
                count => connection
                    .send_packed_commands(&pipeline, 0, count)
                    .await
                    .map_err(|error| failure(&self.label, &error))?,
            };
            commands::replies(&self.label, batch, &shapes, values, &mut replies)?;
            ops = rest;
        }
        Ok(replies)
    }

    /// Removes what begins with `prefix`, some at a time, so that the server serves others too.
    async fn clear(&self, connection: &mut MultiplexedConnection, prefix: &Bytes) -> Result<Reply> {
        let pattern = [escape_glob(prefix).as_slice(), b"*"].concat();
        let (mut cursor, mut removed) = (0_u64, 0_u64);
        loop {
            let (next, names): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(connection)
                .await
                .map_err(|error| failure(&self.label, &error))?;
            if !names.is_empty() {
                removed += redis::cmd("UNLINK")
                    .arg(&names)
                    .query_async::<u64>(connection)
                    .await
                    .map_err(|error| failure(&self.label, &error))?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(Reply::Count(removed));
            }
        }
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

impl Store for Redis {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        Exchange::Pending(Box::pin(self.answer(trip)))
    }

    fn is_local(&self) -> bool {
        false
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

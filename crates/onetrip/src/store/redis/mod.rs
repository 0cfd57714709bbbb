//! Redis and Valkey, over TCP, TLS or a Unix socket, by redis-rs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::connections::{Connections, Lease};
use super::{Exchange, Store, StoreOptions};
use crate::entry;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, Trip, Ttl};
use crate::url::StoreUrl;

/// The schemes of this store.
pub(super) const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "redis+unix",
    "valkey",
    "valkeys",
    "valkey+unix",
];

const TCP_OPTIONS: &[&str] = &["db"];
const TLS_OPTIONS: &[&str] = &["db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];

const DEFAULT_PORT: u16 = 6379;

/// The largest string that Redis keeps, unless it is told otherwise (proto-max-bulk-len).
const MAX_ENTRY: usize = 512 << 20;

/// Keys looked at in one step of a clear.
const SCAN_COUNT: usize = 1000;

/// Adds to a number only where there is one: INCRBY alone would begin at nought. The sum is read
/// back as text, since a number in Lua is a double and loses digits beyond 53 bits.
const INCR: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return false end \
                    redis.call('INCRBY', KEYS[1], ARGV[1]) \
                    return redis.call('GET', KEYS[1])";

/// A Redis server.
#[derive(Debug)]
struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    connections: Connections<MultiplexedConnection>,
    label: Arc<str>,
}

/// Opens the store that a URL names: `redis://user:password@host:port/db`, `rediss://…` for TLS,
/// `redis+unix:///path?db=0` for a socket.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let mut url = url.clone();
    let label: Arc<str> = url.label().into();
    let unusable = |error: RedisError| {
        Error::with_source(
            ErrorKind::Configuration,
            format!("{label} cannot be used: {error}"),
            error,
        )
    };
    let mut settings = RedisConnectionInfo::default();
    if let Some(username) = url.username() {
        settings = settings.set_username(username);
    }
    if let Some(password) = url.password() {
        settings = settings.set_password(password);
    }
    let tls = matches!(url.scheme(), "rediss" | "valkeys");
    let socket = url.scheme().ends_with("+unix");
    let address = if socket {
        socket_address(&url)?
    } else {
        host_address(&url, tls)
    };
    let in_path = if socket { String::new() } else { url.path() };
    settings = settings.set_db(database(&mut url, &in_path)?);
    let certificates = if tls {
        Some(certificates(&mut url)?)
    } else {
        None
    };
    url.finish(if tls { TLS_OPTIONS } else { TCP_OPTIONS })?;

    let info = address
        .into_connection_info()
        .map_err(unusable)?
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
    .map_err(unusable)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.trip_timeout));
    Ok(Arc::new(Redis {
        client,
        config,
        connections: Connections::new(),
        label,
    }))
}

fn host_address(url: &StoreUrl, tls: bool) -> ConnectionAddr {
    let host = url.host().unwrap_or_else(|| "127.0.0.1".into());
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn socket_address(url: &StoreUrl) -> Result<ConnectionAddr> {
    match url.path().as_str() {
        "" | "/" => Err(Error::configuration(format!(
            "{} names no socket; write its path, as in redis+unix:///run/redis.sock?db=0",
            url.label()
        ))),
        path => Ok(ConnectionAddr::Unix(path.into())),
    }
}

/// The number of the database: the path of the URL, or its option `db`.
fn database(url: &mut StoreUrl, in_path: &str) -> Result<i64> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| "the number of a database, as in redis://host/0")
    };
    let in_path = match in_path.trim_matches('/') {
        "" => 0,
        path => number(path).map_err(|expected| {
            Error::configuration(format!("the path of {} is not {expected}", url.label()))
        })?,
    };
    Ok(url.take_as("db", number)?.unwrap_or(in_path))
}

/// The certificates that a TLS connection trusts and shows, by the names that redis-py gives them.
fn certificates(url: &mut StoreUrl) -> Result<TlsCertificates> {
    let mut read = |option: &str| -> Result<Option<Vec<u8>>> {
        let Some(path) = url.take(option) else {
            return Ok(None);
        };
        std::fs::read(&path).map(Some).map_err(|error| {
            Error::with_source(
                ErrorKind::Configuration,
                format!("{option}={path} cannot be read: {error}; name a file in PEM format"),
                error,
            )
        })
    };
    let root_cert = read("ssl_ca_certs")?;
    let client_tls = match (read("ssl_certfile")?, read("ssl_keyfile")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig {
            client_cert,
            client_key,
        }),
        (None, None) => None,
        _ => {
            return Err(Error::configuration(
                "a client certificate needs both ssl_certfile= and ssl_keyfile=",
            ));
        }
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

impl Redis {
    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let lease = self.connections.get(self.connect()).await?;
        match self.send(&lease, trip).await {
            // The server had closed the idle connection. Nothing is lost by asking once more,
            // unless the trip might have arrived and must not be done twice.
            Err(error)
                if error.kind() == ErrorKind::Unavailable && lease.reused && repeatable(trip) =>
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
            .map_err(|error| self.failure(&error))
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
            let (pipeline, shapes) = commands(batch);
            let count = pipeline.len();
            let values = connection
                .send_packed_commands(&pipeline, 0, count)
                .await
                .map_err(|error| self.failure(&error))?;
            self.read(batch, &shapes, values, &mut replies)?;
            ops = rest;
        }
        Ok(replies)
    }

    /// Makes replies of what the server answered to the commands of `shapes`.
    fn read(
        &self,
        batch: &[Op],
        shapes: &[Shape],
        values: Vec<Value>,
        replies: &mut Replies,
    ) -> Result<()> {
        let mut values = values.into_iter();
        let mut ops = batch.iter();
        for shape in shapes {
            let mut next = || {
                values
                    .next()
                    .ok_or_else(|| self.nonsense("too few replies"))
            };
            match *shape {
                Shape::One => {
                    let (op, value) = (ops.next(), next()?);
                    replies.extend(op.map(|op| self.reply(op, value)));
                }
                Shape::Last => {
                    next()?;
                    let (op, value) = (ops.next(), next()?);
                    replies.extend(op.map(|op| self.reply(op, value)));
                }
                Shape::TooLarge => replies.extend(ops.next().map(|op| {
                    Reply::Failed(Error::new(
                        ErrorKind::TooLarge,
                        format!(
                            "the entry of {:?} takes {} bytes and Redis holds none above {MAX_ENTRY}; cache less at once",
                            crate::key::display(op.name()),
                            op.carries()
                        ),
                    ))
                })),
                Shape::Many(count) => {
                    let _ = ops.by_ref().take(count).count();
                    match next()? {
                        Value::Array(entries) if entries.len() == count => {
                            for entry in entries {
                                replies.push(Reply::Entry(bulk(entry).ok_or_else(|| self.nonsense("not a string"))?));
                            }
                        }
                        Value::ServerError(error) => {
                            let failed = self.failure(&error.into());
                            replies.extend((0..count).map(|_| Reply::Failed(failed.clone())));
                        }
                        _ => return Err(self.nonsense("not as many entries as were asked for")),
                    }
                }
            }
        }
        Ok(())
    }

    fn reply(&self, op: &Op, value: Value) -> Reply {
        match (op, value) {
            // Another program's list or hash under our name: no entry of ours.
            (Op::Get { .. }, Value::ServerError(error)) if error.code() == "WRONGTYPE" => {
                Reply::Entry(None)
            }
            (Op::Incr { name, .. }, Value::ServerError(error)) => {
                let text = error.to_string();
                if text.contains("not an integer") || error.code() == "WRONGTYPE" {
                    Reply::Failed(super::not_a_number(name, "does not hold an integer"))
                } else if text.contains("overflow") {
                    Reply::Failed(super::not_a_number(
                        name,
                        "would leave the range of 64 bits",
                    ))
                } else {
                    Reply::Failed(self.failure(&error.into()))
                }
            }
            (_, Value::ServerError(error)) => Reply::Failed(self.failure(&error.into())),
            (Op::Get { .. }, value) => match bulk(value) {
                Some(entry) => Reply::Entry(entry),
                None => Reply::Failed(self.nonsense("not a string")),
            },
            (Op::Set { .. }, Value::Okay) => Reply::Done,
            (Op::Add { .. }, Value::Okay) => Reply::Flag(true),
            (Op::Add { .. }, Value::Nil) => Reply::Flag(false),
            (Op::Delete { .. } | Op::Touch { .. }, Value::Int(count)) => Reply::Flag(count > 0),
            (Op::Incr { .. }, Value::BulkString(digits)) => match entry::integer(&digits) {
                Some(number) => Reply::Number(Some(number)),
                None => Reply::Failed(self.nonsense("not a number")),
            },
            (Op::Incr { .. }, Value::Nil) => Reply::Number(None),
            (op, _) => Reply::Failed(self.nonsense(op.word())),
        }
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
                .map_err(|error| self.failure(&error))?;
            if !names.is_empty() {
                removed += redis::cmd("UNLINK")
                    .arg(&names)
                    .query_async::<u64>(connection)
                    .await
                    .map_err(|error| self.failure(&error))?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(Reply::Count(removed));
            }
        }
    }

    fn failure(&self, error: &RedisError) -> Error {
        let kind = if error.is_timeout() {
            ErrorKind::Timeout
        } else if matches!(
            error.kind(),
            redis::ErrorKind::Server(_)
                | redis::ErrorKind::Extension
                | redis::ErrorKind::AuthenticationFailed
        ) {
            ErrorKind::Refused
        } else {
            ErrorKind::Unavailable
        };
        let advice = match kind {
            ErrorKind::Timeout => "did not answer in time; see connect_timeout and trip_timeout",
            ErrorKind::Refused => "refused",
            _ => "cannot be reached; is the server running, and the URL right?",
        };
        Error::with_source(
            kind,
            format!("{} {advice} ({error})", self.label),
            error.clone(),
        )
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} answered what the protocol does not allow ({what}); is it a Redis server?",
                self.label
            ),
        )
    }
}

/// How the replies to one command belong to operations.
enum Shape {
    /// One reply, for one operation.
    One,
    /// Two commands for one operation; the reply to the second counts.
    Last,
    /// One reply, an array, for so many reads.
    Many(usize),
    /// Nothing was sent for this operation.
    TooLarge,
}

/// The commands for `ops`. Reads that follow one another become one MGET.
fn commands(ops: &[Op]) -> (Pipeline, Vec<Shape>) {
    let mut pipeline = Pipeline::with_capacity(ops.len());
    let mut shapes = Vec::with_capacity(ops.len());
    let mut rest = ops;
    while let Some((op, others)) = rest.split_first() {
        let reads = rest
            .iter()
            .take_while(|op| matches!(op, Op::Get { .. }))
            .count();
        if reads > 1 {
            let (names, after) = rest.split_at(reads);
            pipeline.cmd("MGET");
            for op in names {
                pipeline.arg(&**op.name());
            }
            shapes.push(Shape::Many(reads));
            rest = after;
            continue;
        }
        rest = others;
        if op.carries() > MAX_ENTRY {
            shapes.push(Shape::TooLarge);
            continue;
        }
        let name = &**op.name();
        let mut shape = Shape::One;
        match op {
            Op::Get { .. } => {
                pipeline.cmd("GET").arg(name);
            }
            Op::Set { entry, ttl, .. } => {
                pipeline.cmd("SET").arg(name).arg(&**entry);
                expire(&mut pipeline, *ttl);
            }
            Op::Add { entry, ttl, .. } => {
                pipeline.cmd("SET").arg(name).arg(&**entry).arg("NX");
                expire(&mut pipeline, *ttl);
            }
            Op::Delete { .. } => {
                pipeline.cmd("UNLINK").arg(name);
            }
            Op::Incr { delta, .. } => {
                pipeline.cmd("EVAL").arg(INCR).arg(1).arg(name).arg(*delta);
            }
            Op::Touch { ttl: Some(ttl), .. } => {
                pipeline.cmd("PEXPIRE").arg(name).arg(millis(*ttl));
            }
            Op::Touch { ttl: None, .. } => {
                // PERSIST does not tell an entry without expiry from none at all.
                pipeline.cmd("PERSIST").arg(name).cmd("EXISTS").arg(name);
                shape = Shape::Last;
            }
            // Sent on its own, by `ask`.
            Op::Clear { .. } => {}
        }
        shapes.push(shape);
    }
    (pipeline, shapes)
}

fn expire(pipeline: &mut Pipeline, ttl: Ttl) {
    if let Some(ttl) = ttl {
        pipeline.arg("PX").arg(millis(ttl));
    }
}

/// Whole milliseconds, at least one: Redis takes no fraction and refuses nought.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn bulk(value: Value) -> Option<Option<Bytes>> {
    match value {
        Value::BulkString(entry) => Some(Some(Bytes::from(entry))),
        Value::Nil => Some(None),
        _ => None,
    }
}

/// Whether doing all of `trip` twice leaves the same entries and answers as doing it once.
fn repeatable(trip: &Trip) -> bool {
    trip.ops().iter().all(|op| {
        matches!(
            op,
            Op::Get { .. } | Op::Set { .. } | Op::Touch { .. } | Op::Delete { .. }
        )
    })
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

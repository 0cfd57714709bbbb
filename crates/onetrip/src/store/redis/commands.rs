//! Trips as Redis's commands, and its answers as replies: pure, and the same for every kind of
//! connection.

use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, RedisError, ServerErrorKind as Server, Value};

use crate::entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::is_record;
use crate::store::not_a_number;
use crate::trip::{Op, Replies, Reply, Ttl};

/// The largest string that Redis keeps, unless it is told otherwise (proto-max-bulk-len).
const MAX_ENTRY: usize = 512 << 20;

/// Adds to a number only where there is one: INCRBY alone would begin at nought. The sum is read
/// back as text, since a number in Lua is a double and loses digits beyond 53 bits.
const INCR: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return false end \
                    redis.call('INCRBY', KEYS[1], ARGV[1]) \
                    return redis.call('GET', KEYS[1])";

/// Operations that go to one server together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) ops: &'a [Op],
    /// Of a node of a cluster, whether each is one that it was named for by ASK. Such a node
    /// takes no command on names of different slots.
    pub(super) asking: Option<&'a [bool]>,
}

impl<'a> Batch<'a> {
    /// To a server that has all names.
    pub(super) fn whole(ops: &'a [Op]) -> Self {
        Self { ops, asking: None }
    }
}

/// How the replies to one command belong to operations.
pub(super) enum Shape {
    /// So many commands for one operation; the reply to the last counts.
    Last(usize),
    /// One reply, an array, for so many reads.
    Many(usize),
    /// The entry was not sent; so many commands removed what it would have replaced.
    TooLarge(usize),
}

/// The commands for a batch. Reads that follow one another become one MGET, where they may.
pub(super) fn commands(batch: Batch<'_>) -> (Pipeline, Vec<Shape>) {
    let mut pipeline = Pipeline::with_capacity(batch.ops.len());
    let mut shapes = Vec::with_capacity(batch.ops.len());
    let mut asking = batch.asking.unwrap_or_default().iter();
    let mut rest = batch.ops;
    while let Some((op, others)) = rest.split_first() {
        let reads = rest
            .iter()
            .take_while(|op| matches!(op, Op::Get { .. }))
            // One name that is refused fails an MGET whole, and records only come along.
            .take_while(|other| is_record(other.name()) == is_record(op.name()))
            .count();
        if reads > 1 && batch.asking.is_none() {
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
        let name = &**op.name();
        let before = pipeline.len();
        // Holds for one command.
        let asking = asking.next() == Some(&true);
        if asking {
            pipeline.cmd("ASKING");
        }
        if op.carries() > MAX_ENTRY {
            if matches!(op, Op::Set { .. }) {
                // What is there is out of date all the same.
                pipeline.cmd("UNLINK").arg(name);
            }
            shapes.push(Shape::TooLarge(pipeline.len() - before));
            continue;
        }
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
                pipeline.cmd("PERSIST").arg(name);
                if asking {
                    pipeline.cmd("ASKING");
                }
                pipeline.cmd("EXISTS").arg(name);
            }
            // Sent on its own, by `ask`.
            Op::Clear { .. } => {}
        }
        shapes.push(Shape::Last(pipeline.len() - before));
    }
    (pipeline, shapes)
}

fn too_large(op: &Op) -> Reply {
    Reply::Failed(Error::new(
        ErrorKind::TooLarge,
        format!(
            "the entry of {:?} takes {} bytes and Redis holds none above {MAX_ENTRY}; cache less at once",
            crate::key::display(op.name()),
            op.carries()
        ),
    ))
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

/// Makes replies of what the server answered to the commands of `shapes`.
pub(super) fn replies(
    label: &str,
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
                .ok_or_else(|| nonsense(label, "too few replies"))
        };
        match *shape {
            Shape::Last(commands) => {
                for _ in 1..commands {
                    next()?;
                }
                let (op, value) = (ops.next(), next()?);
                replies.extend(op.map(|op| reply(label, op, value)));
            }
            Shape::TooLarge(commands) => {
                for _ in 0..commands {
                    next()?;
                }
                replies.extend(ops.next().map(too_large));
            }
            Shape::Many(count) => {
                let _ = ops.by_ref().take(count).count();
                match next()? {
                    Value::Array(entries) if entries.len() == count => {
                        for entry in entries {
                            replies.push(Reply::Entry(
                                bulk(entry).ok_or_else(|| nonsense(label, "not a string"))?,
                            ));
                        }
                    }
                    Value::ServerError(error) => {
                        let failed = failure(label, &error.into());
                        replies.extend((0..count).map(|_| Reply::Failed(failed.clone())));
                    }
                    _ => return Err(nonsense(label, "not as many entries as were asked for")),
                }
            }
        }
    }
    Ok(())
}

fn reply(label: &str, op: &Op, value: Value) -> Reply {
    match (op, value) {
        // Another program's list or hash under our name: no entry of ours.
        (Op::Get { .. }, Value::ServerError(error)) if error.code() == "WRONGTYPE" => {
            Reply::Entry(None)
        }
        (Op::Incr { name, .. }, Value::ServerError(error)) => {
            let text = error.to_string();
            if text.contains("not an integer") || error.code() == "WRONGTYPE" {
                Reply::Failed(not_a_number(name, "does not hold an integer"))
            } else if text.contains("overflow") {
                Reply::Failed(not_a_number(name, "would leave the range of 64 bits"))
            } else {
                Reply::Failed(failure(label, &error.into()))
            }
        }
        (_, Value::ServerError(error)) => Reply::Failed(failure(label, &error.into())),
        (Op::Get { .. }, value) => match bulk(value) {
            Some(entry) => Reply::Entry(entry),
            None => Reply::Failed(nonsense(label, "not a string")),
        },
        (Op::Set { .. }, Value::Okay) => Reply::Done,
        (Op::Add { .. }, Value::Okay) => Reply::Flag(true),
        (Op::Add { .. }, Value::Nil) => Reply::Flag(false),
        (Op::Delete { .. } | Op::Touch { .. }, Value::Int(count)) => Reply::Flag(count > 0),
        (Op::Incr { .. }, Value::BulkString(digits)) => match entry::integer(&digits) {
            Some(number) => Reply::Number(Some(number)),
            None => Reply::Failed(nonsense(label, "not a number")),
        },
        (Op::Incr { .. }, Value::Nil) => Reply::Number(None),
        (op, _) => Reply::Failed(nonsense(label, op.word())),
    }
}

pub(super) fn failure(label: &str, error: &RedisError) -> Error {
    let (kind, advice) = match error.kind() {
        _ if error.is_timeout() => (
            ErrorKind::Timeout,
            "did not answer in time; see connect_timeout and trip_timeout",
        ),
        redis::ErrorKind::Server(
            Server::BusyLoading | Server::ClusterDown | Server::MasterDown | Server::TryAgain,
        ) => (ErrorKind::Unavailable, "is not ready to answer"),
        redis::ErrorKind::Server(Server::ReadOnly) => (
            ErrorKind::Refused,
            "is a replica and takes no writes; name its primary, or find it by redis+sentinel://",
        ),
        redis::ErrorKind::Server(Server::NoPerm) => (
            ErrorKind::Refused,
            "does not permit that to this user; see its ACL",
        ),
        redis::ErrorKind::Server(_)
        | redis::ErrorKind::Extension
        | redis::ErrorKind::AuthenticationFailed => (
            ErrorKind::Refused,
            match error.code() {
                Some("OOM") => "is full and evicts nothing; see its maxmemory and maxmemory-policy",
                _ => "refused",
            },
        ),
        _ => (
            ErrorKind::Unavailable,
            "cannot be reached; is the server running, and the URL right?",
        ),
    };
    Error::with_source(kind, format!("{label} {advice} ({error})"), error.clone())
}

/// Whether the server answered that it is a replica.
pub(super) fn is_from_replica(reply: &Reply) -> bool {
    refusal(reply).is_some_and(|error| error.kind() == redis::ErrorKind::Server(Server::ReadOnly))
}

/// The error of the server that a reply tells of.
fn refusal(reply: &Reply) -> Option<&RedisError> {
    match reply {
        Reply::Failed(error) => std::error::Error::source(error)?.downcast_ref(),
        _ => None,
    }
}

/// The deletes that must follow `replies`: a write that the server refused (it is full, say) has
/// left an entry that is out of date. Reads that came after it are marked as unknown.
pub(super) fn remedy(ops: &[Op], replies: &mut [Reply]) -> Vec<Op> {
    let mut spoilt: Vec<(&Op, Error)> = Vec::new();
    for (op, reply) in ops.iter().zip(replies) {
        match (op, &*reply) {
            (Op::Set { .. }, Reply::Failed(error)) if refusal(reply).is_some_and(stays_refused) => {
                spoilt.push((op, error.clone()));
            }
            (Op::Set { .. }, Reply::Done) => spoilt.retain(|(set, _)| set.name() != op.name()),
            (Op::Get { .. }, Reply::Entry(_)) => {
                if let Some((_, error)) = spoilt.iter().find(|(set, _)| set.name() == op.name()) {
                    *reply = Reply::Failed(error.clone());
                }
            }
            _ => {}
        }
    }
    let names = spoilt.into_iter().map(|(set, _)| set.name().clone());
    names.map(|name| Op::Delete { name }).collect()
}

/// Whether the server that holds the name refused a write, and would take a delete.
fn stays_refused(error: &RedisError) -> bool {
    match error.kind() {
        redis::ErrorKind::Server(Server::ResponseError | Server::NoPerm) => true,
        _ => error.code() == Some("OOM"),
    }
}

fn nonsense(label: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{} answered what the protocol does not allow ({what}); is it a Redis server?",
            label
        ),
    )
}

//! Trips as Redis's commands, and its answers as replies: pure, and the same for every kind of
//! connection.

use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, RedisError, Value};

use crate::entry;
use crate::error::{Error, ErrorKind, Result};
use crate::store::not_a_number;
use crate::trip::{Op, Replies, Reply, Ttl};

/// The largest string that Redis keeps, unless it is told otherwise (proto-max-bulk-len).
const MAX_ENTRY: usize = 512 << 20;

/// Adds to a number only where there is one: INCRBY alone would begin at nought. The sum is read
/// back as text, since a number in Lua is a double and loses digits beyond 53 bits.
const INCR: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return false end \
                    redis.call('INCRBY', KEYS[1], ARGV[1]) \
                    return redis.call('GET', KEYS[1])";

/// How the replies to one command belong to operations.
pub(super) enum Shape {
    /// One reply, for one operation.
    One,
    /// Two commands for one operation; the reply to the second counts.
    Last,
    /// One reply, an array, for so many reads.
    Many(usize),
    /// The entry was not sent; what it would have replaced was removed.
    TooLarge { replaces: bool },
}

/// The commands for `ops`. Reads that follow one another become one MGET.
pub(super) fn commands(ops: &[Op]) -> (Pipeline, Vec<Shape>) {
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
        let name = &**op.name();
        if op.carries() > MAX_ENTRY {
            let replaces = matches!(op, Op::Set { .. });
            if replaces {
                // What is there is out of date all the same.
                pipeline.cmd("UNLINK").arg(name);
            }
            shapes.push(Shape::TooLarge { replaces });
            continue;
        }
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
            Shape::One => {
                let (op, value) = (ops.next(), next()?);
                replies.extend(op.map(|op| reply(label, op, value)));
            }
            Shape::Last => {
                next()?;
                let (op, value) = (ops.next(), next()?);
                replies.extend(op.map(|op| reply(label, op, value)));
            }
            Shape::TooLarge { replaces } => {
                if replaces {
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
    Error::with_source(kind, format!("{} {advice} ({error})", label), error.clone())
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

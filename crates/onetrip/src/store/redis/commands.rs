//! Trips as Redis's commands, and its answers as replies: pure, and the same for every kind of
//! connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::connection::Broken;
use crate::entry;
use crate::error::{Error, ErrorKind};
use crate::key::is_record;
use crate::store::not_a_number;
use crate::trip::{Op, Replies, Reply, ScopeId, Stored, Trip};
use crate::wire::digits::Digits;
use crate::wire::redis::{Commands, ServerError, Value};

/// The largest string that Redis keeps, unless it is told otherwise (proto-max-bulk-len).
pub(super) const MAX_ENTRY: usize = 512 << 20;

/// Reads that become one MGET at most. What one brings is held together in memory.
const MOST_READS: usize = 1024;

/// Bytes that a command takes besides names and entries, or so.
const OVERHEAD: usize = 48;

/// Adds to a number only where there is one: INCRBY alone would begin at nought. The sum is read
/// back as text, since a number in Lua is a double and loses digits beyond 53 bits.
const INCR: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return false end \
                    redis.call('INCRBY', KEYS[1], ARGV[1]) \
                    return redis.call('GET', KEYS[1])";

/// Operations that go to one server together.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpBatch<'a> {
    pub(super) ops: &'a [Op],
    /// Of a node of a cluster, whether each is one that it was named for by ASK. Such a node
    /// takes no command on names of different slots.
    pub(super) asking: Option<&'a [bool]>,
    /// The scope that they are made in.
    pub(super) scope: Option<ScopeId>,
}

impl<'a> OpBatch<'a> {
    /// To a server that has all names.
    pub(super) fn whole(trip: &'a Trip) -> Self {
        Self {
            ops: trip.ops(),
            asking: None,
            scope: trip.scope(),
        }
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
pub(super) fn commands(batch: OpBatch<'_>) -> (Commands, Vec<Shape>) {
    let size = |op: &Op| OVERHEAD + op.name().len() + op.carries().min(MAX_ENTRY);
    let mut commands = Commands::with_capacity(batch.ops.iter().map(size).sum());
    let mut shapes = Vec::with_capacity(batch.ops.len());
    let mut asking = batch.asking.unwrap_or_default().iter();
    let mut rest = batch.ops;
    while let Some((op, others)) = rest.split_first() {
        if batch.asking.is_none() {
            // One name that is refused fails an MGET whole, and records only come along.
            let records = is_record(op.name());
            let reads = rest
                .iter()
                .take(MOST_READS)
                .take_while(|op| matches!(op, Op::Get { name } if is_record(name) == records))
                .count();
            if reads > 1 {
                let (names, after) = rest.split_at(reads);
                commands.put_list(&[b"MGET"], names.iter().map(|op| &**op.name()));
                shapes.push(Shape::Many(reads));
                rest = after;
                continue;
            }
        }
        rest = others;
        let before = commands.count;
        // Holds for one command.
        let asking = asking.next() == Some(&true);
        if asking {
            commands.put(&[b"ASKING"]);
        }
        let is_too_large = op.carries() > MAX_ENTRY;
        if is_too_large {
            if matches!(op, Op::Set { .. }) {
                // What is there is out of date all the same.
                commands.put(&[b"UNLINK", op.name()]);
            }
        } else {
            put(&mut commands, op, asking);
        }
        let count = commands.count - before;
        shapes.push(if is_too_large {
            Shape::TooLarge(count)
        } else {
            Shape::Last(count)
        });
    }
    (commands, shapes)
}

/// Adds the commands of one operation.
fn put(commands: &mut Commands, op: &Op, asking: bool) {
    let name = &**op.name();
    match op {
        Op::Get { .. } => commands.put(&[b"GET", name]),
        Op::Set { entry, ttl, .. } => match millis(*ttl) {
            Some(ttl) => commands.put(&[b"SET", name, entry, b"PX", ttl.as_ref()]),
            None => commands.put(&[b"SET", name, entry]),
        },
        Op::Add { entry, ttl, .. } => match millis(*ttl) {
            Some(ttl) => commands.put(&[b"SET", name, entry, b"NX", b"PX", ttl.as_ref()]),
            None => commands.put(&[b"SET", name, entry, b"NX"]),
        },
        Op::Delete { .. } => commands.put(&[b"UNLINK", name]),
        Op::Incr { delta, .. } => {
            let delta = delta.to_string();
            commands.put(&[b"EVAL", INCR.as_bytes(), b"1", name, delta.as_bytes()]);
        }
        Op::Touch { ttl, .. } => match millis(*ttl) {
            Some(ttl) => commands.put(&[b"PEXPIRE", name, ttl.as_ref()]),
            None => {
                // PERSIST does not tell an entry without expiry from none at all.
                commands.put(&[b"PERSIST", name]);
                if asking {
                    commands.put(&[b"ASKING"]);
                }
                commands.put(&[b"EXISTS", name]);
            }
        },
        // Sent on its own, by `ask`.
        Op::Clear { .. } => {}
    }
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

/// Whole milliseconds, at least one: Redis takes no fraction and refuses nought. One less than were
/// asked for, since it keeps an entry for all of the millisecond in which that expires.
fn millis(ttl: Option<Duration>) -> Option<Digits> {
    let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    ttl.map(|ttl| Digits::of(millis(ttl).saturating_sub(1).max(1)))
}

fn bulk(value: Value) -> Option<Option<Bytes>> {
    match value {
        Value::Bulk(entry) => Some(Some(entry)),
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
) -> Result<(), Broken> {
    let mut values = values.into_iter();
    let mut ops = batch.iter();
    for shape in shapes {
        let mut next = || values.next().ok_or(Broken::Nonsense("too few replies"));
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
                            let entry = bulk(entry).ok_or(Broken::Nonsense("not a string"))?;
                            replies.push(Reply::Entry(entry.map(Stored::new)));
                        }
                    }
                    Value::Error(error) => {
                        let failed = refused(label, error);
                        replies.extend((0..count).map(|_| Reply::Failed(failed.clone())));
                    }
                    _ => return Err(Broken::Nonsense("not as many entries as were asked for")),
                }
            }
        }
    }
    Ok(())
}

fn reply(label: &str, op: &Op, value: Value) -> Reply {
    match (op, value) {
        // Another program's list or hash under our name: no entry of ours.
        (Op::Get { .. }, Value::Error(error)) if error.code() == "WRONGTYPE" => Reply::Entry(None),
        (Op::Incr { name, .. }, Value::Error(error)) => {
            let text = error.to_string();
            if text.contains("not an integer") || error.code() == "WRONGTYPE" {
                Reply::Failed(not_a_number(name, "does not hold an integer"))
            } else if text.contains("overflow") {
                Reply::Failed(not_a_number(name, "would leave the range of 64 bits"))
            } else {
                Reply::Failed(refused(label, error))
            }
        }
        (_, Value::Error(error)) => Reply::Failed(refused(label, error)),
        (Op::Get { .. }, value) => match bulk(value) {
            Some(entry) => Reply::Entry(entry.map(Stored::new)),
            None => Reply::Failed(nonsense(label, "not a string")),
        },
        (Op::Set { .. }, value) if value.is_ok() => Reply::Done,
        (Op::Add { .. }, value) if value.is_ok() => Reply::Flag(true),
        (Op::Add { .. }, Value::Nil) => Reply::Flag(false),
        (Op::Delete { .. } | Op::Touch { .. }, Value::Integer(count)) => Reply::Flag(count > 0),
        (Op::Incr { .. }, Value::Bulk(digits)) => match entry::integer(&digits) {
            Some(number) => Reply::Number(Some(number)),
            None => Reply::Failed(nonsense(label, "not a number")),
        },
        (Op::Incr { .. }, Value::Nil) => Reply::Number(None),
        (op, _) => Reply::Failed(nonsense(label, op.word())),
    }
}

/// The failure of an exchange.
pub(super) fn failure(label: &str, broken: Broken) -> Error {
    match broken {
        Broken::Refused(error) => refused(label, error),
        Broken::Nonsense(what) => nonsense(label, what),
        Broken::Timeout => Error::new(
            ErrorKind::Timeout,
            format!("{label} did not answer in time; see connect_timeout and trip_timeout"),
        ),
        // As rustls tells its errors.
        Broken::Io(error) if error.kind() == io::ErrorKind::InvalidData => Error::with_source(
            ErrorKind::Unavailable,
            format!(
                "{label} and this client do not come to terms by TLS; see ssl_ca_certs, ssl_certfile and ssl_keyfile ({error})"
            ),
            error,
        ),
        Broken::Io(error) => Error::with_source(
            ErrorKind::Unavailable,
            format!(
                "{label} cannot be reached; is the server running, and the URL right? ({error})"
            ),
            error,
        ),
        Broken::Stale => Error::new(
            ErrorKind::Unavailable,
            format!("{label} closed the connection"),
        ),
    }
}

/// The failure of what the server answered with an error.
pub(super) fn refused(label: &str, error: ServerError) -> Error {
    let (kind, advice) = match error.code() {
        "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" => {
            (ErrorKind::Unavailable, "is not ready to answer")
        }
        "READONLY" => (
            ErrorKind::Refused,
            "is a replica and takes no writes; name its primary, or find it by redis+sentinel://",
        ),
        "NOPERM" => (
            ErrorKind::Refused,
            "does not permit that to this user; see its ACL",
        ),
        "OOM" => (
            ErrorKind::Refused,
            "is full and evicts nothing; see its maxmemory and maxmemory-policy",
        ),
        "NOAUTH" => (
            ErrorKind::Refused,
            "asks who this is; give user and password in the URL",
        ),
        "WRONGPASS" => (
            ErrorKind::Refused,
            "knows no such user with that password; check both, and percent-encode what is not a letter or a digit",
        ),
        "MOVED" | "ASK" | "CROSSSLOT" => (
            ErrorKind::Refused,
            "is a node of a cluster; name it by redis+cluster://",
        ),
        _ if error.to_string().contains("DB index") => (
            ErrorKind::Refused,
            "has no database of that number; see its databases",
        ),
        _ => (ErrorKind::Refused, "refused"),
    };
    Error::with_source(kind, format!("{label} {advice} ({error})"), error)
}

/// Whether the server answered that it is a replica.
pub(super) fn is_from_replica(reply: &Reply) -> bool {
    refusal(reply).is_some_and(|error| error.code() == "READONLY")
}

/// The error of the server that a reply tells of.
pub(super) fn refusal(reply: &Reply) -> Option<&ServerError> {
    std::error::Error::source(reply.failure()?)?.downcast_ref()
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
fn stays_refused(error: &ServerError) -> bool {
    matches!(error.code(), "ERR" | "NOPERM" | "OOM")
}

pub(super) fn nonsense(label: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{} answered what the protocol does not allow ({what}); is it a Redis server?",
            label
        ),
    )
}

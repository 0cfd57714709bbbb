//! Operations as commands, and answers as replies: pure.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::name;
use crate::entry;
use crate::error::{Error, ErrorKind};
use crate::key;
use crate::store::not_a_number;
use crate::trip::{Op, Reply, Stored};
use crate::wire::memcached::{Command, Expiry, MAX_VALUE, Mode, Nonsense, Response};

/// An operation, and what the server is asked for it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) op: &'a Op,
    pub(super) key: Cow<'a, [u8]>,
    command: Option<Command<'a>>,
}

impl<'a> Asked<'a> {
    /// What is asked for `op` at `now`, in seconds of Unix time; for an increment, its first step.
    pub(super) fn new(op: &'a Op, now: u64) -> Self {
        let too_large = op.carries() > MAX_VALUE;
        let command = match op {
            Op::Get { .. } => Some(Command::Get),
            // What is there is out of date all the same.
            Op::Set { .. } if too_large => Some(Command::Delete),
            Op::Add { .. } if too_large => None,
            Op::Set { entry, ttl, .. } => Some(Command::Set {
                value: entry,
                expiry: Expiry::new(*ttl, now),
                mode: Mode::Always,
            }),
            Op::Add { entry, ttl, .. } => Some(Command::Set {
                value: entry,
                expiry: Expiry::new(*ttl, now),
                mode: Mode::Absent,
            }),
            Op::Delete { .. } => Some(Command::Delete),
            Op::Incr { .. } => Some(Command::Look),
            Op::Touch { ttl, .. } => Some(Command::Touch {
                expiry: Expiry::new(*ttl, now),
            }),
            // Of a prefix, it is refused before it comes here.
            Op::Clear { .. } => Some(Command::Flush),
        };
        Self {
            op,
            key: name::key(op.name()),
            command,
        }
    }

    pub(super) fn command(&self) -> Option<(&[u8], Command<'a>)> {
        Some((&self.key, self.command?))
    }

    /// Whether the entry that this write was to replace may still be there, and no operation
    /// after it writes another.
    pub(super) fn leaves_stale(&self, reply: &Reply, later: &[Op]) -> bool {
        let refused = matches!(reply, Reply::Failed(_));
        let sent = matches!(
            self.command,
            Some(Command::Set {
                mode: Mode::Always,
                ..
            })
        );
        refused
            && sent
            && !later.iter().any(|op| {
                op.name() == self.op.name() && matches!(op, Op::Set { .. } | Op::Add { .. })
            })
    }
}

/// The reply to an operation that takes one step.
pub(super) fn reply(
    label: &str,
    asked: &Asked<'_>,
    answer: Option<Response>,
) -> Result<Reply, Nonsense> {
    let op = asked.op;
    if op.carries() > MAX_VALUE {
        return Ok(Reply::Failed(too_large(label, op)));
    }
    Ok(match (op, answer) {
        (_, Some(Response::Refused(why))) => Reply::Failed(refusal(label, op, &why)),
        (Op::Get { .. }, Some(Response::Value { value, .. })) => {
            Reply::Entry(Some(Stored::new(value)))
        }
        (Op::Get { .. }, Some(Response::Absent)) => Reply::Entry(None),
        (Op::Set { .. }, Some(Response::Done)) => Reply::Done,
        (Op::Add { .. }, Some(Response::Done)) => Reply::Flag(true),
        (Op::Add { .. }, Some(Response::NotStored)) => Reply::Flag(false),
        (Op::Delete { .. } | Op::Touch { .. }, Some(Response::Done)) => Reply::Flag(true),
        (Op::Delete { .. } | Op::Touch { .. }, Some(Response::Absent)) => Reply::Flag(false),
        // The server does not tell how many there were.
        (Op::Clear { .. }, Some(Response::Flushed)) => Reply::Count(0),
        _ => return Err(Nonsense("an answer of another kind")),
    })
}

/// The second step of an increment: what is written over the number that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    number: i64,
    digits: String,
    delta: i64,
    cas: u64,
    left: Option<Duration>,
    in_place: bool,
}

/// What adding `delta` to the number that was `looked` at takes, or the reply that ends it.
pub(super) fn sum(
    label: &str,
    name: &Bytes,
    delta: i64,
    looked: Response,
) -> Result<Result<Sum, Reply>, Nonsense> {
    let (value, cas, left) = match looked {
        Response::Absent => return Ok(Err(Reply::Number(None))),
        Response::Refused(why) => return Ok(Err(Reply::Failed(refused(label, &why)))),
        Response::Value {
            value,
            cas: Some(cas),
            left: Some(left),
        } => (value, cas, left),
        _ => return Err(Nonsense("an answer of another kind")),
    };
    let Some(old) = entry::integer(&value) else {
        let error = not_a_number(name, "does not hold an integer");
        return Ok(Err(Reply::Failed(error)));
    };
    let Some(number) = old.checked_add(delta) else {
        let error = not_a_number(name, "would leave the range of 64 bits");
        return Ok(Err(Reply::Failed(error)));
    };
    if delta == 0 {
        return Ok(Err(Reply::Number(Some(old))));
    }
    let digits = number.to_string();
    Ok(Ok(Sum {
        // The server knows no sign, and fills up with spaces what has become shorter.
        in_place: old >= 0 && number >= 0 && digits.len() >= value.len(),
        number,
        digits,
        delta,
        cas,
        left: u64::try_from(left).ok().map(Duration::from_secs),
    }))
}

impl Sum {
    /// Writes the sum, if nobody has changed the number since.
    ///
    /// In place the entry keeps its expiry to the instant. Written anew it gets the seconds that
    /// it had left, which lengthens its life by one if one ends between the two steps.
    pub(super) fn command(&self, now: u64) -> Command<'_> {
        if self.in_place {
            Command::Shift {
                by: self.delta,
                cas: self.cas,
            }
        } else {
            Command::Set {
                value: self.digits.as_bytes(),
                expiry: Expiry::new(self.left, now),
                mode: Mode::Unchanged(self.cas),
            }
        }
    }

    /// The reply to the increment; `None` where the number was changed, and is to be looked at
    /// again.
    pub(super) fn reply(&self, label: &str, answer: Response) -> Result<Option<Reply>, Nonsense> {
        Ok(match (answer, self.in_place) {
            (Response::Changed | Response::Absent, _) => None,
            (Response::Refused(why), _) => Some(Reply::Failed(refused(label, &why))),
            (Response::Value { value, .. }, true) if value == self.digits.as_bytes() => {
                Some(Reply::Number(Some(self.number)))
            }
            (Response::Done, false) => Some(Reply::Number(Some(self.number))),
            _ => return Err(Nonsense("another sum")),
        })
    }
}

fn refusal(label: &str, op: &Op, why: &str) -> Error {
    if why.contains("too large") {
        too_large(label, op)
    } else {
        refused(label, why)
    }
}

pub(super) fn refused(label: &str, why: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{label} refused ({why})"))
}

fn too_large(label: &str, op: &Op) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the entry of {:?} takes {} bytes and {label} takes none so large; cache less at once, or start the server with a larger limit (memcached -I)",
            key::display(op.name()),
            op.carries()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(digits: &'static str) -> Response {
        Response::Value {
            value: digits.into(),
            cas: Some(9),
            left: Some(60),
        }
    }

    /// How `delta` is added to `digits`.
    fn added(digits: &'static str, delta: i64) -> Result<Sum, Reply> {
        sum("test://", &"n".into(), delta, look(digits)).unwrap()
    }

    #[test]
    fn digits_are_added_to_in_place_where_the_server_can() {
        for (digits, delta, in_place) in [
            ("0", 1, true),
            ("99", 1, true),
            ("101", -1, true),
            ("9223372036854775806", 1, true),
            // Shorter: the server would fill it up with spaces.
            ("100", -1, false),
            // The server knows no sign.
            ("5", -6, false),
            ("-5", 10, false),
            ("-9223372036854775808", i64::MAX, false),
        ] {
            let sum = added(digits, delta).unwrap();
            assert_eq!(sum.number, digits.parse::<i64>().unwrap() + delta);
            let shift = Command::Shift { by: delta, cas: 9 };
            let set = Command::Set {
                value: sum.digits.as_bytes(),
                expiry: Expiry::new(Some(Duration::from_secs(60)), 0),
                mode: Mode::Unchanged(9),
            };
            assert_eq!(sum.command(0), if in_place { shift } else { set });
        }
    }

    #[test]
    fn what_is_no_number_is_not_added_to() {
        for digits in [
            "",
            " 5",
            "5 ",
            "99 ",
            "05",
            "+5",
            "1.5",
            "x",
            "9223372036854775808",
        ] {
            let Err(Reply::Failed(error)) = added(digits, 1) else {
                panic!("{digits:?} was added to");
            };
            assert_eq!(error.kind(), ErrorKind::NotANumber);
        }
        for (digits, delta) in [("9223372036854775807", 1), ("-9223372036854775808", -1)] {
            let Err(Reply::Failed(error)) = added(digits, delta) else {
                panic!("{digits:?} was added to");
            };
            assert!(error.to_string().contains("64 bits"), "{error}");
        }
    }

    #[test]
    fn another_sum_than_ours_is_nonsense() {
        let sum = added("5", 1).unwrap();
        assert!(matches!(
            sum.reply("test://", look("6")),
            Ok(Some(Reply::Number(Some(6))))
        ));
        assert!(sum.reply("test://", look("7")).is_err());
        assert!(sum.reply("test://", Response::Done).is_err());
        assert!(matches!(sum.reply("test://", Response::Changed), Ok(None)));
    }
}

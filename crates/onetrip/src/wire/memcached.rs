//! Memcached's meta protocol: commands as bytes, and bytes as answers.
//!
//! A batch is any number of commands and `mn` behind them. The server answers in order, each
//! answer with the opaque token of its command, and `MN` last; so a batch that was read to its end
//! leaves nothing on the wire, and an answer that belongs elsewhere is noticed. Nothing is asked
//! quietly: an error of the server, and the answer to `flush_all`, carry no token and are known by
//! their place alone. Posted writes have no `mn` behind them and are read by their number; quietly
//! (`q`, with an `mn` to know when they have happened) they would save eight bytes of an answer
//! each, and an error could belong to any of them.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::digits::Digits;

/// The longest key that a server takes, in bytes.
pub(crate) const MAX_KEY: usize = 250;

/// The largest value that any server can be set up to take, in bytes.
pub(crate) const MAX_VALUE: usize = 1 << 30;

/// What ends a line, and a value.
const END: &[u8] = b"\r\n";

/// The longest line of an answer, in bytes: a word, a size, and flags that we asked for.
const MAX_LINE: usize = 2048;

/// What a command mostly takes at most besides its key and its value: words, and numbers.
const COMMAND: usize = 40;

/// Relative times beyond this many seconds are taken for points in time.
const MAX_RELATIVE: u64 = 30 * 24 * 60 * 60;

/// What is asked about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// The value.
    Get,
    /// The value, with what it takes to replace just this one: its unique number and its life.
    Look,
    /// Writes a value.
    Set {
        value: &'a [u8],
        expiry: Expiry,
        mode: Mode,
    },
    /// Removes the value.
    Delete,
    /// Gives the value another expiry.
    Touch { expiry: Expiry },
    /// Adds to digits in place, if their unique number still is `cas`, and tells the sum.
    Shift { by: i64, cas: u64 },
    /// Removes every value of the server, whatever its key.
    Flush,
}

/// Over what a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whatever is there.
    Always,
    /// Nothing alone.
    Absent,
    /// The value with this unique number alone.
    Unchanged(u64),
}

/// When a value ends, as the protocol writes it: 0 for never, seconds from now, or the Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry(u32);

impl Expiry {
    /// The expiry of what lives for `ttl` from `now` on, which is in seconds of Unix time.
    ///
    /// The protocol counts whole seconds: a part of one is rounded up. It ends in 2038 as well;
    /// what would live longer is kept until it is evicted.
    pub(crate) fn new(ttl: Option<Duration>, now: u64) -> Self {
        let Some(ttl) = ttl else { return Self(0) };
        let part = u64::from(ttl.subsec_nanos() > 0);
        let seconds = ttl.as_secs().saturating_add(part);
        let expiry = match seconds.max(1) {
            relative @ ..=MAX_RELATIVE => relative,
            more => now.saturating_add(more),
        };
        // Servers read it as a signed number of 32 bits.
        Self(i32::try_from(expiry).map_or(0, i32::unsigned_abs))
    }
}

/// How many bytes a command about `key` takes, or so.
pub(crate) fn size(key: &[u8], command: &Command<'_>) -> usize {
    let value = match command {
        Command::Set { value, .. } => value.len(),
        _ => 0,
    };
    key.len() + value + COMMAND
}

/// Appends one command about `key`, which is 1 to [`MAX_KEY`] bytes without spaces and control
/// characters. `opaque` comes back with its answer.
pub(crate) fn write(out: &mut Vec<u8>, key: &[u8], command: &Command<'_>, opaque: u64) {
    out.extend_from_slice(match command {
        Command::Get | Command::Look | Command::Touch { .. } => b"mg ",
        Command::Set { .. } => b"ms ",
        Command::Delete => b"md ",
        Command::Shift { .. } => b"ma ",
        // No meta command: it takes neither key nor token.
        Command::Flush => {
            out.extend_from_slice(b"flush_all\r\n");
            return;
        }
    });
    out.extend_from_slice(key);
    match *command {
        Command::Get => out.extend_from_slice(b" v"),
        Command::Look => out.extend_from_slice(b" v c t"),
        Command::Delete | Command::Flush => {}
        Command::Touch { expiry } => write_number(out, b" T", expiry.0.into()),
        Command::Shift { by, cas } => {
            write_number(out, b" C", cas);
            let mode = if by < 0 { b" MD D" } else { b" MI D" };
            write_number(out, mode, by.unsigned_abs());
            out.extend_from_slice(b" v");
        }
        Command::Set {
            value,
            expiry,
            mode,
        } => {
            write_number(out, b" ", value.len() as u64);
            write_number(out, b" T", expiry.0.into());
            match mode {
                Mode::Always => {}
                Mode::Absent => out.extend_from_slice(b" ME"),
                Mode::Unchanged(cas) => write_number(out, b" C", cas),
            }
        }
    }
    write_number(out, b" O", opaque);
    out.extend_from_slice(b"\r\n");
    if let Command::Set { value, .. } = command {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_number(out: &mut Vec<u8>, flag: &[u8], number: u64) {
    out.extend_from_slice(flag);
    out.extend_from_slice(Digits::of(number).as_ref());
}

/// Appends what ends a batch.
pub(crate) fn write_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"mn\r\n");
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// The value that is there.
    Value {
        value: Bytes,
        /// Its unique number, if that was asked for.
        cas: Option<u64>,
        /// Seconds that it lives yet, if that was asked for; -1 if for ever.
        left: Option<i64>,
    },
    /// It is done.
    Done,
    /// There is no value.
    Absent,
    /// It was not written, since something is there.
    NotStored,
    /// It was not written, since what is there has another unique number.
    Changed,
    /// All values are removed.
    Flushed,
    /// The server could not do it, in its own words.
    Refused(String),
}

/// Bytes that are no answer to what was asked. The connection that brought them is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(pub(crate) &'static str);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Nonsense {}

/// How far the reading of a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// At least so many bytes are missing; one or more.
    Missing(usize),
    /// All is read.
    Done,
}

/// Reads the answers to a batch, as their bytes come in. What was read once is not looked at again.
#[derive(Debug)]
pub(crate) struct Responses {
    next: u64,
    count: usize,
    /// Whether `mn` was asked behind them.
    ends: bool,
    /// How far they are read.
    at: usize,
    read: Vec<Told>,
}

/// An answer; if it is a value, `value` is where its bytes are, which it does not hold yet.
#[derive(Debug)]
struct Told {
    answer: Response,
    value: Range<usize>,
}

impl Responses {
    /// For a batch of `count` commands, whose opaque tokens begin with `first`.
    pub(crate) fn new(first: u64, count: usize) -> Self {
        Self {
            next: first,
            count,
            ends: true,
            at: 0,
            read: Vec::with_capacity(count),
        }
    }

    /// The same for commands with no `mn` behind them.
    pub(crate) fn of_posted(first: u64, count: usize) -> Self {
        Self {
            ends: false,
            ..Self::new(first, count)
        }
    }

    /// Reads on in `came`, which begins with what it held before.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] if it does not answer what was asked.
    pub(crate) fn read(&mut self, came: &[u8]) -> Result<Progress, Nonsense> {
        loop {
            let rest = came.get(self.at..).unwrap_or_default();
            if !self.ends && self.read.len() == self.count {
                return match rest {
                    [] => Ok(Progress::Done),
                    _ => Err(Nonsense("more than was asked for")),
                };
            }
            let window = rest.get(..MAX_LINE).unwrap_or(rest);
            let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
                return match rest.len() {
                    ..MAX_LINE => Ok(Progress::Missing(1)),
                    _ => Err(Nonsense("a line without end")),
                };
            };
            let (line, rest) = rest.split_at_checked(end + 1).unwrap_or_default();
            let line = line
                .strip_suffix(END)
                .ok_or(Nonsense("a line that ends wrongly"))?;
            if line == b"MN" {
                return match (self.read.len() == self.count, rest.is_empty()) {
                    (true, true) => Ok(Progress::Done),
                    (true, false) => Err(Nonsense("more than was asked for")),
                    (false, _) => Err(Nonsense("fewer answers than questions")),
                };
            }
            if self.read.len() == self.count {
                return Err(Nonsense("more answers than questions"));
            }
            let Head { answer, told, size } = head(line)?;
            // Checked before a value is waited for.
            if told.is_some_and(|token| token != Some(self.next)) {
                return Err(Nonsense("an answer to another question"));
            }
            let begin = self.at + end + 1;
            let (value, next) = match size {
                None => (begin..begin, begin),
                Some(size) => {
                    let whole = size + END.len();
                    if rest.len() < whole {
                        return Ok(Progress::Missing(whole - rest.len()));
                    }
                    if rest.get(size..whole) != Some(END) {
                        return Err(Nonsense("a value of another size than its own"));
                    }
                    (begin..begin + size, begin + whole)
                }
            };
            self.read.push(Told { answer, value });
            self.next = self.next.wrapping_add(1);
            self.at = next;
        }
    }

    /// The answers so far, in the order of their commands. Values are slices of `came`, which is
    /// what they were read from.
    pub(crate) fn into_answers(self, came: Bytes) -> impl Iterator<Item = Response> {
        self.read.into_iter().map(move |told| match told.answer {
            Response::Value { cas, left, .. } => Response::Value {
                value: came.slice(told.value),
                cas,
                left,
            },
            answer => answer,
        })
    }
}

/// The first line of an answer.
#[derive(Debug)]
struct Head {
    answer: Response,
    /// The opaque token, or that there is none, which is wrong. `None` where nobody tells one, and
    /// the answer is known by its place alone: the server did not understand or could not, or was
    /// asked something that is no meta command.
    told: Option<Option<u64>>,
    /// How many bytes of value follow.
    size: Option<usize>,
}

fn head(line: &[u8]) -> Result<Head, Nonsense> {
    let untold = |answer| {
        Ok(Head {
            answer,
            told: None,
            size: None,
        })
    };
    let space = line.iter().position(|byte| *byte == b' ');
    let (word, rest) = line.split_at(space.unwrap_or(line.len()));
    let rest = rest.strip_prefix(b" ").unwrap_or_default();
    let mut flags = rest
        .split(|byte| *byte == b' ')
        .filter(|flag| !flag.is_empty());
    let mut size = None;
    let mut answer = match word {
        b"HD" => Response::Done,
        b"EN" | b"NF" => Response::Absent,
        b"NS" => Response::NotStored,
        b"EX" => Response::Changed,
        b"VA" => {
            let told = flags.next().and_then(number);
            let told = told.and_then(|size| usize::try_from(size).ok());
            size = Some(
                told.filter(|size| *size <= MAX_VALUE)
                    .ok_or(Nonsense("a value without a size"))?,
            );
            Response::Done
        }
        b"SERVER_ERROR" | b"CLIENT_ERROR" => {
            let why = std::str::from_utf8(rest).map_err(|_| Nonsense("a line that is no text"))?;
            return untold(Response::Refused(why.to_owned()));
        }
        b"OK" if rest.is_empty() => return untold(Response::Flushed),
        b"ERROR" => {
            return Err(Nonsense(
                "no meta command is known to it; it must be memcached 1.6 or newer",
            ));
        }
        _ => return Err(Nonsense("an unknown word")),
    };
    let (mut opaque, mut cas, mut left) = (None, None, None);
    for flag in flags {
        let known = match flag {
            [b'O', token @ ..] => keep(&mut opaque, number(token)),
            [b'c', token @ ..] => keep(&mut cas, number(token)),
            b"t-1" => keep(&mut left, Some(-1)),
            [b't', token @ ..] => {
                let seconds = number(token).and_then(|left| i64::try_from(left).ok());
                keep(&mut left, seconds)
            }
            // Another client marked the value as stale and has someone renew it.
            b"W" | b"X" | b"Z" => true,
            _ => false,
        };
        if !known {
            return Err(Nonsense("a flag that was not asked for"));
        }
    }
    if size.is_some() {
        answer = Response::Value {
            value: Bytes::new(),
            cas,
            left,
        };
    }
    Ok(Head {
        answer,
        told: Some(opaque),
        size,
    })
}

/// Keeps what a flag says; whether it says something, and for the first time.
fn keep<T>(place: &mut Option<T>, told: Option<T>) -> bool {
    let good = place.is_none() && told.is_some();
    *place = told;
    good
}

/// A number in digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        let number = number.checked_mul(10)?.checked_add(digit.into())?;
        (digit <= 9).then_some(number)
    })
}

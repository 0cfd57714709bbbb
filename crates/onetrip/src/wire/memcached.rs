//! Memcached's meta protocol: commands to bytes, and bytes to answers.
//!
//! A batch is any number of commands followed by `mn`. The server answers in order, each answer
//! with the opaque token of its command, then `MN`. So a batch that was read to its end leaves
//! nothing on the wire, and an answer to another request is noticed. No command is quiet: server
//! errors and the answer to `flush_all` carry no token and are matched by position alone. Posted
//! writes have no `mn` after them and are read by their number. Quiet writes (`q`, followed by an
//! `mn`) would save eight bytes per answer, but an error could then belong to any of them.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::digits::Digits;

/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 250;

/// The largest value that a server can be configured to accept, in bytes.
pub(crate) const MAX_VALUE: usize = 1 << 30;

/// The end of a line and of a value.
const END: &[u8] = b"\r\n";

/// The longest line of an answer, in bytes: a word, a size, and requested flags.
const MAX_LINE: usize = 2048;

/// Typical bytes of a command beside its key and value.
const COMMAND: usize = 40;

/// Longer relative times, in seconds, would be read as Unix times.
const MAX_RELATIVE: u64 = 30 * 24 * 60 * 60;

/// An operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Reads the value.
    Get,
    /// Reads the value with its unique number and remaining life, as needed to replace it.
    Look,
    /// Writes a value.
    Set {
        value: &'a [u8],
        expiry: Expiry,
        mode: Mode,
    },
    /// Removes the value.
    Delete,
    /// Changes the expiry of the value.
    Touch { expiry: Expiry },
    /// Adds to digits in place, if their unique number still is `cas`. Returns the sum.
    Shift { by: i64, cas: u64 },
    /// Removes every value of the server.
    Flush,
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Always write.
    Always,
    /// Write if the key is absent.
    Absent,
    /// Write if the value has this unique number.
    Unchanged(u64),
}

/// Expiry of a value as the protocol writes it: 0 for never, seconds from now, or a Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry(u32);

impl Expiry {
    /// Returns the expiry for `ttl` from `now`, a Unix time in seconds.
    ///
    /// The protocol counts whole seconds: fractions are rounded up. Its times end in 2038; values
    /// that should live longer stay until evicted.
    pub(crate) fn new(ttl: Option<Duration>, now: u64) -> Self {
        let Some(ttl) = ttl else { return Self(0) };
        let part = u64::from(ttl.subsec_nanos() > 0);
        let seconds = ttl.as_secs().saturating_add(part);
        let expiry = match seconds.max(1) {
            relative @ ..=MAX_RELATIVE => relative,
            more => now.saturating_add(more),
        };
        // Servers read it as a signed 32-bit number.
        Self(i32::try_from(expiry).map_or(0, i32::unsigned_abs))
    }
}

/// Returns the approximate size of a command about `key`, in bytes.
pub(crate) fn size(key: &[u8], command: &Command<'_>) -> usize {
    let value = match command {
        Command::Set { value, .. } => value.len(),
        _ => 0,
    };
    key.len() + value + COMMAND
}

/// Appends one command about `key`: 1 to [`MAX_KEY`] bytes, without spaces and control characters.
/// Its answer carries `opaque`.
pub(crate) fn write(out: &mut Vec<u8>, key: &[u8], command: &Command<'_>, opaque: u64) {
    out.extend_from_slice(match command {
        Command::Get | Command::Look | Command::Touch { .. } => b"mg ",
        Command::Set { .. } => b"ms ",
        Command::Delete => b"md ",
        Command::Shift { .. } => b"ma ",
        // Not a meta command: it takes neither key nor token.
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

/// Appends the end of a batch.
pub(crate) fn write_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"mn\r\n");
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// The value found.
    Value {
        value: Bytes,
        /// Its unique number, if requested.
        cas: Option<u64>,
        /// Remaining seconds to live, if requested; -1 if it never expires.
        left: Option<i64>,
    },
    /// Success.
    Done,
    /// There is no value.
    Absent,
    /// Not written: the key exists.
    NotStored,
    /// Not written: the value has another unique number.
    Changed,
    /// All values were removed.
    Flushed,
    /// The server refused, for this reason.
    Refused(String),
}

/// A violation of the protocol. The connection must not be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(pub(crate) &'static str);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Nonsense {}

/// The state of reading a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// At least this many bytes are missing; one or more.
    Missing(usize),
    /// The batch is complete.
    Done,
}

/// Reads the answers to a batch as bytes arrive. Bytes are parsed once.
#[derive(Debug)]
pub(crate) struct Responses {
    next: u64,
    count: usize,
    /// Whether `mn` ends the batch.
    ends: bool,
    /// Position read up to.
    at: usize,
    read: Vec<Parsed>,
}

/// An answer. The bytes of a value are at `value`, and not yet in it.
#[derive(Debug)]
struct Parsed {
    answer: Response,
    value: Range<usize>,
}

impl Responses {
    /// Creates a reader for `count` commands, whose opaque tokens begin with `first`.
    pub(crate) fn new(first: u64, count: usize) -> Self {
        Self {
            next: first,
            count,
            ends: true,
            at: 0,
            read: Vec::with_capacity(count),
        }
    }

    /// Creates a reader for commands without `mn` after them.
    pub(crate) fn of_posted(first: u64, count: usize) -> Self {
        Self {
            ends: false,
            ..Self::new(first, count)
        }
    }

    /// Continues reading `received`, which begins with its earlier content.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] if it does not answer the commands.
    pub(crate) fn read(&mut self, received: &[u8]) -> Result<Progress, Nonsense> {
        loop {
            let rest = received.get(self.at..).unwrap_or_default();
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
                    _ => Err(Nonsense("an endless line")),
                };
            };
            let (line, rest) = rest.split_at_checked(end + 1).unwrap_or_default();
            let line = line
                .strip_suffix(END)
                .ok_or(Nonsense("a line that does not end with CRLF"))?;
            if line == b"MN" {
                return match (self.read.len() == self.count, rest.is_empty()) {
                    (true, true) => Ok(Progress::Done),
                    (true, false) => Err(Nonsense("more than was asked for")),
                    (false, _) => Err(Nonsense("fewer answers than commands")),
                };
            }
            if self.read.len() == self.count {
                return Err(Nonsense("more answers than commands"));
            }
            let Head {
                answer,
                token,
                size,
            } = head(line)?;
            // Check before waiting for the value.
            if token.is_some_and(|token| token != Some(self.next)) {
                return Err(Nonsense("the answer to another command"));
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
                        return Err(Nonsense("a value of the wrong size"));
                    }
                    (begin..begin + size, begin + whole)
                }
            };
            self.read.push(Parsed { answer, value });
            self.next = self.next.wrapping_add(1);
            self.at = next;
        }
    }

    /// Returns the answers so far, in the order of their commands. Values are slices of `received`,
    /// from which they were read.
    pub(crate) fn into_answers(self, received: Bytes) -> impl Iterator<Item = Response> {
        self.read
            .into_iter()
            .map(move |parsed| match parsed.answer {
                Response::Value { cas, left, .. } => Response::Value {
                    value: received.slice(parsed.value),
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
    /// The opaque token: `Some(None)` if it is missing, which is an error. `None` if the answer
    /// never has one: an error of the server, or the answer to a command that is not a meta
    /// command.
    token: Option<Option<u64>>,
    /// Size of the value that follows, in bytes.
    size: Option<usize>,
}

fn head(line: &[u8]) -> Result<Head, Nonsense> {
    let without_token = |answer| {
        Ok(Head {
            answer,
            token: None,
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
            let announced = flags.next().and_then(number);
            let announced = announced.and_then(|size| usize::try_from(size).ok());
            size = Some(
                announced
                    .filter(|size| *size <= MAX_VALUE)
                    .ok_or(Nonsense("a value without a size"))?,
            );
            Response::Done
        }
        b"SERVER_ERROR" | b"CLIENT_ERROR" => {
            let why = std::str::from_utf8(rest).map_err(|_| Nonsense("a line that is not text"))?;
            return without_token(Response::Refused(why.to_owned()));
        }
        b"OK" if rest.is_empty() => return without_token(Response::Flushed),
        b"ERROR" => {
            return Err(Nonsense(
                "it does not know meta commands; memcached 1.6 or newer is needed",
            ));
        }
        _ => return Err(Nonsense("an unknown word")),
    };
    let (mut opaque, mut cas, mut left) = (None, None, None);
    for flag in flags {
        let known = match flag {
            [b'O', token @ ..] => set_flag(&mut opaque, number(token)),
            [b'c', token @ ..] => set_flag(&mut cas, number(token)),
            b"t-1" => set_flag(&mut left, Some(-1)),
            [b't', token @ ..] => {
                let seconds = number(token).and_then(|left| i64::try_from(left).ok());
                set_flag(&mut left, seconds)
            }
            // Another client marked the value as stale and lets someone renew it.
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
        token: Some(opaque),
        size,
    })
}

/// Stores the value of a flag. Returns whether it is valid and not a duplicate.
fn set_flag<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let good = place.is_none() && value.is_some();
    *place = value;
    good
}

/// Parses an unsigned decimal number.
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

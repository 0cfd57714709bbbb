//! Memcached's meta protocol: commands as bytes, and bytes as answers.
//!
//! A batch is any number of commands and `mn` behind them. The server answers in order, each
//! answer with the opaque token of its command, and `MN` last; so a batch that was read to its end
//! leaves nothing on the wire, and an answer that belongs elsewhere is noticed. Nothing is asked
//! quietly: an error of the server, and the answer to `flush_all`, carry no token and are known by
//! their place alone.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::trip::Ttl;

/// The longest key that a server takes, in bytes.
pub(crate) const MAX_KEY: usize = 250;

/// The largest value that any server can be set up to take, in bytes.
pub(crate) const MAX_VALUE: usize = 1 << 30;

/// The longest line of an answer, in bytes: a word, a size, and flags that we asked for.
const MAX_LINE: usize = 2048;

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
    pub(crate) fn new(ttl: Ttl, now: u64) -> Self {
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

/// Appends one command about `key`, which is 1 to [`MAX_KEY`] bytes without spaces and control
/// characters. `opaque` comes back with its answer.
pub(crate) fn write(out: &mut BytesMut, key: &[u8], command: &Command<'_>, opaque: u64) {
    out.put_slice(match command {
        Command::Get | Command::Look | Command::Touch { .. } => b"mg ",
        Command::Set { .. } => b"ms ",
        Command::Delete => b"md ",
        Command::Shift { .. } => b"ma ",
        // No meta command: it takes neither key nor token.
        Command::Flush => {
            out.put_slice(b"flush_all\r\n");
            return;
        }
    });
    out.put_slice(key);
    // Writing to a buffer in memory never fails.
    let _ = match command {
        Command::Get => out.write_str(" v"),
        Command::Look => out.write_str(" v c t"),
        Command::Delete | Command::Flush => Ok(()),
        Command::Touch { expiry } => write!(out, " T{}", expiry.0),
        Command::Shift { by, cas } => {
            let mode = if *by < 0 { 'D' } else { 'I' };
            write!(out, " C{cas} M{mode} D{} v", by.unsigned_abs())
        }
        Command::Set {
            value,
            expiry,
            mode,
        } => write!(out, " {} T{}", value.len(), expiry.0).and_then(|()| match mode {
            Mode::Always => Ok(()),
            Mode::Absent => out.write_str(" ME"),
            Mode::Unchanged(cas) => write!(out, " C{cas}"),
        }),
    };
    let _ = write!(out, " O{opaque}\r\n");
    if let Command::Set { value, .. } = command {
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}

/// Appends what ends a batch.
pub(crate) fn write_end(out: &mut BytesMut) {
    out.put_slice(b"mn\r\n");
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
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

/// Reads the answers to a batch, as their bytes come in.
#[derive(Debug)]
pub(crate) struct Answers {
    next: u64,
    count: usize,
    read: Vec<Answer>,
}

/// The first line of an answer.
#[derive(Debug, Default)]
struct Line {
    opaque: Option<u64>,
    cas: Option<u64>,
    left: Option<i64>,
}

impl Answers {
    /// For a batch of `count` commands, whose opaque tokens begin with `first`.
    pub(crate) fn new(first: u64, count: usize) -> Self {
        Self {
            next: first,
            count,
            read: Vec::with_capacity(count),
        }
    }

    /// Takes whole answers from the front of `buffer`, until one is not all there or the batch
    /// has ended. Values are slices of the buffer.
    pub(crate) fn feed(&mut self, buffer: &mut BytesMut) -> Result<Progress, Nonsense> {
        loop {
            let Some(end) = buffer.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
                return match buffer.len() {
                    ..MAX_LINE => Ok(Progress::Missing(1)),
                    _ => Err(Nonsense("a line without end")),
                };
            };
            let line = buffer.get(..end).unwrap_or_default();
            let line = line
                .strip_suffix(b"\r")
                .ok_or(Nonsense("a line that ends wrongly"))?;
            if line == b"MN" {
                buffer.advance(end + 1);
                return match (self.read.len() == self.count, buffer.is_empty()) {
                    (true, true) => Ok(Progress::Done),
                    (true, false) => Err(Nonsense("more than was asked for")),
                    (false, _) => Err(Nonsense("fewer answers than questions")),
                };
            }
            if self.read.len() == self.count {
                return Err(Nonsense("more answers than questions"));
            }
            let (head, size) = head(line)?;
            let answer = match (head, size) {
                (Head::Untold(answer), _) => {
                    buffer.advance(end + 1);
                    answer
                }
                (Head::Told(answer, line), None) => {
                    self.check(&line)?;
                    buffer.advance(end + 1);
                    answer
                }
                (Head::Told(_, line), Some(size)) => {
                    // Checked before the value is waited for.
                    self.check(&line)?;
                    let whole = end + 1 + size + b"\r\n".len();
                    if buffer.len() < whole {
                        return Ok(Progress::Missing(whole - buffer.len()));
                    }
                    buffer.advance(end + 1);
                    let value = buffer.split_to(size).freeze();
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Nonsense("a value of another size than its own"));
                    }
                    buffer.advance(b"\r\n".len());
                    Answer::Value {
                        value,
                        cas: line.cas,
                        left: line.left,
                    }
                }
            };
            self.read.push(answer);
            self.next = self.next.wrapping_add(1);
        }
    }

    fn check(&self, line: &Line) -> Result<(), Nonsense> {
        if line.opaque == Some(self.next) {
            Ok(())
        } else {
            Err(Nonsense("an answer to another question"))
        }
    }

    /// The answers so far, in the order of their commands.
    pub(crate) fn into_answers(self) -> Vec<Answer> {
        self.read
    }
}

enum Head {
    Told(Answer, Line),
    /// Without a token, and known by its place alone: the server did not understand or could not,
    /// or was asked something that is no meta command.
    Untold(Answer),
}

/// Reads the first line of an answer, and how many bytes of value follow it.
fn head(line: &[u8]) -> Result<(Head, Option<usize>), Nonsense> {
    let text = std::str::from_utf8(line).map_err(|_| Nonsense("a line that is no text"))?;
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut flags = rest.split(' ').filter(|flag| !flag.is_empty());
    let mut size = None;
    let answer = match word {
        "HD" => Answer::Done,
        "EN" | "NF" => Answer::Absent,
        "NS" => Answer::NotStored,
        "EX" => Answer::Changed,
        "VA" => {
            let told = flags.next().and_then(number);
            let told = told.and_then(|size| usize::try_from(size).ok());
            size = Some(
                told.filter(|size| *size <= MAX_VALUE)
                    .ok_or(Nonsense("a value without a size"))?,
            );
            // Stands for the value until that is there.
            Answer::Done
        }
        "SERVER_ERROR" | "CLIENT_ERROR" => {
            return Ok((Head::Untold(Answer::Refused(rest.to_owned())), None));
        }
        "OK" if rest.is_empty() => return Ok((Head::Untold(Answer::Flushed), None)),
        "ERROR" => {
            return Err(Nonsense(
                "no meta command is known to it; it must be memcached 1.6 or newer",
            ));
        }
        _ => return Err(Nonsense("an unknown word")),
    };
    let mut line = Line::default();
    for flag in flags {
        let (name, token) = flag.split_at_checked(1).unwrap_or((flag, ""));
        let known = match name {
            "O" => keep(&mut line.opaque, number(token)),
            "c" => keep(&mut line.cas, number(token)),
            "t" if token == "-1" => keep(&mut line.left, Some(-1)),
            "t" => keep(
                &mut line.left,
                number(token).and_then(|left| i64::try_from(left).ok()),
            ),
            // Another client marked the value as stale and has someone renew it.
            "W" | "X" | "Z" => token.is_empty(),
            _ => false,
        };
        if !known {
            return Err(Nonsense("a flag that was not asked for"));
        }
    }
    Ok((Head::Told(answer, line), size))
}

/// Keeps what a flag says; whether it says something, and for the first time.
fn keep<T>(place: &mut Option<T>, told: Option<T>) -> bool {
    let good = place.is_none() && told.is_some();
    *place = told;
    good
}

/// A number in digits alone.
fn number(digits: &str) -> Option<u64> {
    let good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if good { digits.parse().ok() } else { None }
}

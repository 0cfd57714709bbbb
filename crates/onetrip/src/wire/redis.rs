//! Redis's protocol, RESP2: commands to bytes, and bytes to values.
//!
//! A server answers in order, and only the order says which command an answer belongs to. So
//! readers count: as many values as commands. Bytes are parsed in place, once, as they arrive;
//! complete values become slices of the buffer.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::vec;

use bytes::Bytes;
use smallvec::SmallVec;

use super::buffer::Buffer;
use super::digits::Digits;

/// The longest string that any server sends, in bytes; the default limit is 512 MiB.
const MAX_STRING: usize = 1 << 30;

/// The longest line, in bytes: a status, an error, or a number.
const MAX_LINE: usize = 64 << 10;

/// The deepest nesting of arrays. CLUSTER SLOTS has the deepest, with three.
const MAX_DEPTH: usize = 8;

/// Most parts whose memory is kept for the next values.
const MOST_PARTS: usize = 4096;

/// Most digits of a number, with room for a sign and leading zeros.
const MOST_DIGITS: usize = 24;

/// Commands that are sent together.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) bytes: Vec<u8>,
    /// Number of commands, and of values that answer them.
    pub(crate) count: usize,
    /// Approximate number of keys they name: more keys make longer answers.
    pub(crate) weight: usize,
}

impl Commands {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Creates a single command.
    pub(crate) fn one(words: &[&[u8]]) -> Self {
        let mut commands = Self::default();
        commands.put(words);
        commands
    }

    /// Adds a command.
    pub(crate) fn put(&mut self, words: &[&[u8]]) {
        self.put_list(words, std::iter::empty());
    }

    /// Adds a command of `words` followed by `more`.
    pub(crate) fn put_list<'a>(
        &mut self,
        words: &[&'a [u8]],
        more: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        self.count += 1;
        self.weight += more.len().max(1);
        self.head(b'*', words.len() + more.len());
        for word in words.iter().copied().chain(more) {
            self.head(b'$', word.len());
            self.bytes.extend_from_slice(word);
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the first line of an array or a string.
    fn head(&mut self, kind: u8, size: usize) {
        let digit = |number: usize| b'0' + (number % 10) as u8;
        match size {
            // Nearly all are a name's length: written at once.
            0..10 => (self.bytes).extend_from_slice(&[kind, digit(size), b'\r', b'\n']),
            10..100 => {
                let line = [kind, digit(size / 10), digit(size), b'\r', b'\n'];
                self.bytes.extend_from_slice(&line);
            }
            _ => {
                self.bytes.push(kind);
                (self.bytes).extend_from_slice(Digits::of(size as u64).as_ref());
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// A server's answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A string, such as an entry.
    Bulk(Bytes),
    /// Nothing.
    Nil,
    /// A status, such as OK.
    Status(Bytes),
    Integer(i64),
    Array(Vec<Value>),
    Error(ServerError),
}

impl Value {
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self, Self::Status(word) if word == "OK")
    }

    /// Returns it as text, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Bulk(text) | Self::Status(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }
}

/// An error that a server returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerError(Box<str>);

impl ServerError {
    pub(crate) fn new(line: &[u8]) -> Self {
        Self(String::from_utf8_lossy(line).into())
    }

    /// Returns the error with `secret` removed.
    pub(crate) fn without(&self, secret: &str) -> Self {
        match secret {
            "" => self.clone(),
            secret => Self(self.0.replace(secret, "***").into()),
        }
    }

    /// Returns its first word, such as OOM.
    pub(crate) fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Returns the text after the code.
    pub(crate) fn detail(&self) -> &str {
        self.0.split_once(' ').map_or("", |(_, detail)| detail)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// Bytes that violate the protocol. The connection must not be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(pub(crate) &'static str);

/// A parsed value: its kind, and the range of its bytes in the buffer.
#[derive(Debug)]
enum Part {
    Bulk(Range<usize>),
    Nil,
    Status(Range<usize>),
    Integer(i64),
    /// An array of this many of the following values.
    Array(usize),
    Error(Range<usize>),
}

/// Reads values as their bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Buffer,
    /// The parsed parts.
    parts: Vec<Part>,
    /// Position parsed up to.
    at: usize,
    /// Position up to which the end of the current line was searched.
    searched: usize,
    /// Missing values of each incomplete array, outermost first.
    open: SmallVec<[usize; MAX_DEPTH]>,
    whole: usize,
    /// End of the last complete value, in the buffer and among the parts.
    end: (usize, usize),
}

impl Reader {
    /// Returns the buffer to append received bytes to, with room for `bytes` more.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.buffer.room(bytes)
    }

    /// Returns how many bytes are in the buffer.
    pub(crate) fn held(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// Returns how many values are complete.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Parses received bytes. Returns how many more are needed at least; one or more.
    pub(crate) fn scan(&mut self) -> Result<usize, Nonsense> {
        loop {
            let rest = self.buffer.bytes().get(self.at..).unwrap_or_default();
            let Some((kind, text)) = rest.split_first() else {
                return Ok(1);
            };
            let (part, next) = match kind {
                b'+' | b'-' => {
                    let Some((line, next)) = self.line()? else {
                        return Ok(1);
                    };
                    match self.buffer.bytes().get(self.at) {
                        Some(b'+') => (Part::Status(line), next),
                        _ => (Part::Error(line), next),
                    }
                }
                b':' => {
                    let Some((number, length)) = number(text, "an invalid number")? else {
                        return Ok(1);
                    };
                    (Part::Integer(number), self.at + 1 + length)
                }
                b'$' => {
                    let Some((size, length)) = size(text, MAX_STRING)? else {
                        return Ok(1);
                    };
                    let begin = self.at + 1 + length;
                    match size {
                        None => (Part::Nil, begin),
                        Some(size) => {
                            let string = begin..begin + size;
                            let end = string.end + b"\r\n".len();
                            if self.buffer.bytes().len() < end {
                                return Ok(end - self.buffer.bytes().len());
                            }
                            if self.buffer.bytes().get(string.end..end) != Some(b"\r\n") {
                                return Err(Nonsense("a string of the wrong length"));
                            }
                            (Part::Bulk(string), end)
                        }
                    }
                }
                b'*' => {
                    let Some((size, length)) = size(text, usize::MAX)? else {
                        return Ok(1);
                    };
                    let next = self.at + 1 + length;
                    match size {
                        None => (Part::Nil, next),
                        Some(0) => (Part::Array(0), next),
                        Some(_) if self.open.len() == MAX_DEPTH => {
                            return Err(Nonsense("arrays nested too deeply"));
                        }
                        Some(size) => {
                            self.open.push(size);
                            self.parts.push(Part::Array(size));
                            self.go_to(next);
                            continue;
                        }
                    }
                }
                _ => return Err(Nonsense("a value of unknown type")),
            };
            self.parts.push(part);
            self.go_to(next);
            self.close();
        }
    }

    /// Returns the range of the current line's text, without its kind and end, and the position of
    /// the next line; `None` if the line is incomplete.
    fn line(&mut self) -> Result<Option<(Range<usize>, usize)>, Nonsense> {
        let rest = self.buffer.bytes().get(self.searched..).unwrap_or_default();
        let most = (self.at + MAX_LINE).saturating_sub(self.searched);
        let Some(place) = rest.iter().take(most).position(|byte| *byte == b'\n') else {
            if rest.len() >= most {
                return Err(Nonsense("an endless line"));
            }
            self.searched = self.buffer.bytes().len();
            return Ok(None);
        };
        let next = self.searched + place + 1;
        let line = self.at + 1..next.saturating_sub(b"\r\n".len());
        if self.buffer.bytes().get(line.end..next) != Some(b"\r\n") {
            return Err(Nonsense("a line that does not end with CRLF"));
        }
        Ok(Some((line, next)))
    }

    fn go_to(&mut self, place: usize) {
        (self.at, self.searched) = (place, place);
    }

    /// Notes that a value is complete, and every array that ends with it.
    fn close(&mut self) {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return;
            }
            self.open.pop();
        }
        self.whole += 1;
        self.end = (self.at, self.parts.len());
    }

    /// Takes out the complete values. Their strings are slices of the receive buffer.
    pub(crate) fn take(&mut self) -> Result<Vec<Value>, Nonsense> {
        if self.whole == 0 {
            return Ok(Vec::new());
        }
        let whole = std::mem::take(&mut self.whole);
        let (end, parts) = std::mem::take(&mut self.end);
        let bytes = self.buffer.take(end);
        self.at -= end;
        self.searched -= end;
        let mut cut = self.parts.drain(..parts);
        let values = (0..whole).map(|_| value(&mut cut, &bytes)).collect();
        drop(cut);
        self.parts.shrink_to(MOST_PARTS);
        // The rest is the beginning of an array.
        for part in &mut self.parts {
            if let Part::Bulk(place) | Part::Status(place) | Part::Error(place) = part {
                *place = place.start - end..place.end - end;
            }
        }
        values
    }
}

/// Builds the value of the next parts from `bytes`.
fn value(parts: &mut vec::Drain<'_, Part>, bytes: &Bytes) -> Result<Value, Nonsense> {
    Ok(match parts.next().ok_or(Nonsense("too few values"))? {
        Part::Bulk(place) => Value::Bulk(bytes.slice(place)),
        Part::Nil => Value::Nil,
        Part::Status(place) => Value::Status(bytes.slice(place)),
        Part::Integer(number) => Value::Integer(number),
        Part::Array(size) => {
            // All its values are among the parts.
            let mut values = Vec::with_capacity(size.min(parts.len()));
            for _ in 0..size {
                values.push(value(parts, bytes)?);
            }
            Value::Array(values)
        }
        Part::Error(place) => Value::Error(ServerError::new(bytes.get(place).unwrap_or_default())),
    })
}

/// Parses the size in the line that `text` begins with; the inner `None` is a nil. Returns it with
/// the length of the line; the outer `None` if the line is incomplete.
fn size(text: &[u8], most: usize) -> Result<Option<(Option<usize>, usize)>, Nonsense> {
    const NONE: &str = "an invalid size";
    let Some((size, length)) = number(text, NONE)? else {
        return Ok(None);
    };
    match usize::try_from(size) {
        Ok(size) if size <= most => Ok(Some((Some(size), length))),
        Err(_) if size == -1 => Ok(Some((None, length))),
        _ => Err(Nonsense(NONE)),
    }
}

/// Parses the number in the line that `text` begins with. Returns it with the length of the line
/// and its end; `None` if the line is incomplete. `wrong` is the error for an invalid number.
fn number(text: &[u8], wrong: &'static str) -> Result<Option<(i64, usize)>, Nonsense> {
    let negative = text.first() == Some(&b'-');
    let begin = usize::from(negative);
    let mut number = 0_i64;
    for (place, byte) in text.iter().enumerate().skip(begin).take(MOST_DIGITS) {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return match (byte, text.get(place + 1)) {
                (b'\r', Some(b'\n')) if place > begin => Ok(Some((number, place + 2))),
                (b'\r', None) if place > begin => Ok(None),
                _ => Err(Nonsense(wrong)),
            };
        }
        let signed = if negative { -digit } else { digit };
        number = number
            .checked_mul(10)
            .and_then(|number| number.checked_add(signed))
            .ok_or(Nonsense(wrong))?;
    }
    if text.len() < MOST_DIGITS {
        Ok(None)
    } else {
        Err(Nonsense(wrong))
    }
}

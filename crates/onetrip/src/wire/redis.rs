//! Redis's protocol, RESP2: commands as bytes, and bytes as values.
//!
//! A server answers in order and nothing else tells what an answer belongs to, so whoever reads
//! counts: so many commands, so many values. What is read is understood where it lies, once, as it
//! comes; values become slices of the buffer when they are whole.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::vec;

use bytes::Bytes;
use smallvec::SmallVec;

use super::buffer::Buffer;
use super::digits::Digits;

/// The longest string that any server sends, in bytes; by default none is longer than 512 MiB.
const MAX_STRING: usize = 1 << 30;

/// The longest line, in bytes: a status, an error, or a number.
const MAX_LINE: usize = 64 << 10;

/// How deep arrays lie within each other. CLUSTER SLOTS has the deepest, with three.
const MAX_DEPTH: usize = 8;

/// The most parts whose memory is kept for those that come next.
const MOST_PARTS: usize = 4096;

/// The most digits of a number, with room for its sign and for noughts in front.
const MOST_DIGITS: usize = 24;

/// Commands that go out together.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) bytes: Vec<u8>,
    /// How many there are, and how many values answer them.
    pub(crate) count: usize,
    /// How many keys they are about, or so: the more, the more is answered.
    pub(crate) weight: usize,
}

impl Commands {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// One command alone.
    pub(crate) fn one(words: &[&[u8]]) -> Self {
        let mut commands = Self::default();
        commands.put(words);
        commands
    }

    /// Adds a command.
    pub(crate) fn put(&mut self, words: &[&[u8]]) {
        self.put_list(words, std::iter::empty());
    }

    /// Adds a command of `words` and as many `more`.
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

    /// The line that an array or a string begins with.
    fn head(&mut self, kind: u8, size: usize) {
        let digit = |number: usize| b'0' + (number % 10) as u8;
        match size {
            // Nearly all are a name's: written at once.
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

/// What a server answers to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A string, such as an entry.
    Bulk(Bytes),
    /// Nothing is there.
    Nil,
    /// A word, such as OK.
    Status(Bytes),
    Integer(i64),
    Array(Vec<Value>),
    Error(ServerError),
}

impl Value {
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self, Self::Status(word) if word == "OK")
    }

    /// As text, if it is some.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Bulk(text) | Self::Status(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }
}

/// An error that a server answered with, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerError(Box<str>);

impl ServerError {
    pub(crate) fn new(line: &[u8]) -> Self {
        Self(String::from_utf8_lossy(line).into())
    }

    /// The same, not telling `secret`.
    pub(crate) fn without(&self, secret: &str) -> Self {
        match secret {
            "" => self.clone(),
            secret => Self(self.0.replace(secret, "***").into()),
        }
    }

    /// The first word, such as OOM.
    pub(crate) fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// What follows it.
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

/// Bytes that no server of Redis sends. The connection that brought them is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(pub(crate) &'static str);

/// A value as it was understood: what it is, and where its bytes lie in the buffer.
#[derive(Debug)]
enum Part {
    Bulk(Range<usize>),
    Nil,
    Status(Range<usize>),
    Integer(i64),
    /// So many of the parts that follow.
    Array(usize),
    Error(Range<usize>),
}

/// Reads values as their bytes come in.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Buffer,
    /// What is understood of it.
    parts: Vec<Part>,
    /// How far it is understood.
    at: usize,
    /// How far the end of the line that begins there was looked for.
    searched: usize,
    /// How many values each array misses that is not whole, the outermost first.
    open: SmallVec<[usize; MAX_DEPTH]>,
    whole: usize,
    /// Where the last whole value ends, in the buffer and among the parts.
    end: (usize, usize),
}

impl Reader {
    /// The buffer to append to what came, with room for so many bytes.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.buffer.room(bytes)
    }

    /// How many bytes lie in the buffer.
    pub(crate) fn held(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// How many values are whole.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Understands what came, and tells how many bytes are missing at least; one or more.
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
                    let Some((number, length)) = number(text, "a number that is none")? else {
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
                                return Err(Nonsense("a string of another length than its own"));
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
                            return Err(Nonsense("arrays within arrays without end"));
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

    /// Where the text of the line at hand is, without its kind and its end, and where the next one
    /// begins; `None` if it is not whole.
    fn line(&mut self) -> Result<Option<(Range<usize>, usize)>, Nonsense> {
        let rest = self.buffer.bytes().get(self.searched..).unwrap_or_default();
        let most = (self.at + MAX_LINE).saturating_sub(self.searched);
        let Some(place) = rest.iter().take(most).position(|byte| *byte == b'\n') else {
            if rest.len() >= most {
                return Err(Nonsense("a line without end"));
            }
            self.searched = self.buffer.bytes().len();
            return Ok(None);
        };
        let next = self.searched + place + 1;
        let line = self.at + 1..next.saturating_sub(b"\r\n".len());
        if self.buffer.bytes().get(line.end..next) != Some(b"\r\n") {
            return Err(Nonsense("a line that ends wrongly"));
        }
        Ok(Some((line, next)))
    }

    fn go_to(&mut self, place: usize) {
        (self.at, self.searched) = (place, place);
    }

    /// Notes that the value that ends here is whole, and the arrays that it was the last of.
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

    /// Takes out the values that are whole. Their strings are slices of the buffer that they came
    /// in.
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
        // What is left is the beginning of an array.
        for part in &mut self.parts {
            if let Part::Bulk(place) | Part::Status(place) | Part::Error(place) = part {
                *place = place.start - end..place.end - end;
            }
        }
        values
    }
}

/// Cuts the value out of `bytes` whose parts come next.
fn value(parts: &mut vec::Drain<'_, Part>, bytes: &Bytes) -> Result<Value, Nonsense> {
    Ok(match parts.next().ok_or(Nonsense("less than was read"))? {
        Part::Bulk(place) => Value::Bulk(bytes.slice(place)),
        Part::Nil => Value::Nil,
        Part::Status(place) => Value::Status(bytes.slice(place)),
        Part::Integer(number) => Value::Integer(number),
        Part::Array(size) => {
            // All of them are here.
            let mut values = Vec::with_capacity(size.min(parts.len()));
            for _ in 0..size {
                values.push(value(parts, bytes)?);
            }
            Value::Array(values)
        }
        Part::Error(place) => Value::Error(ServerError::new(bytes.get(place).unwrap_or_default())),
    })
}

/// The size of what follows, in the line that `text` begins with; within, `None` for what is not
/// there. With it the length of that line; `None` if it is not whole.
fn size(text: &[u8], most: usize) -> Result<Option<(Option<usize>, usize)>, Nonsense> {
    const NONE: &str = "a size that is none";
    let Some((size, length)) = number(text, NONE)? else {
        return Ok(None);
    };
    match usize::try_from(size) {
        Ok(size) if size <= most => Ok(Some((Some(size), length))),
        Err(_) if size == -1 => Ok(Some((None, length))),
        _ => Err(Nonsense(NONE)),
    }
}

/// The number in the line that `text` begins with, and the length of that line with its end;
/// `None` if it is not whole. `wrong` tells that it is none.
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

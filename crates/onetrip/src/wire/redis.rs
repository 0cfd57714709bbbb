//! Redis's protocol, RESP2: commands as bytes, and bytes as values.
//!
//! A server answers in order and nothing else tells what an answer belongs to, so whoever reads
//! counts: so many commands, so many values. What is read is understood where it lies, once, as it
//! comes; values become slices of the buffer when they are whole.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

/// The longest string that any server sends, in bytes; by default none is longer than 512 MiB.
const MAX_STRING: usize = 1 << 30;

/// The longest line, in bytes: a status, an error, or a number.
const MAX_LINE: usize = 64 << 10;

/// How deep arrays lie within each other. CLUSTER SLOTS has the deepest, with three.
const MAX_DEPTH: usize = 8;

/// The largest buffer that is kept for what comes next.
const MOST_KEPT: usize = 128 << 10;

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

    fn head(&mut self, kind: u8, size: usize) {
        self.bytes.push(kind);
        self.bytes
            .extend_from_slice(Digits::of(size as u64).as_ref());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// A number in decimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    digits: [u8; 20],
    from: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut digits = [0; 20];
        let mut from = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            from = place;
            if number == 0 {
                break;
            }
        }
        Self { digits, from }
    }
}

impl AsRef<[u8]> for Digits {
    fn as_ref(&self) -> &[u8] {
        self.digits.get(self.from..).unwrap_or_default()
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

/// Reads values as their bytes come in.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// The buffer before, to be used again when nobody holds what came in it.
    before: Bytes,
    /// How far it is understood.
    at: usize,
    /// How far the end of the line that begins there was looked for.
    searched: usize,
    /// How many values each array misses that is not whole, the outermost first.
    open: SmallVec<[usize; MAX_DEPTH]>,
    whole: usize,
    /// Where the last whole value ends.
    end: usize,
}

impl Reader {
    /// The buffer to append to what came, with room for so many bytes.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.buffer.capacity() - self.buffer.len() < bytes {
            if self.buffer.is_empty() {
                let before = std::mem::take(&mut self.before);
                if before.is_unique() {
                    self.buffer = before.into();
                }
                if self.buffer.capacity() < bytes {
                    self.buffer = Vec::with_capacity(bytes);
                }
            } else {
                self.buffer.reserve(bytes);
            }
        }
        &mut self.buffer
    }

    /// How many bytes lie in the buffer.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// How many values are whole.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Understands what came, and tells how many bytes are missing at least; one or more.
    pub(crate) fn scan(&mut self) -> Result<usize, Nonsense> {
        loop {
            let Some((line, next)) = self.line()? else {
                return Ok(1);
            };
            let line = self.buffer.get(line).unwrap_or_default();
            let next = match line.split_first() {
                Some((b'+' | b'-', _)) => next,
                Some((b':', digits)) => {
                    integer(digits).ok_or(Nonsense("a number that is none"))?;
                    next
                }
                Some((b'$', digits)) => match size(digits, MAX_STRING)? {
                    None => next,
                    Some(size) => {
                        let end = next + size + b"\r\n".len();
                        if self.buffer.len() < end {
                            return Ok(end - self.buffer.len());
                        }
                        if self.buffer.get(next + size..end) != Some(b"\r\n") {
                            return Err(Nonsense("a string of another length than its own"));
                        }
                        end
                    }
                },
                Some((b'*', digits)) => match size(digits, usize::MAX)? {
                    None | Some(0) => next,
                    Some(_) if self.open.len() == MAX_DEPTH => {
                        return Err(Nonsense("arrays within arrays without end"));
                    }
                    Some(size) => {
                        self.open.push(size);
                        self.go_to(next);
                        continue;
                    }
                },
                _ => return Err(Nonsense("a value of unknown type")),
            };
            self.go_to(next);
            self.close();
        }
    }

    /// Where the line at hand is, without its end, and where the next one begins; `None` if it is
    /// not whole.
    fn line(&mut self) -> Result<Option<(Range<usize>, usize)>, Nonsense> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let most = (self.at + MAX_LINE).saturating_sub(self.searched);
        let Some(place) = rest.iter().take(most).position(|byte| *byte == b'\n') else {
            if rest.len() >= most {
                return Err(Nonsense("a line without end"));
            }
            self.searched = self.buffer.len();
            return Ok(None);
        };
        // Looked for anew if the string behind it is not all there: it is short.
        let next = self.searched + place + 1;
        let line = self.at..next.saturating_sub(b"\r\n".len());
        if self.buffer.get(line.end..next) != Some(b"\r\n") || line.is_empty() {
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
        self.end = self.at;
    }

    /// Takes out the values that are whole. Their strings are slices of the buffer that they came
    /// in, and keep it: where they leave most of it empty, they are copied.
    pub(crate) fn take(&mut self) -> Result<Vec<Value>, Nonsense> {
        if self.whole == 0 {
            return Ok(Vec::new());
        }
        let came = self.buffer.get(..self.end).unwrap_or_default();
        let bytes = if came.len() < self.buffer.capacity() / 2 {
            let copy = Bytes::copy_from_slice(came);
            self.buffer.drain(..self.end);
            copy
        } else {
            let rest = self.buffer.split_off(self.end);
            let is_kept = self.buffer.capacity() <= MOST_KEPT;
            let bytes = Bytes::from(std::mem::replace(&mut self.buffer, rest));
            if is_kept {
                self.before = bytes.clone();
                self.before.clear();
            }
            bytes
        };
        let (end, whole) = (self.end, self.whole);
        self.at -= end;
        self.searched -= end;
        (self.end, self.whole) = (0, 0);
        let mut cut = Cut { bytes, at: 0 };
        (0..whole).map(|_| cut.value()).collect()
    }
}

/// Cuts values out of bytes that were understood already.
struct Cut {
    bytes: Bytes,
    at: usize,
}

impl Cut {
    fn value(&mut self) -> Result<Value, Nonsense> {
        const LOST: Nonsense = Nonsense("less than was read");
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(LOST)?;
        let line = self.at + 1..(self.at + end).saturating_sub(1);
        let kind = rest.first().ok_or(LOST)?;
        let digits = self.bytes.get(line.clone()).ok_or(LOST)?;
        self.at += end + 1;
        Ok(match kind {
            b'+' => Value::Status(self.bytes.slice(line)),
            b'-' => Value::Error(ServerError::new(digits)),
            b':' => Value::Integer(integer(digits).ok_or(LOST)?),
            b'$' => match size(digits, MAX_STRING)? {
                None => Value::Nil,
                Some(size) => {
                    let string = self.at..self.at + size;
                    self.at = string.end + b"\r\n".len();
                    Value::Bulk(self.bytes.slice(string))
                }
            },
            _ => match size(digits, usize::MAX)? {
                None => Value::Nil,
                Some(size) => {
                    Value::Array((0..size).map(|_| self.value()).collect::<Result<_, _>>()?)
                }
            },
        })
    }
}

/// The size of what follows; `None` for what is not there.
fn size(digits: &[u8], most: usize) -> Result<Option<usize>, Nonsense> {
    if digits == b"-1" {
        return Ok(None);
    }
    let size = integer(digits).and_then(|size| usize::try_from(size).ok());
    match size {
        Some(size) if size <= most => Ok(Some(size)),
        _ => Err(Nonsense("a size that is none")),
    }
}

/// A number in digits, and a sign if it is negative.
fn integer(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        let number = number.checked_mul(10)?;
        if negative {
            number.checked_sub(digit)
        } else {
            number.checked_add(digit)
        }
    })
}

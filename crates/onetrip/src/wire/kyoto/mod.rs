//! Kyoto Tycoon's two protocols. The server takes both on one connection: it tells them apart by
//! the first byte of each request, and answers in order.
//!
//! Requests are appended to a buffer; [`Reader`] reads replies from a buffer as it fills.

pub(crate) mod binary;
pub(crate) mod http;

mod base64;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::binary::{BulkRecord, Partial};
use self::http::Response;

/// The longest name or value in the binary protocol, and the longest body of a call: 256 MiB.
pub(crate) const MAX_DATA: usize = 1 << 28;

/// The kind of a request, with the numbers needed to read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A get_bulk of this many names.
    Get(usize),
    /// A set_bulk of this many records.
    Set(usize),
    /// A remove_bulk of this many names.
    Remove(usize),
    /// A call by HTTP.
    Call,
}

impl RequestKind {
    /// Returns the approximate number of records it concerns.
    pub(crate) fn records(self) -> usize {
        match self {
            Self::Get(asked) => asked,
            Self::Set(_) | Self::Remove(_) | Self::Call => 1,
        }
    }
}

/// The server's answer. Ranges are within the buffer it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerReply {
    /// The records found, in any order.
    Records(Vec<BulkRecord>),
    /// The number of records written or removed.
    Count(usize),
    /// The answer to a call.
    Response(Response),
    /// The request failed. The server did not read the rest of it and closed the connection.
    Refused,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At least this many bytes are missing; one or more.
    More(usize),
    /// The server violated the protocol.
    Nonsense(&'static str),
}

/// Reads the answers to some requests. Bytes are parsed once, however many pieces they arrive in.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    requests: &'a [RequestKind],
    answers: Vec<ServerReply>,
    /// The records of the answer being read, once their number is known.
    partial: Option<Partial>,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(requests: &'a [RequestKind]) -> Self {
        Self {
            requests,
            answers: Vec::with_capacity(requests.len()),
            partial: None,
            at: 0,
        }
    }

    /// Continues reading `buffer`, which begins with its earlier content. On success the answers
    /// are complete: one for each request, or fewer if the last is [`ServerReply::Refused`].
    ///
    /// # Errors
    ///
    /// [`Stop::More`] while answers are incomplete; [`Stop::Nonsense`] if they are invalid, or if
    /// bytes follow them.
    pub(crate) fn read(&mut self, buffer: &[u8]) -> Result<(), Stop> {
        while let Some((request, others)) = self.requests.split_first() {
            let mut input = Input::new(buffer, self.at);
            let answer = match *request {
                RequestKind::Get(asked) => {
                    let read = binary::records(&mut input, asked, &mut self.partial);
                    // Whole records are kept, even if the next one is incomplete.
                    self.at = input.at;
                    read?
                }
                RequestKind::Set(asked) => binary::count(&mut input, binary::SET_BULK, asked)?,
                RequestKind::Remove(asked) => {
                    binary::count(&mut input, binary::REMOVE_BULK, asked)?
                }
                RequestKind::Call => ServerReply::Response(http::response(&mut input)?),
            };
            self.at = input.at;
            self.requests = match answer {
                ServerReply::Refused => &[],
                _ => others,
            };
            self.answers.push(answer);
        }
        if self.at == buffer.len() {
            Ok(())
        } else {
            Err(Stop::Nonsense("more than was asked for"))
        }
    }

    /// Returns the answers read so far.
    pub(crate) fn into_answers(self) -> Vec<ServerReply> {
        self.answers
    }
}

/// A buffer and the position read up to.
#[derive(Debug)]
struct Input<'b> {
    buffer: &'b [u8],
    at: usize,
}

impl<'b> Input<'b> {
    fn new(buffer: &'b [u8], at: usize) -> Self {
        Self { buffer, at }
    }

    /// Returns the unread bytes.
    fn rest(&self) -> &'b [u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Reads `length` bytes and returns their range.
    fn take(&mut self, length: usize) -> Result<Range<usize>, Stop> {
        match length.checked_sub(self.rest().len()) {
            None | Some(0) => {
                let range = self.at..self.at + length;
                self.at = range.end;
                Ok(range)
            }
            Some(missing) => Err(Stop::More(missing)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let rest = self.rest();
        let array = rest
            .first_chunk()
            .ok_or(Stop::More(N - rest.len().min(N)))?;
        self.at += N;
        Ok(*array)
    }
}

//! Kyoto Tycoon's two protocols, which its server takes one after the other on one connection: it
//! tells them apart by the first byte of each request, and answers in their order.
//!
//! Requests are appended to a buffer; [`Reader`] reads the replies from one that fills.

pub(crate) mod binary;
pub(crate) mod http;

mod base64;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::binary::{BulkRecord, Partial};
use self::http::Response;

/// The longest name or value that the server takes and sends in its binary protocol, and the
/// longest body of a call: 256 MiB.
pub(crate) const MAX_DATA: usize = 1 << 28;

/// What was asked, as far as it takes to read the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A get_bulk of so many names.
    Get(usize),
    /// A set_bulk of so many records.
    Set(usize),
    /// A remove_bulk of so many names.
    Remove(usize),
    /// A call by HTTP.
    Call,
}

impl RequestKind {
    /// How many records it is about, or so.
    pub(crate) fn records(self) -> usize {
        match self {
            Self::Get(asked) => asked,
            Self::Set(_) | Self::Remove(_) | Self::Call => 1,
        }
    }
}

/// What the server answered. Ranges are of the buffer that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerReply {
    /// The records that there are, in any order.
    Records(Vec<BulkRecord>),
    /// How many records were written or removed.
    Count(usize),
    /// The answer to a call.
    Response(Response),
    /// The request failed. The server has left the rest of it unread, and hung up.
    Refused,
}

/// Why reading stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At least so many bytes are yet to come, one or more.
    More(usize),
    /// The server sent what the protocol does not allow: this.
    Nonsense(&'static str),
}

/// Reads the answers to some questions. What was read once is not looked at again, however many
/// pieces the answers come in.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    questions: &'a [RequestKind],
    answers: Vec<ServerReply>,
    /// The records of the answer that is being read, once their number is known.
    partial: Option<Partial>,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(questions: &'a [RequestKind]) -> Self {
        Self {
            questions,
            answers: Vec::with_capacity(questions.len()),
            partial: None,
            at: 0,
        }
    }

    /// Reads on in `buffer`, which begins with what it held before. Once it succeeds the answers
    /// are complete: one for each question, or fewer where the last is [`ServerReply::Refused`].
    ///
    /// # Errors
    ///
    /// [`Stop::More`] while answers are incomplete; [`Stop::Nonsense`] if they are none, or if
    /// there is more than was asked for.
    pub(crate) fn read(&mut self, buffer: &[u8]) -> Result<(), Stop> {
        while let Some((question, others)) = self.questions.split_first() {
            let mut input = Input::new(buffer, self.at);
            let answer = match *question {
                RequestKind::Get(asked) => {
                    let read = binary::records(&mut input, asked, &mut self.partial);
                    // Whole records are kept, even where the next one is still incomplete.
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
            self.questions = match answer {
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

    /// The answers that were read so far.
    pub(crate) fn into_answers(self) -> Vec<ServerReply> {
        self.answers
    }
}

/// A buffer, and how far it was read.
#[derive(Debug)]
struct Input<'b> {
    buffer: &'b [u8],
    at: usize,
}

impl<'b> Input<'b> {
    fn new(buffer: &'b [u8], at: usize) -> Self {
        Self { buffer, at }
    }

    /// What is not read yet.
    fn rest(&self) -> &'b [u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Reads so many bytes, and tells where they are.
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

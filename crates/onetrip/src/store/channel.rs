//! A connection on which one question is asked at a time, and its answer read into one buffer.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::sizes::{Sizes, room};
use super::socket::Socket;
use super::stream::{self, Reading, Stream};
use crate::wire::buffer::Buffer;

/// A connection, whatever is said over it.
#[derive(Debug)]
pub(super) struct Channel {
    stream: Stream,
    buffer: Buffer,
    sizes: Sizes,
}

impl Channel {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            stream: Stream::new(socket),
            buffer: Buffer::default(),
            sizes: Sizes::default(),
        }
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&self) -> bool {
        self.stream.is_in_step()
    }

    /// Has its end come at once when it is dropped: what was not delivered by then never is.
    pub(super) fn abort(&self) {
        self.stream.abort();
    }

    /// Lets go of the reactor: whoever polls it next may do so within another runtime.
    pub(super) fn unwatch(&mut self) {
        self.stream.unwatch();
    }

    /// Sends `question`, and leaves its answer to those who [`ask`](Self::ask) the next one.
    pub(super) async fn post(&mut self, question: Vec<u8>, until: Instant) -> io::Result<()> {
        self.stream.put(question);
        let (stream, buffer) = (&mut self.stream, &mut self.buffer);
        stream::push(stream, buffer, |buffer| buffer.room(room(0, 0)), until).await
    }

    /// Whether the last question went out to its end.
    #[cfg(feature = "kyoto")]
    pub(super) fn is_sent(&self) -> bool {
        self.stream.is_sent()
    }

    /// Whether anything came of an answer that did not come to its end.
    #[cfg(feature = "kyoto")]
    pub(super) fn has_heard(&self) -> bool {
        !self.buffer.bytes().is_empty()
    }

    /// Sends `question`, which is about so many keys, and reads its answer: all that comes, until
    /// `missing` makes out of what came so far that nothing is; otherwise it tells how many bytes
    /// are, at least. Slices of the answer hold it whole. Whoever drops it half way, or sees it fail, must drop the connection too.
    pub(super) async fn ask<B: From<io::Error>>(
        &mut self,
        question: Vec<u8>,
        keys: usize,
        until: Instant,
        missing: impl FnMut(&[u8]) -> Result<usize, B>,
    ) -> Result<Bytes, B> {
        let mut answer = ResponseReader {
            buffer: &mut self.buffer,
            expected: self.sizes.expected(keys),
            missing,
        };
        self.stream.put(question);
        stream::read(&mut self.stream, &mut answer, until).await?;
        let came = self.buffer.bytes().len();
        self.sizes.learn(keys, came);
        Ok(self.buffer.take(came))
    }
}

struct ResponseReader<'a, M> {
    buffer: &'a mut Buffer,
    expected: usize,
    missing: M,
}

impl<B: From<io::Error>, M: FnMut(&[u8]) -> Result<usize, B>> Reading for ResponseReader<'_, M> {
    type Broken = B;

    fn room(&mut self) -> Result<Option<&mut Vec<u8>>, B> {
        let came = self.buffer.bytes();
        let expected = self.expected.saturating_sub(came.len());
        Ok(match (self.missing)(came)? {
            0 => None,
            missing => Some(self.buffer.room(room(missing, expected))),
        })
    }
}

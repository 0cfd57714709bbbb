//! A connection with one request at a time, whose response is read into one buffer.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::sizes::{Sizes, room};
use super::socket::Socket;
use super::stream::{self, Reading, Stream};
use crate::wire::buffer::Buffer;

/// A connection for any protocol.
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

    /// Returns whether the server has neither closed it nor sent anything unexpected.
    pub(super) fn is_in_step(&self) -> bool {
        self.stream.is_in_step()
    }

    /// Resets the connection when it is dropped: bytes that were not delivered by then never are.
    pub(super) fn abort(&self) {
        self.stream.abort();
    }

    /// Deregisters it from the reactor: its next user may be in another runtime.
    pub(super) fn unwatch(&mut self) {
        self.stream.unwatch();
    }

    /// Sends `request` and leaves its response unread. The next [`ask`](Self::ask) reads it.
    pub(super) async fn post(&mut self, request: Vec<u8>, until: Instant) -> io::Result<()> {
        self.stream.put(request);
        let (stream, buffer) = (&mut self.stream, &mut self.buffer);
        stream::push(stream, buffer, |buffer| buffer.room(room(0, 0)), until).await
    }

    /// Returns whether the last request was sent completely.
    #[cfg(feature = "kyoto")]
    pub(super) fn is_sent(&self) -> bool {
        self.stream.is_sent()
    }

    /// Returns whether part of an incomplete response has arrived.
    #[cfg(feature = "kyoto")]
    pub(super) fn has_heard(&self) -> bool {
        !self.buffer.bytes().is_empty()
    }

    /// Sends `request`, which is about `keys` keys, and reads the response. `missing` gets the
    /// bytes so far and returns how many are missing at least, or zero at the end.
    ///
    /// Slices of the response keep all of it in memory. If the future fails or is dropped early,
    /// drop the connection too.
    pub(super) async fn ask<B: From<io::Error>>(
        &mut self,
        request: Vec<u8>,
        keys: usize,
        until: Instant,
        missing: impl FnMut(&[u8]) -> Result<usize, B>,
    ) -> Result<Bytes, B> {
        let mut response = ResponseReader {
            buffer: &mut self.buffer,
            expected: self.sizes.expected(keys),
            missing,
        };
        self.stream.put(request);
        stream::read(&mut self.stream, &mut response, until).await?;
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

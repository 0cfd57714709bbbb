//! The bytes of one connection, plain or by TLS: what is put in goes out while others come in.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::address::Endpoint;
use super::tls::{Certificates, Session};
use crate::store::socket::Socket;
use crate::store::stream::{Pull, Stream};

/// Room for sealed bytes: as much as one record holds.
const RECORD: usize = 17 << 10;

/// A connection to a server, whatever is said over it.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Stream,
    tls: Option<Box<Session>>,
}

impl Transport {
    /// Connects to the server at `place`.
    pub(super) async fn open(
        place: &Endpoint,
        certificates: Option<&Arc<Certificates>>,
    ) -> io::Result<Self> {
        let (socket, host) = match place {
            Endpoint::Host(address) => {
                let socket = Socket::tcp(&address.host, address.port).await?;
                (socket, address.host.as_str())
            }
            Endpoint::Path(path) => (Socket::unix(path).await?, ""),
        };
        let tls = certificates.map(|certificates| certificates.session(host));
        let mut link = Self {
            stream: Stream::new(socket),
            tls: tls.transpose()?.map(Box::new),
        };
        let mut plain = Vec::new();
        if let Some(tls) = &mut link.tls {
            tls.drain(link.stream.out())?;
        }
        while link.tls.as_ref().is_some_and(|tls| tls.is_shaking_hands()) {
            std::future::poll_fn(|context| link.poll_pull(context, &mut plain)).await?;
        }
        Ok(link)
    }

    /// Has `bytes` sent by those who pull.
    pub(super) fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        match &mut self.tls {
            None => {
                self.stream.put(bytes);
                Ok(())
            }
            Some(tls) => {
                tls.seal(&bytes)?;
                tls.drain(self.stream.out())
            }
        }
    }

    /// Has its end come at once when it is dropped: what was not delivered by then never is.
    pub(super) fn abort(&self) {
        self.stream.abort();
    }

    /// Lets go of the reactor: whoever polls it next may do so within another runtime.
    pub(super) fn unwatch(&mut self) {
        self.stream.unwatch();
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&mut self) -> bool {
        let Some(tls) = &mut self.tls else {
            return self.stream.is_in_step();
        };
        // By TLS something may be said that is no answer, such as a new key.
        while !self.stream.is_in_step() {
            let mut plain = Vec::new();
            let pulled = self.stream.pull_now(room(tls.received()));
            let opened = pulled.and_then(|()| open(tls, &mut self.stream, &mut plain));
            if opened.is_err() || !plain.is_empty() {
                return false;
            }
        }
        true
    }
}

impl Pull for Transport {
    fn pull_waiting(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.stream.pull_waiting(buffer, until);
        };
        self.stream.pull_waiting(room(tls.received()), until)?;
        open(tls, &mut self.stream, buffer)
    }

    fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else {
            return self.stream.poll_pull(context, buffer);
        };
        ready!(self.stream.poll_pull(context, room(tls.received())))?;
        Poll::Ready(open(tls, &mut self.stream, buffer))
    }

    fn poll_push(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<bool>> {
        let Some(tls) = &mut self.tls else {
            return self.stream.poll_push(context, buffer);
        };
        let is_sent = ready!(self.stream.poll_push(context, room(tls.received())))?;
        if !is_sent {
            open(tls, &mut self.stream, buffer)?;
        }
        Poll::Ready(Ok(is_sent))
    }
}

/// Opens what was received, and has sent what that is to be answered with.
fn open(tls: &mut Session, stream: &mut Stream, plain: &mut Vec<u8>) -> io::Result<()> {
    tls.open(plain)?;
    tls.drain(stream.out())
}

/// `buffer`, with room for a record.
fn room(buffer: &mut Vec<u8>) -> &mut Vec<u8> {
    buffer.reserve(RECORD);
    buffer
}

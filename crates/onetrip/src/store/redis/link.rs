//! The bytes of one connection, plain or by TLS: what is put in goes out while others come in.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::address::Place;
use super::tls::{Certificates, Session};
use crate::store::socket::Socket;

/// Room for sealed bytes: as much as one record holds.
const RECORD: usize = 17 << 10;

/// A connection to a server, whatever is said over it.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    tls: Option<Box<Session>>,
    out: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Connects to the server at `place`.
    pub(super) async fn open(
        place: &Place,
        certificates: Option<&Arc<Certificates>>,
    ) -> io::Result<Self> {
        let (socket, host) = match place {
            Place::Host(address) => {
                let socket = Socket::tcp(&address.host, address.port).await?;
                (socket, address.host.as_str())
            }
            Place::Path(path) => (Socket::unix(path).await?, ""),
        };
        let tls = certificates.map(|certificates| certificates.session(host));
        let mut link = Self {
            socket,
            tls: tls.transpose()?.map(Box::new),
            out: Vec::new(),
            sent: 0,
        };
        link.drain()?;
        let mut plain = Vec::new();
        while link.tls.as_ref().is_some_and(|tls| tls.is_shaking_hands()) {
            std::future::poll_fn(|context| link.poll_pull(context, &mut plain)).await?;
        }
        Ok(link)
    }

    /// Has `bytes` sent by those who pull.
    pub(super) fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.seal(&bytes)?;
            self.drain()
        } else {
            if self.is_sent() {
                (self.out, self.sent) = (bytes, 0);
            } else {
                self.out.extend_from_slice(&bytes);
            }
            Ok(())
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        if self.is_sent() {
            self.out.clear();
            self.sent = 0;
        }
        match &mut self.tls {
            Some(tls) => tls.drain(&mut self.out),
            None => Ok(()),
        }
    }

    fn is_sent(&self) -> bool {
        self.sent == self.out.len()
    }

    fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Sends what waits, and appends what came to `buffer`, which must have room; holds up this
    /// thread for it. What came may be nothing yet.
    pub(super) fn pull_waiting(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<()> {
        loop {
            while !self.is_sent() {
                match self.socket.send(self.unsent()) {
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            let is_sent = self.is_sent();
            let place = self.tls.as_mut().map(|tls| room(tls.received()));
            let place = place.unwrap_or(&mut *buffer);
            let received = if is_sent {
                self.socket.receive_waiting(place, until)?
            } else {
                // A server that waits for its answers to be read reads no more itself.
                self.socket.wait(until)?;
                match self.socket.receive(place) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    received => received?,
                }
            };
            return self.came(received, buffer);
        }
    }

    /// The same, for one who must not hold up its thread.
    pub(super) fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        while !self.is_sent() {
            let unsent = self.out.get(self.sent..).unwrap_or_default();
            match self.socket.poll_send(context, unsent) {
                Poll::Ready(sent) => self.sent += sent?,
                Poll::Pending => break,
            }
        }
        let place = self.tls.as_mut().map(|tls| room(tls.received()));
        let place = place.unwrap_or(&mut *buffer);
        let received = ready!(self.socket.poll_receive(context, place))?;
        Poll::Ready(self.came(received, buffer))
    }

    /// Opens what was received.
    fn came(&mut self, received: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(tls) = &mut self.tls {
            tls.open(buffer)?;
            self.drain()?;
        }
        Ok(())
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&mut self) -> bool {
        let mut plain = Vec::new();
        loop {
            let place = self.tls.as_mut().map(|tls| room(tls.received()));
            // Asked of the socket itself: an idle runtime has not yet heard what became of it.
            let received = match place {
                Some(place) => self.socket.receive(place),
                None => self.socket.receive(room(&mut plain)),
            };
            match received {
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                // By TLS something may be said that is no answer, such as a new key.
                Ok(received) if self.tls.is_some() => {
                    if self.came(received, &mut plain).is_err() || !plain.is_empty() {
                        return false;
                    }
                }
                Ok(_) => return false,
            }
        }
    }
}

/// `buffer`, with room for a record.
fn room(buffer: &mut Vec<u8>) -> &mut Vec<u8> {
    buffer.reserve(RECORD);
    buffer
}

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

/// The most room that is kept for what is sent next.
const MOST_KEPT: usize = 128 << 10;

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
        self.let_go();
        match &mut self.tls {
            Some(tls) => tls.drain(&mut self.out),
            None => Ok(()),
        }
    }

    /// Forgets what was sent, and the memory of it if that is much.
    fn let_go(&mut self) {
        if self.is_sent() {
            self.out.clear();
            self.out.shrink_to(MOST_KEPT);
            self.sent = 0;
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
        self.let_go();
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
        loop {
            // Asked of the socket itself: an idle runtime has not yet heard what became of it.
            match (self.socket.peek(), &mut self.tls) {
                (Err(error), _) => return error.kind() == io::ErrorKind::WouldBlock,
                (Ok(0), _) | (Ok(_), None) => return false,
                // By TLS something may be said that is no answer, such as a new key.
                (Ok(_), Some(tls)) => {
                    let mut plain = Vec::new();
                    let received = self.socket.receive(room(tls.received()));
                    let opened = received.and_then(|received| self.came(received, &mut plain));
                    if opened.is_err() || !plain.is_empty() {
                        return false;
                    }
                }
            }
        }
    }
}

/// `buffer`, with room for a record.
fn room(buffer: &mut Vec<u8>) -> &mut Vec<u8> {
    buffer.reserve(RECORD);
    buffer
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// As much as no socket holds.
    const MUCH: usize = 4 << 20;

    /// A link, and a server behind it that gives back what it takes, piece by piece, and so reads
    /// no more when nobody reads what it gives.
    fn echo() -> Link {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length) = theirs.read(&mut piece) {
                if length == 0 || theirs.write_all(&piece[..length]).is_err() {
                    return;
                }
            }
        });
        Link {
            socket: Socket::new(ours.into()),
            tls: None,
            out: Vec::new(),
            sent: 0,
        }
    }

    fn much() -> Vec<u8> {
        (0..MUCH).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn a_server_that_waits_for_its_answers_to_be_read_holds_up_nobody() {
        let mut link = echo();
        let until = Instant::now() + Duration::from_secs(600);
        let mut came = Vec::with_capacity(MUCH);
        link.put(much()).unwrap();
        while came.len() < MUCH {
            link.pull_waiting(&mut came, until).unwrap();
        }
        assert!(came == much());
        assert!(link.is_in_step());
    }

    #[test]
    fn nor_a_task() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let mut link = echo();
            let mut came = Vec::with_capacity(MUCH);
            link.put(much()).unwrap();
            while came.len() < MUCH {
                std::future::poll_fn(|context| link.poll_pull(context, &mut came))
                    .await
                    .unwrap();
            }
            assert!(came == much());
            assert!(link.is_in_step());
        });
    }

    #[test]
    fn nobody_is_waited_for_in_vain() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(ours.into());
        let began = Instant::now();
        for patience in [20, 5, 30] {
            let until = Instant::now() + Duration::from_millis(patience);
            let mut buffer = Vec::with_capacity(10);
            let error = socket.receive_waiting(&mut buffer, until).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(
                socket.wait(began).unwrap_err().kind(),
                io::ErrorKind::TimedOut
            );
        }
    }
}

//! A socket that a future waits for, or a thread that nothing else runs on.
//!
//! A blocking caller polls its trip on a thread of its own. To hold it up is two system calls, one
//! that sends and one that waits for what is received; a reactor takes twice as many.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an address of several is waited for, as RFC 8305 has it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A connected socket. It blocks by itself, and is asked not to wherever that must not be.
#[derive(Debug)]
pub(super) struct Socket {
    fd: Arc<OwnedFd>,
    /// The reactor's eye on it, from the first time that it is needed.
    watch: Option<AsyncFd<Arc<OwnedFd>>>,
    /// How long a read waits.
    patience: Duration,
}

impl Socket {
    /// Connects to `host`, one of its addresses after the other. One that does not answer is not
    /// waited for as long as there is another.
    pub(super) async fn tcp(host: &str, port: u16) -> io::Result<Self> {
        let mut addresses = lookup_host((host, port)).await?.peekable();
        let mut trouble = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let stream = loop {
            let Some(address) = addresses.next() else {
                return Err(trouble);
            };
            let patience = addresses.peek().map_or(Duration::MAX, |_| NEXT_ADDRESS);
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => break stream,
                Ok(Err(error)) => trouble = error,
                Err(elapsed) => trouble = elapsed.into(),
            }
        };
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Self::new(stream.into()))
    }

    /// Connects to the socket at `path`.
    #[cfg(any(feature = "memcached", feature = "redis"))]
    pub(super) async fn unix(path: &std::path::Path) -> io::Result<Self> {
        let stream = tokio::net::UnixStream::connect(path).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Self::new(stream.into()))
    }

    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Arc::new(fd),
            watch: None,
            patience: Duration::MAX,
        }
    }

    /// Sends what the system takes at once.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(&self.fd, bytes, flags)?)
    }

    /// Appends to `buffer` what is there, as far as it has room.
    pub(super) fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = spare_capacity(buffer);
        Ok(rustix::net::recv(&self.fd, room, RecvFlags::DONTWAIT)?.0)
    }

    /// Whether nothing came that was not received, no end and no error either.
    pub(super) fn is_quiet(&self) -> bool {
        // To look with `recv` takes the system several times as long.
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                ready => return ready == Ok(0),
            }
        }
    }

    /// As [`receive`](Self::receive), holding up this thread until there is something.
    pub(super) fn receive_waiting(
        &mut self,
        buffer: &mut Vec<u8>,
        until: Instant,
    ) -> io::Result<usize> {
        // Nobody is to be woken.
        self.watch = None;
        loop {
            self.be_patient(until)?;
            match rustix::net::recv(&self.fd, spare_capacity(buffer), RecvFlags::empty()) {
                Ok((received, _)) => return Ok(received),
                Err(Errno::INTR) => {}
                // It waited in vain.
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has a read wait no longer than `until`, or a little: asking the clock is enough mostly.
    fn be_patient(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if left > self.patience || self.patience - left > self.patience / 16 {
            // The system takes nought for ever, and counts microseconds.
            let patience = left.max(Duration::from_micros(1));
            set_socket_timeout(&self.fd, Timeout::Recv, Some(patience))?;
            self.patience = left;
        }
        Ok(())
    }

    /// Holds up this thread until something can be sent or received.
    pub(super) fn wait(&self, until: Instant) -> io::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN | PollFlags::OUT)];
            match rustix::event::poll(&mut fds, Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets go of the reactor: whoever polls it next may do so within another runtime.
    pub(super) fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Has its end come at once when it is dropped: what was not delivered by then never is.
    pub(super) fn abort(&self) {
        // Otherwise the system goes on trying, and a write may arrive after its name was deleted.
        let _ = set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    fn watch(&mut self) -> io::Result<&mut AsyncFd<Arc<OwnedFd>>> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            watch => Ok(watch.insert(register(Arc::clone(&self.fd))?)),
        }
    }

    /// Sends once that is possible. To be polled within the runtime that it was first polled in.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.watch()?.poll_write_ready(context))?.clear_ready();
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Receives once something is there. As above.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let room = buffer.capacity() - buffer.len();
            let mut ready = ready!(self.watch()?.poll_read_ready(context))?;
            let flags = RecvFlags::DONTWAIT;
            match rustix::net::recv(ready.get_inner(), spare_capacity(buffer), flags) {
                Ok((received, _)) => {
                    // There was no more: the next read need not find that out by trying.
                    if received > 0 && received < room {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

#[expect(
    unsafe_code,
    reason = "what is watched must stay open for as long: it owns the file, and gives it to nobody"
)]
fn register(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open and the same until it is dropped, and this `Arc` is held by the
    // `AsyncFd` itself, which never gives it out mutably.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for_in_vain() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
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

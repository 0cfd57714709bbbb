//! A socket for futures that wait by the reactor, and for callers that block their thread.
//!
//! A blocking caller polls its trip on its own thread. Blocking takes two system calls, one that
//! sends and one that waits for the response; a reactor takes twice as many.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long to wait for an address before trying the next one, as in RFC 8305.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A connected socket in blocking mode. Calls that must not block pass a flag.
#[derive(Debug)]
pub(super) struct Socket {
    fd: Arc<OwnedFd>,
    /// The registration with the reactor, made at first need.
    watch: Option<AsyncFd<Arc<OwnedFd>>>,
    /// The receive timeout that the system knows.
    patience: Duration,
}

impl Socket {
    /// Connects to `host`, trying its addresses in order. Gives up an address early if it does not
    /// answer and there is another one.
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
        broken_pipe::set_up(&fd);
        Self {
            fd: Arc::new(fd),
            watch: None,
            patience: Duration::MAX,
        }
    }

    /// Sends as many bytes as the system accepts at once.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.fd, bytes, broken_pipe::FLAGS)?)
    }

    /// Appends to `buffer` the bytes that have arrived, as far as it has room.
    pub(super) fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = spare_capacity(buffer);
        Ok(rustix::net::recv(&self.fd, room, RecvFlags::DONTWAIT)?.0)
    }

    /// Returns whether there is nothing to receive: no bytes, no end of stream and no error.
    pub(super) fn is_quiet(&self) -> bool {
        // Peeking with `recv` takes several times as long.
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                ready => return ready == Ok(0),
            }
        }
    }

    /// Receives as [`receive`](Self::receive), but blocks this thread until bytes arrive.
    pub(super) fn receive_waiting(
        &mut self,
        buffer: &mut Vec<u8>,
        until: Instant,
    ) -> io::Result<usize> {
        // No task waits for it, so the reactor need not wake one.
        self.watch = None;
        loop {
            self.set_receive_timeout(until)?;
            match rustix::net::recv(&self.fd, spare_capacity(buffer), RecvFlags::empty()) {
                Ok((received, _)) => return Ok(received),
                Err(Errno::INTR) => {}
                // The receive timeout has passed.
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Limits a blocking read to about `until`. Mostly the timeout set before is near enough, which
    /// saves a system call.
    fn set_receive_timeout(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if left > self.patience || self.patience - left > self.patience / 16 {
            // The system counts microseconds, and zero means forever.
            let patience = left.max(Duration::from_micros(1));
            set_socket_timeout(&self.fd, Timeout::Recv, Some(patience))?;
            self.patience = left;
        }
        Ok(())
    }

    /// Blocks this thread until something can be sent or received.
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

    /// Deregisters it from the reactor: its next user may be in another runtime.
    pub(super) fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Resets the connection when it is dropped: bytes that were not delivered by then never are.
    pub(super) fn abort(&self) {
        // Otherwise the system keeps retrying, and a write may arrive after its name was deleted.
        let _ = set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    fn watch(&mut self) -> io::Result<&mut AsyncFd<Arc<OwnedFd>>> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            watch => Ok(watch.insert(register(Arc::clone(&self.fd))?)),
        }
    }

    /// Sends once the system accepts bytes. Must be polled in the runtime that first polled it.
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

    /// Receives once bytes arrive. Must be polled in the runtime that first polled it.
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
                    // A short read emptied the socket, so the next read need not try.
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

/// Sending to a server that closed is an error, and no signal that ends the process.
#[cfg(not(target_vendor = "apple"))]
mod broken_pipe {
    use std::os::fd::OwnedFd;

    use rustix::net::SendFlags;

    pub(super) const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

    pub(super) fn set_up(_fd: &OwnedFd) {}
}

/// As above, where it is asked of the socket and not of each call.
#[cfg(target_vendor = "apple")]
mod broken_pipe {
    use std::os::fd::OwnedFd;

    use rustix::net::SendFlags;
    use rustix::net::sockopt::set_socket_nosigpipe;

    pub(super) const FLAGS: SendFlags = SendFlags::DONTWAIT;

    pub(super) fn set_up(fd: &OwnedFd) {
        // Refused only of what is no socket any more, which sends nothing either.
        let _ = set_socket_nosigpipe(fd, true);
    }
}

#[expect(
    unsafe_code,
    reason = "a registered file must stay open: the `AsyncFd` owns it and never lends it mutably"
)]
fn register(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped. The `AsyncFd` holds this
    // `Arc` and never lends it mutably.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_silent_server_times_out() {
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

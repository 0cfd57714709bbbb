//! Sending over a socket while receiving: a server that waits for its responses to be read stops
//! reading requests.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::socket::Socket;
use crate::blocking_runtimes::{self, PollMode};

/// The largest send buffer that is kept for reuse.
const MOST_KEPT: usize = 128 << 10;

/// The longest patience, thirty years: more could overflow an `Instant`.
const LONG: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Returns the moment when `patience` ends.
pub(super) fn until(patience: Duration) -> Instant {
    Instant::now() + patience.min(LONG)
}

/// A connection that receives while it sends the bytes put into it.
pub(super) trait Pull {
    /// Sends waiting bytes, and appends received bytes to `buffer`, which must have room. Blocks
    /// this thread. May receive nothing.
    fn pull_waiting(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<()>;

    /// Does the same without blocking the thread.
    fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<()>>;

    /// Sends waiting bytes without waiting for a response. Returns whether all are sent. If the
    /// system's buffer is full, appends received bytes to `buffer`, which must have room: the
    /// server may read no more until they are read. Poll it again then.
    fn poll_push(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<bool>>;
}

/// A response that arrives piece by piece.
pub(super) trait Reading {
    /// The error of a response that cannot be completed.
    type Broken: From<io::Error>;

    /// Parses the bytes so far. Returns the buffer for the next bytes, with room for them; `None`
    /// once the response is complete.
    fn room(&mut self) -> Result<Option<&mut Vec<u8>>, Self::Broken>;
}

/// Reads a response to its end. Blocks the thread if no other future needs it; otherwise uses the
/// reactor.
pub(super) async fn read<R: Reading>(
    from: &mut impl Pull,
    reading: &mut R,
    until: Instant,
) -> Result<(), R::Broken> {
    if blocking_runtimes::poll_mode() == PollMode::Exclusive {
        while let Some(buffer) = reading.room()? {
            from.pull_waiting(buffer, until)?;
        }
        return Ok(());
    }
    let read = std::future::poll_fn(|context| {
        while let Some(buffer) = reading.room()? {
            ready!(from.poll_pull(context, buffer))?;
        }
        Poll::Ready(Ok(()))
    });
    let read = timeout_at(until.into(), read).await;
    read.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Sends the bytes put into `to`, without waiting for a response. `room` makes room for bytes that
/// arrive meanwhile.
pub(super) async fn push<P: Pull, B>(
    to: &mut P,
    buffer: &mut B,
    room: impl Fn(&mut B) -> &mut Vec<u8>,
    until: Instant,
) -> io::Result<()> {
    let sent = std::future::poll_fn(|context| {
        while !ready!(to.poll_push(context, room(buffer)))? {}
        Poll::Ready(Ok(()))
    });
    let sent = timeout_at(until.into(), sent).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A connected socket with a send buffer.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    out: Vec<u8>,
    sent: usize,
    /// The error that ended sending. The server may have sent an explanation before it closed the
    /// connection.
    trouble: Option<io::Error>,
}

impl Stream {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            out: Vec::new(),
            sent: 0,
            trouble: None,
        }
    }

    /// Adds `bytes` to the send buffer.
    pub(super) fn put(&mut self, bytes: Vec<u8>) {
        if self.is_sent() {
            (self.out, self.sent) = (bytes, 0);
        } else {
            self.out.extend_from_slice(&bytes);
        }
    }

    /// Returns the send buffer, to append to.
    #[cfg(feature = "redis")]
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.clear_sent();
        &mut self.out
    }

    /// Resets the connection when it is dropped: bytes that were not delivered by then never are.
    pub(super) fn abort(&self) {
        self.socket.abort();
    }

    /// Deregisters it from the reactor: its next user may be in another runtime.
    pub(super) fn unwatch(&mut self) {
        self.socket.unwatch();
    }

    /// Returns whether the send buffer is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.out.len()
    }

    fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Clears the send buffer once it is sent, and frees its memory beyond [`MOST_KEPT`].
    fn clear_sent(&mut self) {
        if self.is_sent() {
            self.out.clear();
            self.out.shrink_to(MOST_KEPT);
            self.sent = 0;
        }
    }

    /// Returns whether the server has neither closed it nor sent anything unexpected.
    pub(super) fn is_in_step(&self) -> bool {
        // Asks the socket itself: the reactor of an idle runtime has not polled it.
        self.socket.is_quiet()
    }

    /// Appends to `buffer` the bytes that have arrived.
    pub(super) fn pull_now(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let received = self.socket.receive(buffer);
        self.came(received)
    }

    fn came(&mut self, received: io::Result<usize>) -> io::Result<()> {
        let error = match received {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {
                self.clear_sent();
                return Ok(());
            }
            Err(error) => error,
        };
        Err(self.trouble.take().unwrap_or(error))
    }
}

impl Pull for Stream {
    fn pull_waiting(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<()> {
        loop {
            while !self.is_sent() && self.trouble.is_none() {
                match self.socket.send(self.unsent()) {
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => self.trouble = Some(error),
                }
            }
            if self.trouble.is_some() {
                return self.pull_now(buffer);
            }
            let received = if self.is_sent() {
                self.socket.receive_waiting(buffer, until)
            } else {
                self.socket.wait(until)?;
                self.socket.receive(buffer)
            };
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return self.came(received),
            }
        }
    }

    fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        while !self.is_sent() && self.trouble.is_none() {
            let unsent = self.out.get(self.sent..).unwrap_or_default();
            match self.socket.poll_send(context, unsent) {
                Poll::Ready(Ok(sent)) => self.sent += sent,
                Poll::Ready(Err(error)) => self.trouble = Some(error),
                Poll::Pending => break,
            }
        }
        if self.trouble.is_some() {
            return Poll::Ready(self.pull_now(buffer));
        }
        let received = ready!(self.socket.poll_receive(context, buffer));
        Poll::Ready(self.came(received))
    }

    fn poll_push(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<bool>> {
        while !self.is_sent() {
            let unsent = self.out.get(self.sent..).unwrap_or_default();
            match self.socket.poll_send(context, unsent) {
                Poll::Ready(sent) => self.sent += sent?,
                Poll::Pending => {
                    let received = ready!(self.socket.poll_receive(context, buffer));
                    return Poll::Ready(self.came(received).map(|()| false));
                }
            }
        }
        self.clear_sent();
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// More bytes than any socket buffers.
    const MUCH: usize = 4 << 20;

    /// Returns a stream to a server that echoes. It stops reading while its output is not read.
    fn echo() -> Stream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length) = theirs.read(&mut piece) {
                if length == 0 || theirs.write_all(&piece[..length]).is_err() {
                    return;
                }
            }
        });
        Stream::new(Socket::new(ours.into()))
    }

    fn much() -> Vec<u8> {
        (0..MUCH).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn blocking_send_and_receive_do_not_deadlock() {
        let mut stream = echo();
        let until = until(Duration::from_secs(600));
        let mut came = Vec::with_capacity(MUCH);
        stream.put(much());
        while came.len() < MUCH {
            stream.pull_waiting(&mut came, until).unwrap();
        }
        assert!(came == much());
        assert!(stream.is_in_step());
    }

    #[test]
    fn polled_send_and_receive_do_not_deadlock() {
        run(async {
            let mut stream = echo();
            let mut came = Vec::with_capacity(MUCH);
            stream.put(much());
            while came.len() < MUCH {
                std::future::poll_fn(|context| stream.poll_pull(context, &mut came))
                    .await
                    .unwrap();
            }
            assert!(came == much());
            assert!(stream.is_in_step());
        });
    }

    /// Sends more bytes than any socket buffers, and reads only as much as it must.
    async fn pushed(stream: &mut Stream, came: &mut Vec<u8>, patience: Duration) -> io::Result<()> {
        stream.put(much());
        fn room(came: &mut Vec<u8>) -> &mut Vec<u8> {
            came.reserve(1 << 16);
            came
        }
        push(stream, came, room, until(patience)).await
    }

    fn run(work: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn responses_to_pushed_bytes_are_read_later() {
        let (mut stream, mut came) = (echo(), Vec::new());
        run(async {
            let patience = Duration::from_secs(600);
            pushed(&mut stream, &mut came, patience).await.unwrap();
        });
        assert!(stream.is_sent());
        assert!(came.len() < MUCH, "pushing waited for the whole response");
        // In the reactor of another runtime.
        stream.unwatch();
        run(async {
            came.reserve(MUCH);
            while came.len() < MUCH {
                std::future::poll_fn(|context| stream.poll_pull(context, &mut came))
                    .await
                    .unwrap();
            }
        });
        assert!(came == much());
        assert!(stream.is_in_step());
    }

    #[test]
    fn pushing_to_a_server_that_reads_nothing_times_out() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (mut stream, mut came) = (Stream::new(Socket::new(ours.into())), Vec::new());
        run(async {
            let pushed = pushed(&mut stream, &mut came, Duration::from_millis(20)).await;
            assert_eq!(pushed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    /// Returns a stream whose server has sent a refusal without reading, and closed.
    fn refused() -> Stream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"no").unwrap();
        drop(theirs);
        let mut stream = Stream::new(Socket::new(ours.into()));
        stream.put(much());
        stream
    }

    #[test]
    fn bytes_sent_before_a_close_are_received_blocking() {
        let (mut stream, mut came) = (refused(), Vec::with_capacity(10));
        let until = until(Duration::MAX);
        stream.pull_waiting(&mut came, until).unwrap();
        assert_eq!(came, b"no");
        let error = stream.pull_waiting(&mut came, until).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!stream.is_sent());
        assert!(!stream.is_in_step());
    }

    #[test]
    fn bytes_sent_before_a_close_are_received_by_a_task() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let (mut stream, mut came) = (refused(), Vec::with_capacity(10));
            let mut pulled =
                async || std::future::poll_fn(|context| stream.poll_pull(context, &mut came)).await;
            pulled().await.unwrap();
            let error = pulled().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(came, b"no");
        });
    }
}

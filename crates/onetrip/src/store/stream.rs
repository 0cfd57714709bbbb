//! What goes out over a socket while something else comes in: a server that waits for its answers to
//! be read reads no more itself.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::socket::Socket;
use crate::blocking_runtimes::{self, PollMode};

/// The most room that is kept for what is sent next.
const MOST_KEPT: usize = 128 << 10;

/// A patience beyond this many seconds, thirty years, is as good as this.
const LONG: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// When `patience` ends.
pub(super) fn until(patience: Duration) -> Instant {
    Instant::now() + patience.min(LONG)
}

/// Where bytes come from, while those that were put in go out.
pub(super) trait Pull {
    /// Sends what waits, and appends what came to `buffer`, which must have room; holds up this
    /// thread for it. What came may be nothing yet.
    fn pull_waiting(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<()>;

    /// The same, for one who must not hold up its thread.
    fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<()>>;

    /// Sends what waits, and waits for no answer: whether all is sent. Where the system takes no
    /// more, appends what came meanwhile to `buffer`, which must have room, and is to be polled
    /// again: a server may read no more until that is read.
    fn poll_push(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<bool>>;
}

/// An answer that comes piece by piece.
pub(super) trait Reading {
    /// Why it never will be whole.
    type Broken: From<io::Error>;

    /// Understands what came so far. Where to append what comes next, with room for it; `None`
    /// once all is there.
    fn room(&mut self) -> Result<Option<&mut Vec<u8>>, Self::Broken>;
}

/// Reads an answer to its end: in the system where nobody else needs this thread, by a reactor
/// where others do.
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

/// Sends what was put in, and waits for no answer. `room` makes room for what comes meanwhile.
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

/// A connected socket, and what is yet to be sent over it.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    out: Vec<u8>,
    sent: usize,
    /// Why no more can be sent. A server that hung up may have told why before.
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

    /// Has `bytes` sent by those who pull.
    pub(super) fn put(&mut self, bytes: Vec<u8>) {
        if self.is_sent() {
            (self.out, self.sent) = (bytes, 0);
        } else {
            self.out.extend_from_slice(&bytes);
        }
    }

    /// Where to append what is to be sent by those who pull.
    #[cfg(feature = "redis")]
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.let_go();
        &mut self.out
    }

    /// Has its end come at once when it is dropped: what was not delivered by then never is.
    pub(super) fn abort(&self) {
        self.socket.abort();
    }

    /// Lets go of the reactor: whoever polls it next may do so within another runtime.
    pub(super) fn unwatch(&mut self) {
        self.socket.unwatch();
    }

    /// Whether all that was put in is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.out.len()
    }

    fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Forgets what was sent, and the memory of it if that is much.
    fn let_go(&mut self) {
        if self.is_sent() {
            self.out.clear();
            self.out.shrink_to(MOST_KEPT);
            self.sent = 0;
        }
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&self) -> bool {
        // Asked of the socket itself: an idle runtime has not yet heard what became of it.
        self.socket.is_quiet()
    }

    /// Appends to `buffer` what is there.
    pub(super) fn pull_now(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let received = self.socket.receive(buffer);
        self.came(received)
    }

    fn came(&mut self, received: io::Result<usize>) -> io::Result<()> {
        let error = match received {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {
                self.let_go();
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
        self.let_go();
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// As much as no socket holds.
    const MUCH: usize = 4 << 20;

    /// A stream, and a server behind it that gives back what it takes, piece by piece, and so reads
    /// no more when nobody reads what it gives.
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
    fn a_server_that_waits_for_its_answers_to_be_read_holds_up_nobody() {
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
    fn nor_a_task() {
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

    /// Sends as much as no socket holds, and reads nothing more than it has to.
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
    fn what_is_pushed_is_read_later() {
        let (mut stream, mut came) = (echo(), Vec::new());
        run(async {
            let patience = Duration::from_secs(600);
            pushed(&mut stream, &mut came, patience).await.unwrap();
        });
        assert!(stream.is_sent());
        assert!(came.len() < MUCH, "it was not waited for");
        // By a reactor of another runtime.
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
    fn a_server_that_takes_nothing_is_not_pushed_for_ever() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (mut stream, mut came) = (Stream::new(Socket::new(ours.into())), Vec::new());
        run(async {
            let pushed = pushed(&mut stream, &mut came, Duration::from_millis(20)).await;
            assert_eq!(pushed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    /// A stream whose server has refused what it did not want to read, and hung up.
    fn refused() -> Stream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"no").unwrap();
        drop(theirs);
        let mut stream = Stream::new(Socket::new(ours.into()));
        stream.put(much());
        stream
    }

    #[test]
    fn what_a_server_said_before_it_hung_up_is_heard() {
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
    fn and_by_a_task() {
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

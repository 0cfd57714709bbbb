//! One connection: requests go out while answers come in.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::plan::Batch;
use crate::wire::kyoto::{Answer, Reader, Stop};

/// The least room to read into: an answer about one entry mostly takes less.
const LEAST_ROOM: usize = 4 << 10;

/// Room that is made at once for what a reply says will follow. More than this only comes as
/// bytes come, so that a false length costs nobody memory.
const MOST_ROOM: usize = 1 << 20;

/// A connection. It is in step between exchanges, and only then.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Whether it was idle since its last exchange. The server may have closed it meanwhile.
    pub(super) reused: bool,
    /// Whether all that was asked has been answered, and no more.
    pub(super) in_step: bool,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection broke. Whether a part of the answers had come.
    Io(io::Error, bool),
    Nonsense(&'static str),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Nonsense(what) => Self::Nonsense(what),
            Stop::More(_) => Self::Nonsense("less than was asked for"),
        }
    }
}

impl Connection {
    pub(super) async fn open(host: &str, port: u16, patience: Duration) -> io::Result<Self> {
        let connect = TcpStream::connect((host, port));
        let stream = tokio::time::timeout(patience, connect).await??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            reused: false,
            in_step: true,
        })
    }

    /// The same, after it was idle.
    pub(super) fn reused(mut self) -> Self {
        self.reused = true;
        self
    }

    /// Whether all was answered, and the server has neither closed it since nor said anything
    /// unasked.
    pub(super) fn is_in_step(&self) -> bool {
        // Asked of the socket itself: an idle runtime has not yet heard what became of it.
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let seen = SockRef::from(&self.stream).peek(&mut byte);
        self.in_step && seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a batch and reads its answers: one for each question, unless one is a refusal, which
    /// is the last.
    ///
    /// Both go on at once: a server that waits for us to read does not read on itself.
    pub(super) async fn exchange(&mut self, batch: &Batch) -> Result<(Vec<Answer>, Bytes), Broken> {
        // Until the end of this exchange, which may be dropped at any point.
        self.in_step = false;
        let mut out = batch.bytes.as_slice();
        let mut reader = Reader::new(&batch.questions);
        let mut buffer = BytesMut::with_capacity(LEAST_ROOM);
        std::future::poll_fn(|context| self.poll(context, &mut out, &mut reader, &mut buffer))
            .await?;
        let answers = reader.into_answers();
        self.reused = false;
        self.in_step = out.is_empty()
            && !answers.iter().any(|answer| match answer {
                Answer::Refused => true,
                Answer::Response(response) => response.closes,
                _ => false,
            });
        Ok((answers, buffer.freeze()))
    }

    fn poll(
        &self,
        context: &mut Context<'_>,
        out: &mut &[u8],
        reader: &mut Reader<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<(), Broken>> {
        // A server that refuses hangs up before it has read everything, and its answer may still
        // be there to read: only the reading half tells what happened.
        let mut unsent = None;
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(sent) => *out = out.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.stream.poll_write_ready(context) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            unsent = Some(error);
                            break;
                        }
                    }
                }
                Err(error) => {
                    unsent = Some(error);
                    break;
                }
            }
        }
        loop {
            let missing = match reader.read(buffer) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(Stop::Nonsense(what)) => return Poll::Ready(Err(Broken::Nonsense(what))),
                Err(Stop::More(missing)) => missing,
            };
            if buffer.capacity() - buffer.len() < missing.min(MOST_ROOM) {
                buffer.reserve(missing.clamp(LEAST_ROOM, MOST_ROOM.max(buffer.len())));
            }
            let broke = match self.stream.try_read_buf(buffer) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.stream.poll_read_ready(context) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(error)) => error,
                        Poll::Pending if unsent.is_none() => return Poll::Pending,
                        Poll::Pending => io::ErrorKind::BrokenPipe.into(),
                    }
                }
                Err(error) => error,
            };
            let cause = unsent.unwrap_or(broke);
            return Poll::Ready(Err(Broken::Io(cause, !buffer.is_empty())));
        }
    }
}

//! One connection to one server.

use std::io;

use bytes::BytesMut;
use futures_util::future::try_join;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use crate::wire::memcached::{self as wire, Answer, Answers, Command, Nonsense, Progress};

/// Room for each answer, of which a batch shares some. Values keep the room that they came in.
const ROOM: usize = 4 << 10;
const SHARED_ROOM: usize = 64 << 10;

/// The most room that is made at a time: a server that promises a large value gets memory as it
/// sends it.
const MOST_ROOM: usize = 256 << 10;

/// A connection that is in step: nothing is on the wire.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: BytesMut,
    opaque: u64,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    Nonsense(Nonsense),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Nonsense> for Broken {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense)
    }
}

impl Connection {
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
            opaque: 0,
        })
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&self) -> bool {
        // Asked of the socket itself: an idle runtime has not yet heard what became of it.
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let seen = match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Stream::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends commands about keys and reads their answers, in one exchange. Whoever drops it half
    /// way, or sees it fail, must drop the connection too.
    pub(super) async fn exchange(
        &mut self,
        commands: &[(&[u8], Command<'_>)],
    ) -> Result<Vec<Answer>, Broken> {
        let mut question = BytesMut::new();
        let first = self.opaque;
        for (key, command) in commands {
            wire::write(&mut question, key, command, self.opaque);
            self.opaque = self.opaque.wrapping_add(1);
        }
        wire::write_end(&mut question);
        let mut answers = Answers::new(first, commands.len());
        let room = (commands.len() * ROOM).min(SHARED_ROOM);
        let buffer = &mut self.buffer;
        match &mut self.stream {
            Stream::Tcp(stream) => {
                let (reader, writer) = stream.split();
                exchange(reader, writer, &question, buffer, room, &mut answers).await?;
            }
            Stream::Unix(stream) => {
                let (reader, writer) = stream.split();
                exchange(reader, writer, &question, buffer, room, &mut answers).await?;
            }
        }
        Ok(answers.into_answers())
    }
}

/// Writes and reads at once: a server that waits for its answers to be read reads no more itself.
async fn exchange(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    question: &[u8],
    buffer: &mut BytesMut,
    room: usize,
    answers: &mut Answers,
) -> Result<(), Broken> {
    let write = async { Ok(writer.write_all(question).await?) };
    let read = async {
        while let Progress::Missing(bytes) = answers.feed(buffer)? {
            buffer.reserve(bytes.clamp(room, MOST_ROOM));
            if reader.read_buf(buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    };
    try_join(write, read).await.map(|_| ())
}

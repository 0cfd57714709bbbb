//! One connection to one server.

use std::io;
use std::time::Instant;

use super::address::Address;
use crate::store::channel::Channel;
use crate::store::socket::Socket;
use crate::wire::memcached::{self as wire, Answer, Answers, Command, Nonsense, Progress};

/// A connection that is in step: nothing is on the wire.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    opaque: u64,
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
        let socket = match address {
            Address::Tcp(host, port) => Socket::tcp(host, *port).await?,
            Address::Unix(path) => Socket::unix(path).await?,
        };
        Ok(Self {
            channel: Channel::new(socket),
            opaque: 0,
        })
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&self) -> bool {
        self.channel.is_in_step()
    }

    /// Sends commands about keys and reads their answers, in one exchange. Whoever drops it half
    /// way, or sees it fail, must drop the connection too.
    pub(super) async fn exchange<'a, C: Iterator<Item = (&'a [u8], Command<'a>)> + Clone>(
        &mut self,
        commands: C,
        until: Instant,
    ) -> Result<impl Iterator<Item = Answer> + use<'a, C>, Broken> {
        let sizes = commands
            .clone()
            .map(|(key, command)| wire::size(key, &command));
        let mut question = Vec::with_capacity(sizes.sum());
        let (first, mut count) = (self.opaque, 0);
        for (key, command) in commands {
            wire::write(&mut question, key, &command, self.opaque);
            self.opaque = self.opaque.wrapping_add(1);
            count += 1;
        }
        wire::write_end(&mut question);
        let mut answers = Answers::new(first, count);
        let read = |came: &[u8]| match answers.read(came)? {
            Progress::Missing(bytes) => Ok(bytes),
            Progress::Done => Ok::<_, Broken>(0),
        };
        let came = self.channel.ask(question, count, until, read).await?;
        Ok(answers.into_answers(came))
    }

    /// Sends one command, and reads its answer.
    pub(super) async fn one(
        &mut self,
        key: &[u8],
        command: Command<'_>,
        until: Instant,
    ) -> Result<Answer, Broken> {
        let only = std::iter::once((key, command));
        let mut answers = self.exchange(only, until).await?;
        Ok(answers.next().ok_or(Nonsense("no answer"))?)
    }
}

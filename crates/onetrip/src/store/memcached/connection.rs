//! One connection to one server.

use std::io;
use std::time::Instant;

use super::address::Address;
use crate::store::channel::Channel;
use crate::store::posted::Park;
use crate::store::socket::Socket;
use crate::wire::memcached::{self as wire, Command, Nonsense, Progress, Response, Responses};

/// A connection that is in step: nothing is on the wire.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    opaque: u64,
    /// How many commands were posted: their answers come before those of what is asked next.
    unread: usize,
}

impl Park for Connection {
    fn unwatch(&mut self) {
        self.channel.unwatch();
    }

    fn abort(&self) {
        self.channel.abort();
    }
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
            unread: 0,
        })
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&self) -> bool {
        self.channel.is_in_step()
    }

    /// How many commands were posted whose answers are not read.
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// Sends commands, and leaves their answers unread. Whoever drops it half way, or sees it fail,
    /// must drop the connection too.
    pub(super) async fn post<'a>(
        &mut self,
        commands: impl Iterator<Item = (&'a [u8], Command<'a>)> + Clone,
        until: Instant,
    ) -> Result<(), Broken> {
        let (question, count) = self.question(commands);
        self.unread += count;
        Ok(self.channel.post(question, until).await?)
    }

    /// Reads the answers to what was posted.
    pub(super) async fn read_posted(
        &mut self,
        until: Instant,
    ) -> Result<impl Iterator<Item = Response> + use<>, Broken> {
        let first = self.opaque.wrapping_sub(self.unread as u64);
        let answers = Responses::of_posted(first, self.unread);
        self.read(Vec::new(), answers, self.unread, until).await
    }

    /// Sends commands about keys and reads their answers in one exchange, behind those that are
    /// `unread`. Whoever drops it half way, or sees it fail, must drop the connection too.
    pub(super) async fn exchange<'a, C: Iterator<Item = (&'a [u8], Command<'a>)> + Clone>(
        &mut self,
        commands: C,
        until: Instant,
    ) -> Result<impl Iterator<Item = Response> + use<'a, C>, Broken> {
        let first = self.opaque.wrapping_sub(self.unread as u64);
        let (mut question, count) = self.question(commands);
        wire::write_end(&mut question);
        let count = self.unread + count;
        let answers = Responses::new(first, count);
        self.read(question, answers, count, until).await
    }

    /// The bytes of commands, and how many there are.
    fn question<'a>(
        &mut self,
        commands: impl Iterator<Item = (&'a [u8], Command<'a>)> + Clone,
    ) -> (Vec<u8>, usize) {
        let sizes = commands
            .clone()
            .map(|(key, command)| wire::size(key, &command));
        let mut question = Vec::with_capacity(sizes.sum());
        let mut count = 0;
        for (key, command) in commands {
            wire::write(&mut question, key, &command, self.opaque);
            self.opaque = self.opaque.wrapping_add(1);
            count += 1;
        }
        (question, count)
    }

    async fn read(
        &mut self,
        question: Vec<u8>,
        mut answers: Responses,
        count: usize,
        until: Instant,
    ) -> Result<impl Iterator<Item = Response> + use<>, Broken> {
        let read = |came: &[u8]| match answers.read(came)? {
            Progress::Missing(bytes) => Ok(bytes),
            Progress::Done => Ok::<_, Broken>(0),
        };
        let came = self.channel.ask(question, count, until, read).await?;
        self.unread = 0;
        Ok(answers.into_answers(came))
    }

    /// Sends one command, and reads its answer.
    pub(super) async fn one(
        &mut self,
        key: &[u8],
        command: Command<'_>,
        until: Instant,
    ) -> Result<Response, Broken> {
        let only = std::iter::once((key, command));
        let mut answers = self.exchange(only, until).await?;
        Ok(answers.next().ok_or(Nonsense("no answer"))?)
    }
}

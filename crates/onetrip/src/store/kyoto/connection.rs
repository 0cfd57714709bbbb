//! One connection: requests go out while answers come in.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::plan::Pipeline;
use crate::store::channel::Channel;
use crate::store::posted::Park;
use crate::store::socket::Socket;
use crate::wire::kyoto::{Reader, RequestKind, ServerReply, Stop};

/// A connection. It is in step between exchanges, and only then.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    /// Whether it was idle since its last exchange. The server may have closed it meanwhile.
    reused: bool,
    /// Whether all that was asked has been answered, and no more.
    pub(super) in_step: bool,
    /// What was posted: its answers come before those of what is asked next.
    unread: Vec<RequestKind>,
    /// Whether the last exchange began with reading those.
    behind: bool,
}

impl Park for Connection {
    fn unwatch(&mut self) {
        self.channel.unwatch();
    }

    fn abort(&self) {
        self.channel.abort();
    }
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    Nonsense(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
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
        let socket = timeout(patience, Socket::tcp(host, port)).await??;
        Ok(Self {
            channel: Channel::new(socket),
            reused: false,
            in_step: true,
            unread: Vec::new(),
            behind: false,
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
        self.in_step && self.channel.is_in_step()
    }

    /// Whether its exchange may have `broken` because the server had closed it while it was idle.
    pub(super) fn was_closed(&self, broken: &Broken) -> bool {
        let ended = matches!(broken, Broken::Io(error) if error.kind() != io::ErrorKind::TimedOut);
        ended && (self.behind || self.reused && !self.channel.has_heard())
    }

    /// What was posted whose answers are not read.
    pub(super) fn unread(&self) -> &[RequestKind] {
        &self.unread
    }

    /// Sends a batch, and leaves its answers unread.
    ///
    /// Not with the protocol's flag that asks for no answer: nothing else tells when a write has
    /// happened, and that what follows on another connection may leave.
    pub(super) async fn post(&mut self, batch: Pipeline, until: Instant) -> Result<(), Broken> {
        self.in_step = false;
        self.unread.extend(batch.questions);
        self.channel.post(batch.bytes, until).await?;
        self.in_step = true;
        Ok(())
    }

    /// Sends a batch and reads its answers: one for each question, unless one is a refusal, which
    /// is the last. Before them come those to what is `unread`.
    pub(super) async fn exchange(
        &mut self,
        batch: Pipeline,
        until: Instant,
    ) -> Result<(Vec<ServerReply>, Bytes), Broken> {
        // Until the end of this exchange, which may be dropped at any point.
        self.in_step = false;
        self.behind = !self.unread.is_empty();
        let questions = if self.behind {
            [&self.unread[..], &batch.questions].concat()
        } else {
            batch.questions
        };
        let keys = questions.iter().map(|question| question.records());
        let keys = keys.sum();
        let mut reader = Reader::new(&questions);
        let missing = |came: &[u8]| match reader.read(came) {
            Ok(()) => Ok(0),
            Err(Stop::More(bytes)) => Ok(bytes),
            Err(nonsense) => Err(Broken::from(nonsense)),
        };
        let came = self.channel.ask(batch.bytes, keys, until, missing).await?;
        let answers = reader.into_answers();
        self.unread.clear();
        self.reused = false;
        self.in_step = self.channel.is_sent()
            && !answers.iter().any(|answer| match answer {
                ServerReply::Refused => true,
                ServerReply::Response(response) => response.closes,
                _ => false,
            });
        Ok((answers, came))
    }
}

//! One connection to one server, and what is said over it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::address::{Door, Greeting};
use super::transport::Transport;
use crate::store::posted::Park;
use crate::store::sizes::{MOST_ROOM, Sizes, room};
use crate::store::stream::{self, Reading};
use crate::wire::digits::Digits;
use crate::wire::redis::{Commands, Nonsense, Reader, ServerError, Value};

/// A connection that is in step: nothing is on the wire.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Transport,
    pub(super) reader: Reader,
    pub(super) sizes: Sizes,
    /// How many primaries there were before the one that this leads to.
    pub(super) term: u64,
    /// When an exchange on it last ended well.
    pub(super) used: Instant,
    /// How many commands were posted: their answers come before those of what is asked next.
    pub(super) unread: usize,
}

/// Why an exchange failed, and with it its connection.
#[derive(Clone, Debug)]
pub(super) enum Broken {
    /// Before anything was sent: it was closed while it was idle.
    Stale,
    Io(Arc<io::Error>),
    Timeout,
    Nonsense(&'static str),
    /// The server lets nobody in, or not with this login.
    Refused(ServerError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<Nonsense> for Broken {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense.0)
    }
}

impl Park for Box<Connection> {
    fn unwatch(&mut self) {
        self.link.unwatch();
    }

    fn abort(&self) {
        self.link.abort();
    }
}

impl Connection {
    /// Connects, and shows what the server is to see.
    pub(super) async fn open(door: &Door, patience: Duration) -> Result<Self, Broken> {
        let until = stream::until(patience);
        let opening = Transport::open(&door.place, door.greeting.certificates.as_ref());
        let link = timeout_at(until.into(), opening).await;
        let mut connection = Self {
            link: link.map_err(|_| Broken::Timeout)??,
            reader: Reader::default(),
            sizes: Sizes::default(),
            term: 0,
            used: Instant::now(),
            unread: 0,
        };
        let (commands, needed) = introduction(&door.greeting);
        let answers = connection.exchange(commands, until).await?;
        // An old server does not care what a client is called.
        for answer in answers.into_iter().take(needed) {
            match answer {
                Value::Error(refusal) => {
                    // A server that knows no AUTH says again what it was told.
                    let password = door.greeting.password.as_deref().unwrap_or_default();
                    return Err(Broken::Refused(refusal.without(password)));
                }
                answer if answer.is_ok() => {}
                _ => return Err(Broken::Nonsense("no answer to a login")),
            }
        }
        Ok(connection)
    }

    /// Whether the server neither closed it nor said anything unasked.
    pub(super) fn is_in_step(&mut self) -> bool {
        self.link.is_in_step()
    }

    /// Sends commands, and leaves their answers unread. Whoever drops it half way, or sees it fail,
    /// must drop the connection too.
    pub(super) async fn post(&mut self, commands: Commands, until: Instant) -> Result<(), Broken> {
        self.unread += commands.count;
        self.link.put(commands.bytes)?;
        let (link, reader) = (&mut self.link, &mut self.reader);
        Ok(stream::push(link, reader, |reader| reader.room(room(0, 0)), until).await?)
    }

    /// Sends commands and reads what they are answered with, behind what those were that are
    /// `unread`. Whoever drops it half way, or sees it fail, must drop the connection too.
    pub(super) async fn exchange(
        &mut self,
        commands: Commands,
        until: Instant,
    ) -> Result<Vec<Value>, Broken> {
        let mut answers = Responses {
            reader: &mut self.reader,
            count: self.unread + commands.count,
            expected: self.sizes.expected(commands.weight),
            taken: 0,
            values: Vec::new(),
        };
        self.link.put(commands.bytes)?;
        stream::read(&mut self.link, &mut answers, until).await?;
        self.unread = 0;
        self.sizes.learn(commands.weight, answers.taken);
        Ok(answers.values)
    }
}

/// The answer to one command.
pub(super) fn only(answers: Vec<Value>) -> Result<Value, Broken> {
    let answer = answers.into_iter().next();
    answer.ok_or(Broken::Nonsense("too few replies"))
}

/// The answers to some commands, as far as they have come.
struct Responses<'a> {
    reader: &'a mut Reader,
    count: usize,
    expected: usize,
    /// How many bytes the values were.
    taken: usize,
    values: Vec<Value>,
}

impl Responses<'_> {
    fn take(&mut self) -> Result<(), Broken> {
        let held = self.reader.held();
        let mut values = self.reader.take()?;
        self.taken += held - self.reader.held();
        if self.values.is_empty() {
            self.values = values;
        } else {
            self.values.append(&mut values);
        }
        Ok(())
    }
}

impl Reading for Responses<'_> {
    type Broken = Broken;

    fn room(&mut self) -> Result<Option<&mut Vec<u8>>, Broken> {
        let missing = self.reader.scan()?;
        if self.values.len() + self.reader.whole() < self.count {
            // What came in one buffer is held together.
            if self.reader.held() >= MOST_ROOM {
                self.take()?;
            }
            let came = self.taken + self.reader.held();
            let expected = self.expected.saturating_sub(came);
            return Ok(Some(self.reader.room(room(missing, expected))));
        }
        self.take()?;
        if self.values.len() > self.count || self.reader.held() > 0 {
            return Err(Broken::Nonsense("more than was asked for"));
        }
        Ok(None)
    }
}

/// What a server is told first, and how many of its answers matter.
fn introduction(greeting: &Greeting) -> (Commands, usize) {
    let mut commands = Commands::default();
    match (&greeting.username, &greeting.password) {
        (Some(username), password) => {
            let password = password.as_deref().unwrap_or_default();
            commands.put(&[b"AUTH", username.as_bytes(), password.as_bytes()]);
        }
        (None, Some(password)) => commands.put(&[b"AUTH", password.as_bytes()]),
        (None, None) => {}
    }
    if greeting.db > 0 {
        commands.put(&[b"SELECT", Digits::of(greeting.db).as_ref()]);
    }
    let needed = commands.count;
    for (what, told) in [
        ("LIB-NAME", "onetrip"),
        ("LIB-VER", env!("CARGO_PKG_VERSION")),
    ] {
        commands.put(&[b"CLIENT", b"SETINFO", what.as_bytes(), told.as_bytes()]);
    }
    (commands, needed)
}

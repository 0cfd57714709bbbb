//! One connection to one server, and what is said over it.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::address::{Door, Greeting};
use super::link::Link;
use crate::lanes::{self, Seat};
use crate::wire::redis::{Commands, Digits, Nonsense, Reader, ServerError, Value};

/// The least room to receive into.
const LEAST_ROOM: usize = 512;

/// Room for what each key is answered with, as long as nothing was learned.
const ROOM: usize = 2 << 10;

/// The most room that is made at a time: what a server promises gets memory as it comes.
const MOST_ROOM: usize = 256 << 10;

/// The same where so much came before.
const MOST_EXPECTED: usize = 2 << 20;

/// A connection that is in step: nothing is on the wire.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) reader: Reader,
    pub(super) sizes: Sizes,
    /// How many primaries there were before the one that this leads to.
    pub(super) term: u64,
    /// When an exchange on it last ended well.
    pub(super) used: Instant,
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

impl Connection {
    /// Connects, and shows what the server is to see.
    pub(super) async fn open(door: &Door, patience: Duration) -> Result<Self, Broken> {
        let until = Instant::now() + patience;
        let opening = Link::open(&door.place, door.greeting.certificates.as_ref());
        let link = timeout_at(until.into(), opening).await;
        let mut connection = Self {
            link: link.map_err(|_| Broken::Timeout)??,
            reader: Reader::default(),
            sizes: Sizes::default(),
            term: 0,
            used: Instant::now(),
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

    /// Sends commands and reads what they are answered with. Whoever drops it half way, or sees it
    /// fail, must drop the connection too.
    pub(super) async fn exchange(
        &mut self,
        commands: Commands,
        until: Instant,
    ) -> Result<Vec<Value>, Broken> {
        let mut reading = Reading {
            count: commands.count,
            expected: self.sizes.expected(commands.weight),
            came: 0,
            values: Vec::new(),
        };
        self.link.put(commands.bytes)?;
        if lanes::seat() == Seat::Alone {
            while let Some(room) = reading.go_on(&mut self.reader)? {
                let buffer = self.reader.room(room);
                let before = buffer.len();
                self.link.pull_waiting(buffer, until)?;
                reading.came += buffer.len() - before;
            }
        } else {
            let reading = std::future::poll_fn(|context| self.poll(context, &mut reading));
            let read = timeout_at(until.into(), reading).await;
            read.map_err(|_| Broken::Timeout)??;
        }
        self.sizes.learn(commands.weight, reading.came);
        Ok(reading.values)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        reading: &mut Reading,
    ) -> Poll<Result<(), Broken>> {
        while let Some(room) = reading.go_on(&mut self.reader)? {
            let buffer = self.reader.room(room);
            let before = buffer.len();
            let pulled = ready!(self.link.poll_pull(context, buffer));
            reading.came += buffer.len() - before;
            pulled?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The answer to one command.
pub(super) fn only(answers: Vec<Value>) -> Result<Value, Broken> {
    let answer = answers.into_iter().next();
    answer.ok_or(Broken::Nonsense("too few replies"))
}

/// How far the answers to some commands have come.
struct Reading {
    count: usize,
    expected: usize,
    came: usize,
    values: Vec<Value>,
}

impl Reading {
    /// How much room the next bytes need; `None` if all is read.
    fn go_on(&mut self, reader: &mut Reader) -> Result<Option<usize>, Broken> {
        let missing = reader.scan()?;
        if self.values.len() + reader.whole() < self.count {
            // What came in one buffer is held together.
            if reader.held() >= MOST_ROOM {
                self.values.append(&mut reader.take()?);
            }
            return Ok(Some(room(missing, self.expected.saturating_sub(self.came))));
        }
        if self.values.is_empty() {
            self.values = reader.take()?;
        } else {
            self.values.append(&mut reader.take()?);
        }
        if self.values.len() > self.count || reader.held() > 0 {
            return Err(Broken::Nonsense("more than was asked for"));
        }
        Ok(None)
    }
}

/// Room to receive into where so many bytes are missing and so many are expected.
pub(super) fn room(missing: usize, expected: usize) -> usize {
    let expected = expected.min(MOST_EXPECTED);
    missing.min(MOST_ROOM).max(expected).max(LEAST_ROOM)
}

/// What exchanges brought before, by the number of keys that they were about, in powers of two:
/// bytes for each.
#[derive(Debug, Default)]
pub(super) struct Sizes([u32; 16]);

impl Sizes {
    fn of(&mut self, weight: usize) -> Option<&mut u32> {
        let class = weight.max(1).ilog2() as usize;
        let class = class.min(self.0.len() - 1);
        self.0.get_mut(class)
    }

    /// How many bytes to expect.
    pub(super) fn expected(&mut self, weight: usize) -> usize {
        match self.of(weight) {
            Some(&mut bytes) if bytes > 0 => {
                let all = weight.saturating_mul(bytes as usize);
                all + all / 8 + 16
            }
            _ => weight.saturating_mul(ROOM).min(MOST_ROOM),
        }
    }

    /// Keeps the most that came, and forgets it by and by.
    pub(super) fn learn(&mut self, weight: usize, bytes: usize) {
        let each = u32::try_from(bytes / weight.max(1) + 1).unwrap_or(u32::MAX);
        if let Some(size) = self.of(weight) {
            *size = each.max(*size - *size / 8);
        }
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

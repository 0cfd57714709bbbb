//! The primary of a service, found by asking its sentinels whenever a connection is made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::address::{Door, Greeting};
use super::commands::{failure, nonsense, refused};
use super::connection::{Broken, Connection, only};
use super::slots::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::store::stream::until;
use crate::wire::redis::{Commands, Value};

/// The sentinels of a service.
#[derive(Debug)]
pub(super) struct Sentinel {
    sentinels: Vec<Door>,
    /// The one that answered last. The others may hang.
    first: AtomicUsize,
    /// The longest that each of them may take: so short that all can be asked within the time for
    /// connecting.
    share: Duration,
    service: String,
    greeting: Greeting,
    label: Arc<str>,
    connect_timeout: Duration,
    /// What the connections of this process agree on: one that finds a new primary takes the
    /// others along, which would read what the old one still holds.
    primary: PerProcess<Mutex<Primary>>,
}

#[derive(Debug, Default)]
struct Primary {
    address: Option<Address>,
    /// How many there were before it.
    term: u64,
}

impl Sentinel {
    pub(super) fn new(
        sentinels: Vec<Door>,
        service: String,
        greeting: Greeting,
        label: Arc<str>,
        connect_timeout: Duration,
    ) -> Self {
        let shares = u32::try_from(sentinels.len()).unwrap_or(u32::MAX);
        Self {
            sentinels,
            first: AtomicUsize::new(0),
            share: connect_timeout / shares.saturating_add(1),
            service,
            greeting,
            label,
            connect_timeout,
            primary: PerProcess::default(),
        }
    }

    /// Whether connections of this term lead to the primary, as far as this process knows.
    pub(super) fn is_current(&self, term: u64) -> bool {
        self.primary(|primary| primary.term == term)
    }

    fn primary<T>(&self, look: impl FnOnce(&mut Primary) -> T) -> T {
        self.primary
            .with(|primary| look(&mut primary.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A connection to the primary.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let found = tokio::time::timeout(self.connect_timeout, self.find());
        found.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} has no primary that answers in time; see connect_timeout",
                    self.label
                ),
            ))
        })
    }

    async fn find(&self) -> Result<Connection> {
        let first = self.first.load(Ordering::Relaxed);
        let order = (0..self.sentinels.len()).map(|turn| (first + turn) % self.sentinels.len());
        let mut tried: Vec<Address> = Vec::new();
        let mut trouble = None;
        for place in order {
            let Some(sentinel) = self.sentinels.get(place) else {
                continue;
            };
            let address = match self.ask(sentinel).await {
                Ok(address) => address,
                Err(error) => {
                    trouble.get_or_insert(error);
                    continue;
                }
            };
            if tried.contains(&address) {
                continue;
            }
            match self.reach(&address).await {
                Ok(mut connection) => {
                    self.first.store(place, Ordering::Relaxed);
                    connection.term = self.term_of(address);
                    return Ok(connection);
                }
                // What became of the primary says more than a sentinel that is away.
                Err(error) => trouble = Some(error),
            }
            tried.push(address);
        }
        Err(trouble.unwrap_or_else(|| self.unavailable("has no sentinel to ask")))
    }

    /// The primary's address, as one sentinel knows it.
    async fn ask(&self, sentinel: &Door) -> Result<Address> {
        let label = format!("a sentinel of {}", self.label);
        let name: [&[u8]; 3] = [
            b"SENTINEL",
            b"get-master-addr-by-name",
            self.service.as_bytes(),
        ];
        let asked = async {
            let mut connection = Connection::open(sentinel, self.share).await?;
            say(&mut connection, &name, self.share).await
        };
        match asked.await.map_err(|broken| failure(&label, broken))? {
            Value::Error(error) => Err(refused(&label, error)),
            Value::Nil => Err(self.unavailable(
                "is not known to the sentinel that was asked; is the service named right?",
            )),
            told => address(&told).ok_or_else(|| nonsense(&label, "no address")),
        }
    }

    /// Connects to the server at `address`, if it is a primary by its own account too.
    async fn reach(&self, address: &Address) -> Result<Connection> {
        let label = format!("{} (at {address})", self.label);
        let door = self.greeting.door(address);
        let asked = async {
            let mut connection = Connection::open(&door, self.connect_timeout).await?;
            let role = say(&mut connection, &[b"ROLE"], self.connect_timeout).await?;
            Ok((connection, role))
        };
        let (connection, role) = asked.await.map_err(|broken| failure(&label, broken))?;
        let is_primary = match role {
            Value::Array(told) => told.first().and_then(Value::text) == Some("master"),
            // A user who may not ask finds out by the first write that is refused.
            Value::Error(error) if error.code() == "NOPERM" => true,
            Value::Error(error) => return Err(refused(&label, error)),
            _ => false,
        };
        if is_primary {
            Ok(connection)
        } else {
            Err(self.unavailable(&format!(
                "has no primary just now: {address} says that it is none"
            )))
        }
    }

    fn term_of(&self, address: Address) -> u64 {
        let (term, is_new) = self.primary(|primary| {
            let is_new = primary.address.as_ref() != Some(&address);
            if is_new {
                primary.term += u64::from(primary.address.is_some());
                primary.address = Some(address.clone());
            }
            (primary.term, is_new)
        });
        if is_new {
            log::info!("the primary of {} is {address}", self.label);
        }
        term
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} {why}", self.label))
    }
}

async fn say(
    connection: &mut Connection,
    words: &[&[u8]],
    patience: Duration,
) -> Result<Value, Broken> {
    let answers = connection.exchange(Commands::one(words), until(patience));
    only(answers.await?)
}

/// What a sentinel told: a host and a port.
fn address(told: &Value) -> Option<Address> {
    let Value::Array(told) = told else {
        return None;
    };
    let [host, port] = told.as_slice() else {
        return None;
    };
    Some(Address {
        host: host.text()?.to_owned(),
        port: port.text()?.parse().ok()?,
    })
}

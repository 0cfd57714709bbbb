//! The primary of a service, found by asking its sentinels whenever a connection is made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ServerErrorKind, Value};

use super::address::Greeting;
use super::commands::failure;
use super::slots::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;

/// The sentinels of a service.
#[derive(Debug)]
pub(super) struct Sentinel {
    sentinels: Vec<Client>,
    /// The one that answered last. The others may hang.
    first: AtomicUsize,
    config: AsyncConnectionConfig,
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
        sentinels: Vec<Client>,
        service: String,
        greeting: Greeting,
        label: Arc<str>,
        connect_timeout: Duration,
    ) -> Self {
        // So short that every one of them can be asked within the time for connecting.
        let shares = u32::try_from(sentinels.len()).unwrap_or(u32::MAX);
        let share = connect_timeout / shares.saturating_add(1);
        Self {
            sentinels,
            first: AtomicUsize::new(0),
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(share))
                .set_response_timeout(Some(share)),
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

    /// A connection to the primary, and its term.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, u64)> {
        let found = tokio::time::timeout(self.connect_timeout, self.find(config));
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

    async fn find(&self, config: &AsyncConnectionConfig) -> Result<(MultiplexedConnection, u64)> {
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
            match self.reach(&address, config).await {
                Ok(connection) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok((connection, self.term_of(address)));
                }
                // What became of the primary says more than a sentinel that is away.
                Err(error) => trouble = Some(error),
            }
            tried.push(address);
        }
        Err(trouble.unwrap_or_else(|| self.unavailable("has no sentinel to ask")))
    }

    /// The primary's address, as one sentinel knows it.
    async fn ask(&self, sentinel: &Client) -> Result<Address> {
        let lost = |error| failure(&format!("a sentinel of {}", self.label), &error);
        let mut connection = sentinel
            .get_multiplexed_async_connection_with_config(&self.config)
            .await
            .map_err(lost)?;
        let mut command = redis::cmd("SENTINEL");
        let answer: Option<(String, u16)> = command
            .arg("get-master-addr-by-name")
            .arg(&self.service)
            .query_async(&mut connection)
            .await
            .map_err(lost)?;
        let (host, port) = answer.ok_or_else(|| {
            self.unavailable(
                "is not known to the sentinel that was asked; is the service named right?",
            )
        })?;
        Ok(Address { host, port })
    }

    /// Connects to the server at `address`, if it is a primary by its own account too.
    async fn reach(
        &self,
        address: &Address,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection> {
        let lost = |error| failure(&format!("{} (at {address})", self.label), &error);
        let client = self.greeting.client(address)?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(config)
            .await
            .map_err(lost)?;
        let role: Result<Value, _> = redis::cmd("ROLE").query_async(&mut connection).await;
        let is_primary = match role {
            Ok(Value::Array(told)) => {
                matches!(told.first(), Some(Value::BulkString(role)) if role == b"master")
            }
            Ok(_) => false,
            // A user who may not ask finds out by the first write that is refused.
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm) => true,
            Err(error) => return Err(lost(error)),
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

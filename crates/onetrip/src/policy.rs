//! What each operation means, within a scope and without one: pure, and written once.
//!
//! An operation is a [`Step`]: either it is answered from the scope at once, or it has a [`Trip`]
//! to make and knows what to make of the replies. The faces of the cache (asynchronous, blocking,
//! Python's) differ only in how they make that trip.

mod reads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::codec::Decode;
use crate::context::Context;
use crate::entry::{BadEntry, Content, Kind, Name, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, Keyspace};
use crate::learn::Learner;
use crate::pages::PageMode;
use crate::scope::{Leaving, Scope};
use crate::stats::Counters;
use crate::trip::{Op, Replies, Reply, Trip, Ttl};

/// Longer than this, an entry might as well live until it is evicted. A store's own arithmetic
/// overflows somewhere beyond.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long an entry is to live, as a caller says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeout {
    /// As long as the cache's own default.
    #[default]
    Default,
    /// Until it is evicted.
    Never,
    /// For a span of time. Zero stores nothing, and removes what was there.
    After(Duration),
}

impl From<Duration> for Timeout {
    fn from(span: Duration) -> Self {
        Self::After(span)
    }
}

/// The next thing to do for an operation.
pub enum Step<T, F: FnOnce(Replies) -> T> {
    /// It is answered.
    Done(T),
    /// A trip has to be made; the function makes the answer of its replies.
    Ask(Trip, F),
}

/// The meaning of a cache's operations, as its options say.
pub struct Policy {
    pub(crate) keyspace: Keyspace,
    pub(crate) sealer: Sealer,
    pub(crate) record_sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) timeout: Ttl,
    pub(crate) max_age: Duration,
    pub(crate) defer_writes: bool,
    pub(crate) disabled: bool,
    pub(crate) page_mode: PageMode,
    pub(crate) learner: Learner,
}

/// The value of a read, if there is one.
type Found<D> = Option<<D as Decode>::Value>;

/// The lifetime of a write, decided.
#[derive(Clone, Copy)]
enum Life {
    Lives(Ttl),
    Over,
}

impl Policy {
    /// The entry of a value under `key`. `encode` appends the payload and tells its kind.
    ///
    /// # Errors
    ///
    /// Those of `encode`; [`ErrorKind::Serialization`] if this cache stores bytes alone and this
    /// is something else.
    pub fn seal<E: From<Error>>(
        &self,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, E>,
    ) -> Result<Bytes, E> {
        let mut draft = self.sealer.draft();
        let kind = encode(&mut draft)?;
        if self.sealer.is_bare() && kind != Kind::Bytes {
            return Err(Error::new(
                ErrorKind::Serialization,
                format!(
                    "{:?} cannot be cached: the raw serializer stores bytes alone; encode the value to bytes, or use the native serializer",
                    key::display(key)
                ),
            )
            .into());
        }
        Ok(self.sealer.seal(self.name(key), kind, draft))
    }

    fn name<'a>(&'a self, key: &'a [u8]) -> Name<'a> {
        Name {
            prefix: self.keyspace.prefix(),
            key,
        }
    }

    pub(crate) fn open(&self, key: &[u8], entry: &Bytes) -> Result<Content, BadEntry> {
        self.sealer.open(self.name(key), entry)
    }

    fn life(&self, timeout: Timeout) -> Life {
        let ttl = match timeout {
            Timeout::Default => self.timeout,
            Timeout::Never => None,
            Timeout::After(span) => Some(span),
        };
        match ttl {
            Some(Duration::ZERO) => Life::Over,
            ttl => Life::Lives(ttl.filter(|span| *span < FOREVER)),
        }
    }

    /// A scope for code in `at`: the one that is open there, or a new one that the caller closes.
    #[must_use]
    pub fn enter(&self, at: &Context) -> (Arc<Scope>, bool) {
        match at.scope() {
            Some(scope) if scope.is_open() => (Arc::clone(scope), false),
            _ => (Arc::new(Scope::new(self.clock.clone(), self.max_age)), true),
        }
    }

    /// Reads many keys into `scope` at once, those that it does not hold already.
    pub fn preload<'a, K: AsRef<[u8]>>(
        &'a self,
        scope: &'a Arc<Scope>,
        keys: &'a [K],
    ) -> Step<(), impl FnOnce(Replies) + 'a> {
        let (wanted, ticket) = scope.wanted(keys);
        if wanted.is_empty() || self.disabled {
            return Step::Done(());
        }
        let names: Vec<Bytes> = self.keyspace.names(wanted.iter().copied()).collect();
        let reads = names.iter().cloned().map(|name| Op::Get { name });
        let mut trip: Trip = reads.collect();
        let ahead = self.ahead(Some(scope), &wanted, &mut trip);
        Step::Ask(trip, move |mut replies: Replies| {
            self.arrive(Some(scope), ahead, &mut replies);
            let answers = names
                .into_iter()
                .zip(replies)
                .filter_map(|(name, reply)| match reply {
                    Reply::Entry(entry) => Some((self.keyspace.key(name), entry)),
                    // Unknown is not absent: such a key is asked for again when it is read.
                    _ => None,
                });
            scope.keep_all(ticket, answers);
        })
    }

    /// Ends `scope`: all that was written in it leaves together.
    pub fn close(&self, scope: &Scope) -> Step<(), impl FnOnce(Replies) + use<>> {
        self.learn_visits(scope);
        self.send_off(scope.close())
    }

    /// Sends what was written in `scope` so far. The scope goes on, and keeps what it knows.
    pub fn flush(&self, scope: &Scope) -> Step<(), impl FnOnce(Replies) + use<>> {
        self.send_off(scope.settle())
    }

    fn send_off(&self, leaving: Vec<(Bytes, Leaving)>) -> Step<(), impl FnOnce(Replies) + use<>> {
        if leaving.is_empty() {
            return Step::Done(());
        }
        let trip = leaving
            .into_iter()
            .map(|(key, write)| self.leave(&key, write))
            .collect();
        Step::Ask(trip, |_| ())
    }

    fn leave(&self, key: &[u8], leaving: Leaving) -> Op {
        let name = self.keyspace.name(key);
        match leaving {
            Leaving::Set(entry, ttl) => Op::Set { name, entry, ttl },
            Leaving::Delete => Op::Delete { name },
        }
    }
}

//! What each operation means, within a scope and without one: pure, and written once.
//!
//! An operation is a [`Step`]: either it is answered from the scope at once, or it has a [`Trip`]
//! to make and knows what to make of the replies. The faces of the cache (asynchronous, blocking,
//! Python's) differ only in how they make that trip.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::codec::Decode;
use crate::context::Context;
use crate::entry::{BadEntry, Content, Kind, Name, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, Keyspace};
use crate::learn::Learner;
use crate::pages::PageMode;
use crate::scope::{Leaving, Lookup, Scope, Ticket};
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
        let names = self.keyspace.names(&wanted);
        let mut trip: Trip = names.map(|name| Op::Get { name }).collect();
        let ahead = self.ahead(Some(scope), &wanted, &mut trip);
        Step::Ask(trip, move |mut replies: Replies| {
            self.arrive(Some(scope), ahead, &mut replies);
            let answers = wanted
                .into_iter()
                .zip(replies)
                .filter_map(|(key, reply)| match reply {
                    Reply::Entry(entry) => Some((key, entry)),
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

    fn send_off(
        &self,
        leaving: Vec<(Box<[u8]>, Leaving)>,
    ) -> Step<(), impl FnOnce(Replies) + use<>> {
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

    /// What the scope says of `key`; `None` where the store has to be asked.
    pub(crate) fn held<D: Decode>(
        &self,
        at: &Context,
        key: &[u8],
        decode: &D,
    ) -> Option<Option<D::Value>> {
        if self.disabled {
            self.answered(at, false);
            return Some(None);
        }
        let scope = at.scope()?;
        let value = match scope.look(key, |entry| self.open(key, entry)) {
            Lookup::Unknown => return None,
            Lookup::Absent => None,
            Lookup::Bad(bad) => self.bad(key, bad),
            Lookup::Value(content, memo) => match memo.and_then(|memo| decode.recall(&memo)) {
                Some(value) => Some(value),
                None => self.decoded(key, &content, decode, |memo| {
                    scope.memoize(key, &content, memo)
                }),
            },
        };
        if value.is_some() {
            self.counters.scope_hits.add(1);
        }
        self.answered(at, value.is_some());
        Some(value)
    }

    /// Counts a read that was answered, with a value or with none.
    fn answered(&self, at: &Context, hit: bool) {
        let counters = &self.counters;
        let counter = if hit {
            &counters.hits
        } else {
            &counters.misses
        };
        counter.add(1);
        for watch in at.watches() {
            watch.answered(hit);
        }
    }

    /// What the store replied for `key`, remembered by the scope.
    fn read<D: Decode>(
        &self,
        at: &Context,
        ticket: Option<Ticket>,
        key: &[u8],
        reply: Option<Reply>,
        decode: &D,
    ) -> Option<D::Value> {
        let value = self.read_entry(at, ticket, key, reply, decode);
        self.answered(at, value.is_some());
        value
    }

    fn read_entry<D: Decode>(
        &self,
        at: &Context,
        ticket: Option<Ticket>,
        key: &[u8],
        reply: Option<Reply>,
        decode: &D,
    ) -> Option<D::Value> {
        let Some(Reply::Entry(entry)) = reply else {
            return None;
        };
        if let Some(scope) = at.scope() {
            scope.note_read(key, entry.as_ref().map_or(0, Bytes::len));
        }
        let entry = entry?;
        let content = match self.open(key, &entry) {
            Ok(content) => content,
            Err(bad) => return self.bad(key, bad),
        };
        let mut memo = None;
        let value = self.decoded(key, &content, decode, |decoded| memo = Some(decoded))?;
        if let (Some(scope), Some(ticket)) = (at.scope(), ticket) {
            scope.keep(ticket, key, content, memo, None);
        }
        Some(value)
    }

    fn decoded<D: Decode>(
        &self,
        key: &[u8],
        content: &Content,
        decode: &D,
        memoize: impl FnOnce(crate::codec::Memo),
    ) -> Option<D::Value> {
        match decode.decode(content) {
            Ok(value) => {
                if let Some(memo) = decode.memo(&value) {
                    memoize(memo);
                }
                Some(value)
            }
            Err(bad) => self.bad(key, bad),
        }
    }

    /// An entry that cannot be read is a miss, and noted.
    pub(crate) fn bad<T>(&self, key: &[u8], bad: BadEntry) -> Option<T> {
        self.counters.bad_entries.add(1);
        log::warn!(
            "the entry of {:?} is {bad}; it counts as a miss",
            key::display(key)
        );
        None
    }

    /// Reads one key.
    pub fn get<'a, D: Decode>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        decode: &'a D,
    ) -> Step<Found<D>, impl FnOnce(Replies) -> Found<D> + 'a> {
        match self.held(at, key, decode) {
            Some(value) => Step::Done(value),
            None => self.fetch(at, key, decode),
        }
    }

    /// Reads one key that the scope does not tell of.
    pub(crate) fn fetch<'a, D: Decode>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        decode: &'a D,
    ) -> Step<Found<D>, impl FnOnce(Replies) -> Found<D> + 'a> {
        let mut trip = Trip::new();
        let ticket = self.depart(at, key, &mut trip);
        trip.push(Op::Get {
            name: self.keyspace.name(key),
        });
        let ahead = self.ahead(at.scope(), &[key], &mut trip);
        Step::Ask(trip, move |mut replies: Replies| {
            self.arrive(at.scope(), ahead, &mut replies);
            self.read(at, ticket, key, replies.pop(), decode)
        })
    }

    /// Reads many keys: for each of them, in their order, its value or none.
    pub fn get_many<'a, K: AsRef<[u8]>, D: Decode>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        decode: &'a D,
    ) -> Step<Vec<Found<D>>, impl FnOnce(Replies) -> Vec<Found<D>> + 'a> {
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        let mut trip = Trip::new();
        for key in keys {
            let key = key.as_ref();
            let held = self.held(at, key, decode);
            if held.is_none() {
                missing.push((values.len(), key, self.depart(at, key, &mut trip)));
            }
            values.push(held.flatten());
        }
        if missing.is_empty() {
            return Step::Done(values);
        }
        // The waiting writes go first and the reads follow in one run, which stores answer best.
        let writes = trip.len();
        for (_, key, _) in &missing {
            trip.push(Op::Get {
                name: self.keyspace.name(key),
            });
        }
        let ahead = self.ahead(at.scope(), keys, &mut trip);
        Step::Ask(trip, move |mut replies: Replies| {
            self.arrive(at.scope(), ahead, &mut replies);
            let reads = replies.into_iter().skip(writes);
            for ((index, key, ticket), reply) in missing.into_iter().zip(reads) {
                if let Some(value) = values.get_mut(index) {
                    *value = self.read(at, ticket, key, Some(reply), decode);
                }
            }
            values
        })
    }

    /// Begins a trip about `key`: its waiting write goes along.
    fn depart(&self, at: &Context, key: &[u8], trip: &mut Trip) -> Option<Ticket> {
        let (leaving, ticket) = at.scope()?.depart(key);
        if let Some(leaving) = leaving {
            trip.push(self.leave(key, leaving));
        }
        Some(ticket)
    }

    /// Writes entries, each under its key, all to live equally long.
    pub fn set_many<'a, K: AsRef<[u8]> + 'a>(
        &'a self,
        at: &'a Context,
        entries: impl IntoIterator<Item = (K, Bytes)>,
        timeout: Timeout,
    ) -> Step<(), impl FnOnce(Replies) + 'a> {
        let life = self.life(timeout);
        let mut trip = Trip::new();
        let mut sent = SmallVec::<[(K, Bytes); 1]>::new();
        let mut ticket = None;
        for (key, mut entry) in entries {
            if self.disabled {
                continue;
            }
            if let (Some(scope), Life::Lives(ttl), true) = (at.scope(), life, self.defer_writes) {
                match scope.write(key.as_ref(), entry, ttl) {
                    Ok(()) => continue,
                    Err(refused) => entry = refused,
                }
            }
            ticket = at.scope().map(|scope| scope.forget(key.as_ref()).1);
            let name = self.keyspace.name(key.as_ref());
            trip.push(match life {
                Life::Lives(ttl) => Op::Set {
                    name,
                    entry: entry.clone(),
                    ttl,
                },
                Life::Over => Op::Delete { name },
            });
            sent.push((key, entry));
        }
        if trip.is_empty() {
            return Step::Done(());
        }
        Step::Ask(trip, move |replies: Replies| {
            let (Some(scope), Some(ticket)) = (at.scope(), ticket) else {
                return;
            };
            let written = sent.iter().zip(replies).map(|((key, entry), reply)| {
                let stored = match (reply, life) {
                    (Reply::Done, Life::Lives(ttl)) => Some((entry.clone(), ttl)),
                    _ => None,
                };
                (key.as_ref(), stored)
            });
            scope.keep_written(ticket, written);
        })
    }

    /// Writes an entry if there is none; whether it was written (or would have been, had it any
    /// time to live).
    pub fn add<'a>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        entry: Bytes,
        timeout: Timeout,
    ) -> Step<bool, impl FnOnce(Replies) -> bool + 'a> {
        if self.disabled {
            return Step::Done(true);
        }
        let life = self.life(timeout);
        let name = self.keyspace.name(key);
        let (mut trip, ticket) = self.change(at, key);
        trip.push(match life {
            Life::Lives(ttl) => Op::Add {
                name,
                entry: entry.clone(),
                ttl,
            },
            Life::Over => Op::Get { name },
        });
        Step::Ask(trip, move |mut replies: Replies| {
            let (added, stored) = match (replies.pop(), life) {
                (Some(Reply::Flag(true)), Life::Lives(ttl)) => (true, Some((entry, ttl))),
                (Some(Reply::Entry(None)), _) => (true, None),
                _ => (false, None),
            };
            if let (Some(scope), Some(ticket)) = (at.scope(), ticket) {
                scope.keep_written(ticket, [(key, stored)]);
            }
            added
        })
    }

    /// Adds to an integer; the new number, or none where there was no entry.
    pub fn incr<'a>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        delta: i64,
    ) -> Step<Option<i64>, impl FnOnce(Replies) -> Option<i64> + 'a> {
        if self.disabled {
            return Step::Done(None);
        }
        let (mut trip, ticket) = self.change(at, key);
        trip.push(Op::Incr {
            name: self.keyspace.name(key),
            delta,
        });
        Step::Ask(trip, move |mut replies: Replies| {
            let number = match replies.pop() {
                Some(Reply::Number(number)) => number,
                _ => None,
            };
            if let (Some(scope), Some(ticket)) = (at.scope(), ticket) {
                // Its bytes in the store are these digits, as entries without a header are.
                let stored = number.map(|number| (Bytes::from(number.to_string()), None));
                scope.keep_written(ticket, [(key, stored)]);
            }
            number
        })
    }

    /// Begins a trip that changes `key`: its waiting write goes along, and the scope forgets it.
    fn change(&self, at: &Context, key: &[u8]) -> (Trip, Option<Ticket>) {
        let mut trip = Trip::new();
        let ticket = at.scope().map(|scope| {
            let (leaving, ticket) = scope.forget(key);
            if let Some(leaving) = leaving {
                trip.push(self.leave(key, leaving));
            }
            ticket
        });
        (trip, ticket)
    }

    /// Removes entries; how many there were.
    pub fn delete_many<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        self.relive(at, keys, Life::Over)
    }

    /// Gives entries a new time to live, counted from now; how many there were.
    pub fn touch_many<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        timeout: Timeout,
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        self.relive(at, keys, self.life(timeout))
    }

    /// Gives entries another life, or ends it.
    fn relive<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        life: Life,
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        if self.disabled || keys.is_empty() {
            return Step::Done(0);
        }
        let mut trip = Trip::new();
        // For each key: where its reply is, and whether it had a write that need not leave now.
        let mut asked = SmallVec::<[(usize, bool); 1]>::new();
        for key in keys {
            let key = key.as_ref();
            let leaving = at.scope().and_then(|scope| scope.forget(key).0);
            let name = self.keyspace.name(key);
            match life {
                Life::Lives(ttl) => {
                    if let Some(leaving) = leaving {
                        trip.push(self.leave(key, leaving));
                    }
                    asked.push((trip.len(), false));
                    trip.push(Op::Touch { name, ttl });
                }
                Life::Over => {
                    asked.push((trip.len(), matches!(leaving, Some(Leaving::Set(..)))));
                    trip.push(Op::Delete { name });
                }
            }
        }
        Step::Ask(trip, move |replies: Replies| {
            if let Some(scope) = at.scope() {
                for key in keys {
                    scope.doubt(key.as_ref());
                }
            }
            asked
                .into_iter()
                .filter(|(at, had)| *had || matches!(replies.get(*at), Some(Reply::Flag(true))))
                .count()
        })
    }

    /// Removes every entry of this cache's prefix; how many there were.
    pub fn clear<'a>(&'a self, at: &'a Context) -> Step<u64, impl FnOnce(Replies) -> u64 + 'a> {
        if self.disabled {
            return Step::Done(0);
        }
        // Waiting writes go ahead, to be counted with what they replace.
        let leaving = at.scope().map(|scope| scope.forget_all());
        let leaving = leaving.into_iter().flatten();
        let mut trip: Trip = leaving
            .map(|(key, write)| self.leave(&key, write))
            .collect();
        // Not counted, since nobody who clears wrote them.
        trip.extend(self.drop_records());
        let prefix = self.keyspace.prefix().clone();
        trip.push(Op::Clear { prefix });
        Step::Ask(trip, move |mut replies: Replies| {
            if let Some(scope) = at.scope() {
                scope.doubt_all();
            }
            match replies.pop() {
                Some(Reply::Count(count)) => count,
                _ => 0,
            }
        })
    }
}

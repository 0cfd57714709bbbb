//! Reads: what the scope holds, and what the store replied.

use bytes::Bytes;

use super::{Found, Policy, Step};
use crate::codec::{Decode, Memo};
use crate::context::Context;
use crate::entry::{BadEntry, Content};
use crate::key;
use crate::pages::Ahead;
use crate::scope::{Lookup, Reading, Scope, Ticket};
use crate::trip::{Op, Replies, Reply, Stored, Trip};

/// What became of a read.
#[derive(Debug)]
pub enum Read<V> {
    /// It has this value.
    Found(V),
    /// There is no entry, or what there is is unknown.
    Absent,
    /// There is an entry that cannot be read, which is a miss.
    Bad,
}

impl<V> Read<V> {
    /// Returns the value, if there is one.
    pub fn found(self) -> Option<V> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }
}

/// Reads that travel, and what their trip brings besides.
pub(crate) struct Asked {
    reading: Reading,
    ticket: Option<Ticket>,
    ahead: Option<Ahead>,
}

impl Policy {
    /// Answers a read from the scope; `None` where the store has to be asked.
    pub(crate) fn held<D: Decode>(
        &self,
        at: &Context,
        key: &[u8],
        reading: Reading,
        decode: &D,
    ) -> Option<Read<D::Value>> {
        if self.disabled {
            self.answered(at, false);
            return Some(Read::Absent);
        }
        let scope = at.scope()?;
        let read = match scope.look(key, reading, |entry| {
            let content = self.open(key, entry)?;
            Ok((content, self.sealer.end(entry)))
        }) {
            Lookup::Unknown => return None,
            Lookup::Absent => Read::Absent,
            Lookup::Bad(bad) => self.bad(key, bad),
            Lookup::Value(content, memo) => match memo.and_then(|memo| decode.recall(&memo)) {
                Some(value) => Read::Found(value),
                None => self.decoded(key, &content, decode, |memo| {
                    scope.memoize(key, &content, memo);
                }),
            },
        };
        let is_hit = matches!(read, Read::Found(_));
        if is_hit {
            self.counters.scope_hits.add(1);
        }
        self.answered(at, is_hit);
        Some(read)
    }

    /// Counts a read that was answered, with a value or with none.
    pub(crate) fn answered(&self, at: &Context, hit: bool) {
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

    /// Adds reads of `keys` to `trip`, and what the page's first trip or its snapshot brings.
    pub(crate) fn ask_for<K: AsRef<[u8]>>(
        &self,
        at: &Context,
        keys: &[K],
        reading: Reading,
        trip: &mut Trip,
    ) -> Asked {
        match keys {
            [key] => trip.push(Op::Get {
                name: self.keyspace.name(key.as_ref()),
            }),
            keys => {
                let names = self.keyspace.names(keys.iter().map(AsRef::as_ref));
                trip.extend(names.map(|name| Op::Get { name }));
            }
        }
        let ahead = self.ahead(at.scope(), keys, reading, trip);
        let ticket = match &ahead {
            Some(ahead) => Some(ahead.ticket),
            None => at.scope().map(|scope| scope.depart(false)),
        };
        Asked {
            reading,
            ticket,
            ahead,
        }
    }

    /// Takes what the store replied to `keys`, which the scope remembers as far as it may.
    pub(crate) fn answer<'k, D: Decode>(
        &self,
        at: &Context,
        asked: Asked,
        keys: impl Iterator<Item = &'k [u8]>,
        mut replies: Replies,
        decode: &D,
        mut each: impl FnMut(usize, Read<D::Value>),
    ) {
        self.arrive(at.scope(), asked.ahead, &mut replies);
        let mut replies = replies.into_iter();
        for (place, key) in keys.enumerate() {
            let reply = replies.next();
            let kept = at.scope().zip(asked.ticket);
            each(
                place,
                self.read(at, kept, key, asked.reading, reply, decode),
            );
        }
    }

    /// Takes what the store replied for `key`.
    fn read<D: Decode>(
        &self,
        at: &Context,
        kept: Option<(&std::sync::Arc<Scope>, Ticket)>,
        key: &[u8],
        reading: Reading,
        reply: Option<Reply>,
        decode: &D,
    ) -> Read<D::Value> {
        // Unknown is not absent: such a key is asked for again when it is read.
        let Some(Reply::Entry(stored)) = reply else {
            self.answered(at, false);
            return Read::Absent;
        };
        if let Some((scope, ticket)) = kept {
            scope.note_read(
                ticket,
                key,
                reading,
                stored.as_ref().map(|stored| &stored.bytes),
            );
        }
        let Some(Stored { bytes, left, .. }) = stored else {
            if let (Some((scope, ticket)), Reading::Plain(_)) = (kept, reading) {
                scope.keep(ticket, key, None, None, None, reading);
            }
            self.answered(at, false);
            return Read::Absent;
        };
        let read = match self.open(key, &bytes) {
            Err(bad) => self.bad(key, bad),
            Ok(content) => {
                let mut memo = None;
                let read = self.decoded(key, &content, decode, |decoded| memo = Some(decoded));
                if let (Some((scope, ticket)), Read::Found(_)) = (kept, &read) {
                    let end = self.sealer.end(&bytes);
                    scope.keep(ticket, key, Some((content, memo)), end, left, reading);
                }
                read
            }
        };
        self.answered(at, matches!(read, Read::Found(_)));
        read
    }

    fn decoded<D: Decode>(
        &self,
        key: &[u8],
        content: &Content,
        decode: &D,
        memoize: impl FnOnce(Memo),
    ) -> Read<D::Value> {
        match decode.decode(content) {
            Ok(value) => {
                if let Some(memo) = decode.memo(&value) {
                    memoize(memo);
                }
                Read::Found(value)
            }
            Err(bad) => self.bad(key, bad),
        }
    }

    /// Decodes an entry that another caller of this process stored.
    pub(crate) fn shared<D: Decode>(
        &self,
        at: &Context,
        key: &[u8],
        entry: &Bytes,
        decode: &D,
    ) -> Option<D::Value> {
        let content = self.open(key, entry).ok()?;
        let value = decode.decode(&content).ok()?;
        self.answered(at, true);
        Some(value)
    }

    /// Counts an entry that cannot be read, which is a miss.
    fn bad<V>(&self, key: &[u8], bad: BadEntry) -> Read<V> {
        self.note_bad(key, bad);
        Read::Bad
    }

    pub(crate) fn note_bad(&self, key: &[u8], bad: BadEntry) {
        self.counters.bad_entries.add(1);
        log::warn!(
            "the entry of {:?} is {bad}; it counts as a miss",
            key::display(key)
        );
    }

    /// Reads one key by a plain call.
    pub fn get<'a, D: Decode>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        decode: &'a D,
    ) -> Step<Found<D>, impl FnOnce(Replies) -> Found<D> + 'a> {
        match self.held(at, key, Reading::Plain(at.hold()), decode) {
            Some(read) => Step::Done(read.found()),
            None => self.get_from_store(at, key, Reading::Plain(at.hold()), decode),
        }
    }

    /// Reads one key that the scope does not answer. One trip.
    pub(crate) fn get_from_store<'a, D: Decode>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        reading: Reading,
        decode: &'a D,
    ) -> Step<Found<D>, impl FnOnce(Replies) -> Found<D> + 'a> {
        let mut trip = Trip::new();
        let asked = self.ask_for(at, &[key], reading, &mut trip);
        self.travel(at, trip, move |replies| {
            let mut value = None;
            let keys = std::iter::once(key);
            self.answer(at, asked, keys, replies, decode, |_, read| {
                value = read.found();
            });
            value
        })
    }

    /// Reads many keys by a plain call: for each of them, in their order, its value or none. One
    /// trip at most.
    pub fn get_many<'a, K: AsRef<[u8]>, D: Decode>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        decode: &'a D,
    ) -> Step<Vec<Found<D>>, impl FnOnce(Replies) -> Vec<Found<D>> + 'a> {
        let reading = Reading::Plain(at.hold());
        // Answers of one call are of one moment. Those of a snapshot count only if it has them all;
        // pieces are told apart, since they may be of any moment.
        let whole = at.scope().is_none_or(|scope| {
            let mut keys = keys.iter().map(AsRef::as_ref);
            keys.all(|key| scope.answers(key, reading))
        });
        let is_piece =
            |key: &[u8]| at.hold().is_some() || at.scope().is_some_and(|scope| scope.is_named(key));
        let answer = |whole: bool| {
            let mut values = Vec::with_capacity(keys.len());
            let mut missing = Vec::new();
            for key in keys {
                let key = key.as_ref();
                let held = match whole || is_piece(key) {
                    true => self.held(at, key, reading, decode),
                    false => None,
                };
                if held.is_none() {
                    missing.push((values.len(), key));
                }
                values.push(held.and_then(Read::found));
            }
            (values, missing)
        };
        let (mut values, mut missing) = answer(whole);
        if whole && !missing.is_empty() {
            // An absence that was good for one read is asked for twice.
            (values, missing) = answer(false);
        }
        if missing.is_empty() {
            return Step::Done(values);
        }
        let wanted: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        let mut trip = Trip::new();
        let asked = self.ask_for(at, &wanted, reading, &mut trip);
        self.travel(at, trip, move |replies| {
            let keys = missing.iter().map(|(_, key)| *key);
            self.answer(at, asked, keys, replies, decode, |place, read| {
                if let Some((index, _)) = missing.get(place)
                    && let Some(value) = values.get_mut(*index)
                {
                    *value = read.found();
                }
            });
            values
        })
    }

    /// Reads into `scope` the `keys` that it does not hold already. Plain reads of them are reads
    /// of pieces from here on, and what is absent is absent for the scope. One trip at most.
    pub fn preload<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
    ) -> Step<(), impl FnOnce(Replies) + 'a> {
        let scope = at.scope().filter(|_| !self.disabled && !keys.is_empty());
        let wanted = scope.map(|scope| scope.name(keys));
        let (Some(scope), Some(wanted)) = (scope, wanted.filter(|wanted| !wanted.is_empty()))
        else {
            return Step::Done(());
        };
        let mut trip = Trip::new();
        let asked = self.ask_for(at, &wanted, Reading::Piece(None), &mut trip);
        let names: Vec<Bytes> = trip
            .ops()
            .iter()
            .take(wanted.len())
            .map(|op| op.name().clone())
            .collect();
        self.travel(at, trip, move |mut replies| {
            self.arrive(Some(scope), asked.ahead, &mut replies);
            let answers = names.into_iter().zip(replies);
            let answers = answers.filter_map(|(name, reply)| match reply {
                Reply::Entry(stored) => Some((self.keyspace.key(name), stored)),
                // Unknown is not absent: such a key is asked for again when it is read.
                _ => None,
            });
            if let Some(ticket) = asked.ticket {
                scope.keep_all(ticket, true, answers);
            }
        })
    }
}

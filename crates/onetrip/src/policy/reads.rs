//! Reads: what the scope tells, and what the store replied.

use bytes::Bytes;

use super::{Found, Policy, Step};
use crate::codec::Decode;
use crate::context::Context;
use crate::entry::{BadEntry, Content};
use crate::key;
use crate::scope::{Lookup, Ticket};
use crate::trip::{Op, Replies, Reply, Trip};

impl Policy {
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
        let entry = match reply {
            Some(Reply::Entry(entry)) => {
                if let Some(scope) = at.scope() {
                    scope.note_read(key, entry.as_ref().map_or(0, Bytes::len));
                }
                entry
            }
            _ => None,
        };
        let value = entry.and_then(|entry| {
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
        });
        self.answered(at, value.is_some());
        value
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
        let names = self.keyspace.names(missing.iter().map(|(_, key, _)| *key));
        trip.extend(names.map(|name| Op::Get { name }));
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
}

//! Writes: those that wait in the scope, and those that travel at once.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Life, Policy, Step, Timeout};
use crate::context::Context;
use crate::scope::{Leaving, Ticket};
use crate::trip::{Op, Replies, Reply, Trip};

impl Policy {
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
            let name = self.keyspace.name(key.as_ref());
            if let Some(scope) = at.scope() {
                ticket = Some(scope.forget(key.as_ref()).1);
                sent.push((key, entry.clone()));
            }
            trip.push(match life {
                Life::Lives(ttl) => Op::Set { name, entry, ttl },
                Life::Over => Op::Delete { name },
            });
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

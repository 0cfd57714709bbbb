//! Plain writes. They are state: each travels at once, is waited for and carries nothing along.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Policy, ResolvedTtl, Step, Ttl, Writing};
use crate::context::Context;
use crate::scope::Change;
use crate::trip::{Op, Replies, Reply, Trip};
use crate::write_clock;

impl Policy {
    /// Writes entries, each under its key, all to live equally long. One trip, or none if a batch
    /// gathers them.
    pub fn set_many<'a, K: AsRef<[u8]> + 'a>(
        &'a self,
        at: &'a Context,
        entries: impl IntoIterator<Item = (K, Bytes)>,
        ttl: Ttl,
    ) -> Step<(), impl FnOnce(Replies) + 'a> {
        let ttl = self.resolve(ttl);
        let mut trip = Trip::new();
        let mut changes = matches!(ttl, ResolvedTtl::Expired);
        for (key, entry) in entries {
            if self.disabled {
                continue;
            }
            let key = key.as_ref();
            changes |= !at
                .scope()
                .is_some_and(|scope| scope.writes_back(key, &entry));
            self.note_write(at, key, Change::Set, Some(&entry));
            let name = self.keyspace.name(key);
            let op = match ttl {
                ResolvedTtl::Keep(ttl) => Op::Set { name, entry, ttl },
                ResolvedTtl::Expired => Op::Delete { name },
            };
            match at.batch() {
                Some(batch) => {
                    // What is held of it ends now; when the batch has left, it ends again.
                    drop(Writing::begin(at, [op.name().clone()]));
                    trip.extend(batch.gather(op).err());
                }
                None => trip.push(op),
            }
        }
        if trip.is_empty() {
            return Step::Done(());
        }
        self.write_as(at, trip, changes, |_| ())
    }

    /// Makes a step of a state write.
    fn write<'a, T>(
        &'a self,
        at: &'a Context,
        trip: Trip,
        finish: impl FnOnce(Replies) -> T + 'a,
    ) -> Step<T, impl FnOnce(Replies) -> T + 'a> {
        self.write_as(at, trip, true, finish)
    }

    /// Makes a step of a state write, which may be known to change nothing.
    fn write_as<'a, T>(
        &'a self,
        at: &'a Context,
        trip: Trip,
        changes: bool,
        finish: impl FnOnce(Replies) -> T + 'a,
    ) -> Step<T, impl FnOnce(Replies) -> T + 'a> {
        let names: SmallVec<[Bytes; 1]> = trip.ops().iter().map(|op| op.name().clone()).collect();
        let writing = Writing::of(at, names, changes);
        self.travel(at, trip, move |replies| {
            drop(writing);
            finish(replies)
        })
    }

    /// Notes a plain write for those who learn from it.
    fn note_write(&self, at: &Context, key: &[u8], change: Change, entry: Option<&[u8]>) {
        if let Some(scope) = at.scope() {
            scope.note_write(key, change, entry);
        }
        if change == Change::Exact && self.learns() {
            // At once: pages under way are to know it.
            self.learner.mark_exact(key);
        }
    }

    /// Writes an entry if its key is absent. Returns `true` if it was written (or would have been,
    /// had it any time to live). One trip.
    pub fn add<'a>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        entry: Bytes,
        ttl: Ttl,
    ) -> Step<bool, impl FnOnce(Replies) -> bool + 'a> {
        if self.disabled {
            return Step::Done(true);
        }
        self.note_write(at, key, Change::Exact, None);
        let name = self.keyspace.name(key);
        let op = match self.resolve(ttl) {
            ResolvedTtl::Keep(ttl) => Op::Add { name, entry, ttl },
            ResolvedTtl::Expired => Op::Get { name },
        };
        self.write(at, op.into(), |mut replies: Replies| {
            matches!(replies.pop(), Some(Reply::Flag(true) | Reply::Entry(None)))
        })
    }

    /// Adds to an integer. Returns the new number, or none if the key is absent. One trip.
    pub fn incr<'a>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        delta: i64,
    ) -> Step<Option<i64>, impl FnOnce(Replies) -> Option<i64> + 'a> {
        if self.disabled {
            return Step::Done(None);
        }
        self.note_write(at, key, Change::Exact, None);
        let name = self.keyspace.name(key);
        let op = Op::Incr { name, delta };
        self.write(at, op.into(), |mut replies: Replies| match replies.pop() {
            Some(Reply::Number(number)) => number,
            _ => None,
        })
    }

    /// Removes entries. Returns how many there were. One trip.
    pub fn delete_many<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        self.change_ttl(at, keys, ResolvedTtl::Expired)
    }

    /// Gives entries a new time to live, counted from now. Returns how many there were. One trip.
    pub fn touch_many<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        ttl: Ttl,
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        self.change_ttl(at, keys, self.resolve(ttl))
    }

    /// Gives entries another ttl, or removes them.
    fn change_ttl<'a, K: AsRef<[u8]>>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        ttl: ResolvedTtl,
    ) -> Step<usize, impl FnOnce(Replies) -> usize + 'a> {
        if self.disabled || keys.is_empty() {
            return Step::Done(0);
        }
        let change = match ttl {
            ResolvedTtl::Keep(_) => Change::Touch,
            ResolvedTtl::Expired => Change::Delete,
        };
        let ops = keys.iter().map(|key| {
            let key = key.as_ref();
            self.note_write(at, key, change, None);
            let name = self.keyspace.name(key);
            match ttl {
                ResolvedTtl::Keep(ttl) => Op::Touch { name, ttl },
                ResolvedTtl::Expired => Op::Delete { name },
            }
        });
        self.write(at, ops.collect(), |replies: Replies| {
            let there = replies.iter();
            there
                .filter(|reply| matches!(reply, Reply::Flag(true)))
                .count()
        })
    }

    /// Removes every entry of this cache's prefix. Returns how many there were. One trip.
    pub fn clear<'a>(&'a self, at: &'a Context) -> Step<u64, impl FnOnce(Replies) -> u64 + 'a> {
        if self.disabled {
            return Step::Done(0);
        }
        // Not counted: nobody who clears wrote them.
        let mut trip: Trip = self.drop_records().collect();
        let prefix = self.keyspace.prefix().clone();
        trip.push(Op::Clear { prefix });
        let clearing = Clearing::begin(self);
        self.write(at, trip, move |mut replies: Replies| {
            drop(clearing);
            match replies.pop() {
                Some(Reply::Count(count)) => count,
                _ => 0,
            }
        })
    }
}

/// A clear under way, as [`Writing`] is a write.
struct Clearing<'a>(&'a Policy);

impl<'a> Clearing<'a> {
    fn begin(policy: &'a Policy) -> Self {
        let clearing = Self(policy);
        clearing.note();
        clearing
    }

    fn note(&self) {
        write_clock::clear();
        crate::single_flight::outdate_all(self.0.keyspace.prefix());
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.note();
    }
}

//! The plain answers that one trip of a learned page brought.
//!
//! They are of one moment. A plain read that travels replaces them all, so that no plain answer of
//! a page is older than another that it had before.
//!
//! A write ends it, since a program that writes may wait for what others answer to that. Setting a
//! key to the very bytes that the snapshot's trip found there tells others nothing: that ends the
//! answer for the key alone. Some programs do so with every object that they read from the cache.

use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Answer, Scope, Ticket};
use crate::clock::{Clock, Moment};
use crate::write_clock::{LazySlot, Slot, Stamp};

/// The snapshot of a scope, which may be empty.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    answers: HashMap<Bytes, Shot>,
    /// The entries that the reads of the same trip found. They answer nothing unless they are among
    /// the answers, too; they tell whether the same is written back.
    read: HashMap<Box<[u8]>, Bytes>,
    /// The keys that fetches answered while a trip was under way, each with the number of the last
    /// trip that had departed by then. What such a trip brings for them is out of date.
    fetched: HashMap<Box<[u8]>, u64>,
    taken: Option<(Moment, Stamp)>,
    /// The number of the trip that brought it.
    number: u64,
    /// How many trips have departed to bring one, and how many of them have arrived.
    departed: u64,
    arrived: u64,
    /// How often it was ended.
    ended: u64,
}

#[derive(Debug)]
struct Shot {
    answer: Answer,
    /// The place of its name in the clock of writes.
    slot: LazySlot,
    /// The entry as it came, to tell whether the same is written back.
    entry: Option<Bytes>,
    /// Whether its absence is good for more than one read.
    lasting: bool,
}

/// A plain answer that a trip brought for a snapshot.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) key: Bytes,
    pub(crate) entry: Option<Bytes>,
    /// Whether its absence has earned its place, too.
    pub(crate) lasting: bool,
}

impl Snapshot {
    /// Ends it. What is under way to replace it is not kept.
    pub(super) fn end(&mut self) {
        self.ended += 1;
        self.answers.clear();
        self.read.clear();
        // No trip under way is kept any more.
        self.fetched.clear();
        self.taken = None;
    }

    /// Begins a trip. Returns its number among those that bring a snapshot, how many of them have
    /// arrived, and how many snapshots have ended.
    pub(super) fn depart(&mut self, brings: bool) -> (u64, u64, u64) {
        self.departed += u64::from(brings);
        (self.departed, self.arrived, self.ended)
    }

    /// Drops the answers that differ from what another trip brought.
    fn retain_equal(&mut self, brought: impl Iterator<Item = Brought>) {
        let brought: HashMap<Bytes, Option<Bytes>> = brought
            .map(|brought| (brought.key, brought.entry))
            .collect();
        self.answers
            .retain(|key, shot| brought.get(key) == Some(&shot.entry));
    }

    pub(super) fn look(
        &mut self,
        prefix: &[u8],
        key: &[u8],
        max_age: Duration,
        clock: &Clock,
    ) -> Option<&mut Answer> {
        let taken = self.taken?;
        let shot = self.answers.get_mut(key)?;
        let slot = shot.slot.of(prefix, key);
        is_good(taken, slot, max_age, clock).then_some(&mut shot.answer)
    }

    /// Returns whether its trip found exactly these bytes under `key`, whose slot this is, and that
    /// is still good.
    pub(super) fn found(
        &self,
        key: &[u8],
        slot: impl FnOnce() -> Slot,
        entry: &Bytes,
        max_age: Duration,
        clock: &Clock,
    ) -> bool {
        let Some(taken) = self.taken else {
            return false;
        };
        let shot = self.answers.get(key).and_then(|shot| shot.entry.as_ref());
        shot.or_else(|| self.read.get(key)) == Some(entry) && is_good(taken, slot(), max_age, clock)
    }

    /// Notes what a read of the trip that brought it found.
    pub(super) fn note_read(&mut self, ticket: Ticket, key: &[u8], entry: &Bytes) {
        let is_its_trip = self.taken.is_some() && self.number == ticket.number;
        if is_its_trip && !self.answers.contains_key(key) && !self.is_fetched(key, ticket) {
            self.read.insert(key.into(), entry.clone());
        }
    }

    /// Drops all that is known of `key`, which a fetch stored or found: a plain read must find the
    /// same, or a newer value.
    pub(super) fn supersede(&mut self, key: &[u8]) {
        self.answers.remove(key);
        self.read.remove(key);
        if self.departed > self.arrived {
            self.fetched.insert(key.into(), self.departed);
        }
    }

    /// Returns whether a fetch answered `key` after the trip of `ticket` departed.
    fn is_fetched(&self, key: &[u8], ticket: Ticket) -> bool {
        self.fetched
            .get(key)
            .is_some_and(|departed| *departed >= ticket.number)
    }

    pub(super) fn answer(&mut self, key: &[u8]) -> Option<&mut Answer> {
        Some(&mut self.answers.get_mut(key)?.answer)
    }

    pub(super) fn forget(&mut self, key: &[u8]) {
        self.answers.remove(key);
    }

    /// Ends an absence that was read, unless it has earned more.
    pub(super) fn spend_absence(&mut self, key: &[u8]) {
        let spent = self
            .answers
            .get(key)
            .is_some_and(|shot| !shot.lasting && matches!(shot.answer, Answer::Absent));
        if spent {
            self.answers.remove(key);
        }
    }
}

/// Returns whether what is known of the name of `slot` since the moment and the stamp of `taken`
/// still holds.
fn is_good(taken: (Moment, Stamp), slot: Slot, max_age: Duration, clock: &Clock) -> bool {
    let (moment, stamp) = taken;
    slot.is_unwritten_since(stamp) && clock.now() < moment.after(max_age)
}

impl Scope {
    /// Returns whether setting `key` to `entry` writes back what the snapshot's trip found.
    pub(crate) fn writes_back(&self, key: &[u8], entry: &Bytes) -> bool {
        let snapshot = &self.state().snapshot;
        let slot = || self.slot(key);
        snapshot.found(key, slot, entry, self.read_max_age, &self.clock)
    }

    /// Replaces the snapshot by what a trip brought, unless it ended while that was under way.
    ///
    /// Trips that were under way together may have reached the store in either order. Then the
    /// answers of the second to arrive may be older or newer than those of the first, which callers
    /// have seen. Only what both found is kept: it is as new as either.
    pub(crate) fn keep_snapshot(&self, ticket: Ticket, brought: impl Iterator<Item = Brought>) {
        let state = &mut *self.state();
        let snapshot = &mut state.snapshot;
        let was_alone = ticket.arrived == snapshot.arrived;
        snapshot.arrived += 1;
        if !was_alone {
            return snapshot.retain_equal(brought);
        }
        if !state.open || state.sending || ticket.ended != snapshot.ended {
            return;
        }
        state.visits.replaced(snapshot.taken.is_some());
        snapshot.number = ticket.number;
        snapshot.taken = Some((ticket.departed, ticket.stamp));
        snapshot.read.clear();
        snapshot
            .fetched
            .retain(|_, departed| *departed >= ticket.number);
        let shots = brought.filter_map(|brought| {
            (!snapshot.is_fetched(&brought.key, ticket)).then(|| {
                let shot = Shot {
                    slot: LazySlot::default(),
                    entry: brought.entry.clone(),
                    answer: brought.entry.map_or(Answer::Absent, Answer::Sealed),
                    lasting: brought.lasting,
                };
                (brought.key, shot)
            })
        });
        snapshot.answers = shots.collect();
    }
}

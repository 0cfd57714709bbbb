//! The pieces of a page: answers that may be a little old.

use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::{Answer, Reading, Scope, Ticket};
use crate::clock::{Clock, Moment};
use crate::codec::Memo;
use crate::entry::Content;
use crate::trip::Stored;
use crate::write_clock::{LazySlot, Stamp};

/// Scopes with fewer answers than this are not searched for old ones.
const SWEEP_FROM: usize = 1024;

/// Answers by key. Of a preload, keys are slices of one allocation.
#[derive(Debug)]
pub(super) struct Pieces {
    held: HashMap<Bytes, Held>,
    /// How many answers make it worth looking for old ones, and the oldest that is of use.
    sweep_at: usize,
    oldest: Duration,
}

#[derive(Debug)]
struct Held {
    answer: Answer,
    slot: LazySlot,
    /// When the trip departed that brought it.
    since: Moment,
    stamp: Stamp,
    /// Until when it is good by the scope's usual age: what most reads ask.
    until: Moment,
    /// How long its value lives, if that is known.
    ttl: Option<Duration>,
    /// Whether it answers plain reads: the program preloads its key by name. That stays so when it
    /// is out of date, and what a plain read then brings is held as well.
    named: bool,
    /// Whether a plain read brought it, in a scope that holds plain answers.
    plain: bool,
    /// Whether its absence is good for one read only.
    once: bool,
}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            sweep_at: SWEEP_FROM,
            oldest: Duration::ZERO,
        }
    }
}

impl Held {
    /// Returns until when it may be read, by who takes nothing older than `limit`.
    fn end(&self, limit: Duration) -> Moment {
        self.since
            .after(self.ttl.map_or(limit, |ttl| ttl.min(limit)))
    }

    /// Returns whether it is good at `now` for who takes nothing older than `limit`.
    fn is_good(&mut self, prefix: &[u8], key: &[u8], limit: Duration, now: Moment) -> bool {
        now < self.end(limit) && self.slot.of(prefix, key).is_unwritten_since(self.stamp)
    }
}

impl Pieces {
    /// Returns the answer to such a read, if there is one that is no older than `limit`: than the
    /// scope's usual age where there is none.
    pub(super) fn look(
        &mut self,
        prefix: &[u8],
        key: &[u8],
        reading: Reading,
        limit: Option<Duration>,
        clock: &Clock,
    ) -> Option<&mut Answer> {
        let held = self.held.get_mut(key)?;
        let may = held.named || !matches!(reading, Reading::Plain(None));
        let end = limit.map_or(held.until, |limit| held.end(limit));
        let is_good =
            may && held.slot.of(prefix, key).is_unwritten_since(held.stamp) && !clock.has_come(end);
        is_good.then_some(&mut held.answer)
    }

    pub(super) fn answer(&mut self, key: &[u8]) -> Option<&mut Answer> {
        Some(&mut self.held.get_mut(key)?.answer)
    }

    pub(super) fn forget(&mut self, key: &[u8]) {
        self.held.remove(key);
    }

    /// Notes when the value of `key` ends, by the wall clock. Returns whether that has come: then
    /// it is no longer held.
    pub(super) fn end_at(&mut self, key: &[u8], end: Duration, clock: &Clock) -> bool {
        let Some(held) = self.held.get_mut(key) else {
            return false;
        };
        let left = end.saturating_sub(clock.wall());
        if left.is_zero() {
            self.held.remove(key);
            return true;
        }
        let ttl = clock.now().since(held.since).saturating_add(left);
        let ttl = held.ttl.map_or(ttl, |before| before.min(ttl));
        held.ttl = Some(ttl);
        held.until = held.until.min(held.since.after(ttl));
        false
    }

    /// Ends an absence that was read, unless it is good for more reads.
    pub(super) fn spend_absence(&mut self, key: &[u8], reading: Reading) {
        let spent = self.held.get(key).is_some_and(|held| {
            held.once
                && matches!(held.answer, Answer::Absent)
                && !matches!(reading, Reading::Plain(None))
        });
        if spent {
            self.held.remove(key);
        }
    }

    /// Ends the plain answers that are held.
    pub(super) fn end_plain(&mut self) {
        self.held.retain(|_, held| !held.plain);
    }

    fn is_named(&self, key: &[u8]) -> bool {
        self.held.get(key).is_some_and(|held| held.named)
    }

    /// Makes room, by dropping what is too old to be read: a scope around a long task must not grow
    /// with everything that the task ever read.
    fn sweep(&mut self, now: Moment) {
        if self.held.len() >= self.sweep_at {
            let oldest = self.oldest;
            self.held.retain(|_, held| now < held.end(oldest));
            self.sweep_at = (2 * self.held.len()).max(SWEEP_FROM);
        }
    }
}

impl Scope {
    /// Returns those of `keys` that a preload by name has to ask for, each once. Plain reads of the
    /// others are reads of pieces from here on.
    pub(crate) fn name<'k, K: AsRef<[u8]>>(&self, keys: &'k [K]) -> Vec<&'k [u8]> {
        let now = self.clock.now();
        let state = &mut *self.state();
        let limit = self.limit(state, Reading::Plain(None));
        let limit = limit.unwrap_or(self.max_age);
        let pieces = &mut state.pieces;
        let mut seen = HashSet::with_capacity(keys.len());
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys.iter().map(AsRef::as_ref) {
            let held = pieces.held.get_mut(key);
            match held.and_then(|held| held.is_good(&self.prefix, key, limit, now).then_some(held))
            {
                Some(held) => (held.named, held.once) = (true, false),
                None if seen.insert(key) => wanted.push(key),
                None => {}
            }
        }
        wanted
    }

    /// Returns whether a fetch of `key` needs no trip.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        let now = self.clock.now();
        let state = &mut *self.state();
        let limit = self.limit(state, Reading::Piece(None));
        let limit = limit.unwrap_or(self.max_age);
        let held = state.pieces.held.get_mut(key);
        held.is_some_and(|held| held.is_good(&self.prefix, key, limit, now))
    }

    /// Returns whether plain reads of `key` are reads of a piece.
    pub(crate) fn is_named(&self, key: &[u8]) -> bool {
        self.state().pieces.is_named(key)
    }

    /// Keeps the pieces that a trip brought: entries as they came, and absences. Plain reads of them
    /// are reads of pieces if the program preloads them by name.
    pub(crate) fn keep_all(
        &self,
        ticket: Ticket,
        by_name: bool,
        answers: impl Iterator<Item = (Bytes, Option<Stored>)>,
    ) {
        let state = &mut *self.state();
        if !state.open {
            return;
        }
        let pieces = &mut state.pieces;
        pieces.oldest = pieces.oldest.max(self.max_age);
        pieces.held.reserve(answers.size_hint().1.unwrap_or(0));
        for (key, stored) in answers {
            let named = by_name || pieces.is_named(&key);
            let ttl = stored.as_ref().and_then(|stored| stored.left);
            let held = Held {
                answer: stored.map_or(Answer::Absent, |stored| Answer::Sealed(stored.bytes)),
                slot: LazySlot::default(),
                since: ticket.departed,
                stamp: ticket.stamp,
                until: ticket.departed.after(self.usual(ttl)),
                ttl,
                named,
                plain: false,
                once: !named,
            };
            pieces.held.insert(key, held);
        }
    }

    /// Keeps an opened answer that a trip brought to such a read. `end` is when its value ends, if
    /// it tells, and `left` how long it had to live then, if the store tells.
    pub(crate) fn keep(
        &self,
        ticket: Ticket,
        key: &[u8],
        answer: Option<(Content, Option<Memo>)>,
        end: Option<Duration>,
        left: Option<Duration>,
        reading: Reading,
    ) {
        let answer = answer.map_or(Answer::Absent, |(content, memo)| {
            Answer::Opened(content, memo)
        });
        self.put(ticket, key, answer, left, reading);
        if let Some(end) = end {
            self.state().pieces.end_at(key, end, &self.clock);
        }
    }

    /// Keeps the entry that a fetch made, or found instead, which lives for `ttl`.
    pub(crate) fn keep_made(
        &self,
        ticket: Ticket,
        key: &[u8],
        entry: Bytes,
        ttl: Option<Duration>,
    ) {
        self.put(
            ticket,
            key,
            Answer::Sealed(entry),
            None,
            Reading::Piece(ttl),
        );
    }

    /// Returns how long a value that lives for `ttl` is good by the scope's usual age.
    fn usual(&self, ttl: Option<Duration>) -> Duration {
        ttl.map_or(self.max_age, |ttl| ttl.min(self.max_age))
    }

    fn put(
        &self,
        ticket: Ticket,
        key: &[u8],
        answer: Answer,
        left: Option<Duration>,
        reading: Reading,
    ) {
        let state = &mut *self.state();
        if !state.open {
            return;
        }
        let named = state.pieces.is_named(key);
        let (ttl, hold) = match reading {
            Reading::Piece(ttl) => (ttl, None),
            // Exact: it is read anew each time.
            Reading::Plain(None) if !named => return,
            Reading::Plain(hold) => (None, hold),
        };
        let ttl = sooner(ttl, left);
        if matches!(reading, Reading::Piece(_)) {
            state.snapshot.supersede(key);
        }
        let pieces = &mut state.pieces;
        pieces.oldest = pieces.oldest.max(hold.unwrap_or(self.max_age));
        pieces.sweep(ticket.departed);
        let held = Held {
            answer,
            slot: LazySlot::default(),
            since: ticket.departed,
            stamp: ticket.stamp,
            until: ticket.departed.after(self.usual(ttl)),
            ttl,
            named,
            plain: hold.is_some() && !named,
            once: false,
        };
        pieces.held.insert(Bytes::copy_from_slice(key), held);
    }
}

/// Returns the shorter of two spans, of which either may be unknown.
pub(crate) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::super::Work;
    use super::*;

    #[test]
    fn old_answers_do_not_pile_up() {
        let clock = Clock::manual();
        let second = Duration::from_secs(1);
        let scope = Scope::new(
            clock.clone(),
            Bytes::new(),
            10 * second,
            second / 10,
            Work::Other,
        );
        for number in 0..3 * SWEEP_FROM {
            let ticket = scope.depart(false);
            let key = number.to_string();
            scope.keep_made(ticket, key.as_bytes(), Bytes::from_static(b"1"), None);
            clock.advance(second);
        }
        assert!(scope.state().pieces.held.len() <= SWEEP_FROM);
    }
}

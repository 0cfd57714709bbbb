//! What one page (request, task) already holds.
//!
//! Scopes nest, and all that are open for one cache around the same code share one [`Scope`]: what
//! an inner one learns or writes, the outer ones see, and writes leave when the outermost closes.
//!
//! For each key a scope holds one answer and how long it is good for. Three rules decide it all:
//!
//! - An answer is good for `scope_max_age`, or for as long as the entry lives if that is known and
//!   shorter. After that the store is asked again.
//! - *Absent* is good for one read, so that a program that waits for a key still sees it come.
//! - A write that has not left yet goes with the next operation on its key that travels, so that
//!   the store never sees the two in the wrong order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::clock::{Clock, Moment};
use crate::codec::Memo;
use crate::entry::{BadEntry, Content};
use crate::learn::{Page, Use, Visit};
use crate::trip::Ttl;

/// The most bytes of entries that wait in a scope to be written. Writes beyond go at once.
pub const MAX_PENDING: usize = 64 << 20;

/// The most keys that a visit remembers: of more, no page is made in one trip anyway.
const MAX_READS: usize = 10_000;

/// Scopes with fewer answers than this are not searched for old ones.
const SWEEP_FROM: usize = 1024;

/// The answers and writes that one page holds for one cache.
#[derive(Debug)]
pub struct Scope {
    clock: Clock,
    max_age: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: bool,
    /// By key. Of a preload, keys are pieces of one memory.
    held: HashMap<Bytes, Held>,
    /// Bytes of entries among `held` that wait to be written.
    pending: usize,
    /// Counts what changes entries, so that an answer that was under way meanwhile is known.
    changes: u64,
    /// How many answers make it worth looking for old ones.
    sweep_at: usize,
    /// The pages that it is made for, outermost first.
    visits: Vec<OpenVisit>,
}

/// A visit that goes on.
#[derive(Debug)]
struct OpenVisit {
    page: Arc<Page>,
    /// Whether a trip has taken along what the page is likely to read.
    departed: bool,
    visit: Visit,
}

#[derive(Debug)]
struct Held {
    answer: Answer,
    good_until: Moment,
    /// The write that this answer comes from, if it still has to leave.
    pending: Option<Pending>,
}

impl Held {
    /// Whether a read needs no trip.
    fn answers(&self, now: Moment) -> bool {
        self.pending.is_some() || now < self.good_until
    }
}

#[derive(Debug)]
enum Answer {
    Absent,
    Sealed(Bytes),
    Opened(Content, Option<Memo>),
}

#[derive(Debug)]
struct Pending {
    entry: Bytes,
    expires: Option<Moment>,
}

/// What a scope says of a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    Value(Content, Option<Memo>),
    Absent,
    Bad(BadEntry),
    Unknown,
}

/// A write that waited in a scope, as it is to leave now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    Set(Bytes, Ttl),
    /// It expired while it waited, and so did what it would have replaced.
    Delete,
}

/// Proof of what a scope knew when a trip began. Its answers are kept only if that still holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Scope {
    pub(crate) fn new(clock: Clock, max_age: Duration) -> Self {
        Self {
            clock,
            max_age,
            state: Mutex::new(State {
                open: true,
                held: HashMap::new(),
                pending: 0,
                changes: 0,
                sweep_at: SWEEP_FROM,
                visits: Vec::new(),
            }),
        }
    }

    /// The state, also after a panic elsewhere: every change to it is complete in itself.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the page is still being made. A closed scope holds nothing and keeps nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().open
    }

    /// What is known of `key`, opening its entry by `open` at the first look.
    pub(crate) fn look(
        &self,
        key: &[u8],
        open: impl FnOnce(&Bytes) -> Result<Content, BadEntry>,
    ) -> Lookup {
        let state = &mut *self.state();
        let Some(held) = state.held.get_mut(key) else {
            return Lookup::Unknown;
        };
        if self.clock.has_come(held.good_until) {
            return Lookup::Unknown;
        }
        match &held.answer {
            Answer::Opened(content, memo) => {
                let answer = Lookup::Value(content.clone(), memo.clone());
                let (bytes, own) = (content.payload.len(), held.pending.is_some());
                state.note(key, bytes, own);
                return answer;
            }
            Answer::Sealed(entry) => match open(entry) {
                Ok(content) => {
                    let (bytes, own) = (content.payload.len(), held.pending.is_some());
                    held.answer = Answer::Opened(content.clone(), None);
                    state.note(key, bytes, own);
                    return Lookup::Value(content, None);
                }
                Err(bad) => {
                    state.drop_key(key);
                    return Lookup::Bad(bad);
                }
            },
            Answer::Absent => {}
        }
        state.note(key, 0, false);
        state.drop_key(key);
        Lookup::Absent
    }

    /// Those of `keys` that a preload has to ask for, each once.
    pub(crate) fn wanted<'k, K: AsRef<[u8]>>(&self, keys: &'k [K]) -> (Vec<&'k [u8]>, Ticket) {
        let state = self.state();
        let now = self.clock.now();
        let mut seen = HashSet::with_capacity(keys.len());
        let mut wanted = Vec::with_capacity(keys.len());
        wanted.extend(keys.iter().map(AsRef::as_ref).filter(|key| {
            let held = state.held.get(*key);
            !held.is_some_and(|held| held.answers(now)) && seen.insert(*key)
        }));
        (wanted, Ticket(state.changes))
    }

    /// Proof of what is known now.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.state().changes)
    }

    /// Whether a read of `key` needs no trip.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        let now = self.clock.now();
        let state = self.state();
        state.held.get(key).is_some_and(|held| held.answers(now))
    }

    /// Begins an operation on `key` that travels: takes its waiting write along.
    pub(crate) fn depart(&self, key: &[u8]) -> (Option<Leaving>, Ticket) {
        let mut state = self.state();
        let leaving = state
            .drop_key(key)
            .map(|write| write.leave(self.clock.now()));
        if leaving.is_some() {
            state.changes += 1;
        }
        (leaving, Ticket(state.changes))
    }

    /// Begins an operation that changes `key`: whatever is held of it no longer counts. Its
    /// waiting write comes back for the caller to take along or to drop.
    pub(crate) fn forget(&self, key: &[u8]) -> (Option<Leaving>, Ticket) {
        let mut state = self.state();
        state.changes += 1;
        let leaving = state
            .drop_key(key)
            .map(|write| write.leave(self.clock.now()));
        (leaving, Ticket(state.changes))
    }

    /// Ends an operation that changed `key`: what a read brought of it meanwhile no longer counts.
    /// A write that began meanwhile still waits.
    pub(crate) fn doubt(&self, key: &[u8]) {
        let mut state = self.state();
        state.changes += 1;
        if let Some(held) = state.held.get(key)
            && held.pending.is_none()
        {
            state.held.remove(key);
        }
    }

    /// The same for an operation that changed every key.
    pub(crate) fn doubt_all(&self) {
        let mut state = self.state();
        state.changes += 1;
        state.held.retain(|_, held| held.pending.is_some());
    }

    /// Begins an operation that changes every key: nothing that is held counts any more. The
    /// waiting writes come back for the caller to take along.
    pub(crate) fn forget_all(&self) -> Vec<(Bytes, Leaving)> {
        let mut state = self.state();
        state.changes += 1;
        state.take_all(self.clock.now())
    }

    /// Keeps an opened answer that a trip brought, which lives for `ttl` if that is known.
    pub(crate) fn keep(
        &self,
        ticket: Ticket,
        key: &[u8],
        content: Content,
        memo: Option<Memo>,
        ttl: Ttl,
    ) {
        self.put(ticket, key, Answer::Opened(content, memo), ttl);
    }

    /// Keeps the answers that a preload brought: entries as they came, and absences.
    pub(crate) fn keep_all(
        &self,
        ticket: Ticket,
        answers: impl Iterator<Item = (Bytes, Option<Bytes>)>,
    ) {
        let good_until = self.clock.now().after(self.max_age);
        let mut state = self.state();
        if !state.open || state.changes != ticket.0 {
            return;
        }
        state.held.reserve(answers.size_hint().1.unwrap_or(0));
        for (key, entry) in answers {
            let answer = entry.map_or(Answer::Absent, Answer::Sealed);
            let held = Held {
                answer,
                good_until,
                pending: None,
            };
            state.held.insert(key, held);
        }
    }

    /// Ends operations that wrote keys at once: keeps what is now in the store, where that is
    /// known. What a read brought meanwhile no longer counts, nor what was written if another
    /// operation came between.
    pub(crate) fn keep_written<'k>(
        &self,
        ticket: Ticket,
        written: impl IntoIterator<Item = (&'k [u8], Option<(Bytes, Ttl)>)>,
    ) {
        let now = self.clock.now();
        let mut state = self.state();
        let undisturbed = state.open && state.changes == ticket.0;
        state.changes += 1;
        for (key, entry) in written {
            let held = state.held.get(key);
            if held.is_some_and(|held| held.pending.is_some()) {
                // A later write waits.
                continue;
            }
            match entry.filter(|_| undisturbed) {
                Some((entry, ttl)) => {
                    state.size(key, entry.len());
                    state.hold(
                        now,
                        key,
                        Answer::Sealed(entry),
                        self.good_until(now, ttl),
                        None,
                    );
                }
                None => drop(state.held.remove(key)),
            }
        }
    }

    fn put(&self, ticket: Ticket, key: &[u8], answer: Answer, ttl: Ttl) {
        let now = self.clock.now();
        let mut state = self.state();
        if state.open && state.changes == ticket.0 {
            state.hold(now, key, answer, self.good_until(now, ttl), None);
        }
    }

    /// How long an answer is good for that lives for `ttl`, if that is known.
    fn good_until(&self, now: Moment, ttl: Ttl) -> Moment {
        now.after(ttl.map_or(self.max_age, |ttl| ttl.min(self.max_age)))
    }

    /// Keeps beside the entry of `key` what was decoded from it.
    pub(crate) fn memoize(&self, key: &[u8], of: &Content, decoded: Memo) {
        if let Some(Held { answer: Answer::Opened(content, memo), .. }) = self.state().held.get_mut(key)
            // The same bytes, not equal ones: another task may have written meanwhile.
            && content.payload.as_ptr() == of.payload.as_ptr()
        {
            *memo = Some(decoded);
        }
    }

    /// Keeps a write until the scope closes. Gives it back if it has to go at once: the scope is
    /// closed, or too much waits already.
    pub(crate) fn write(&self, key: &[u8], entry: Bytes, ttl: Ttl) -> Result<(), Bytes> {
        let now = self.clock.now();
        let mut state = self.state();
        if !state.open || state.pending + entry.len() > MAX_PENDING {
            return Err(entry);
        }
        state.changes += 1;
        state.drop_key(key);
        state.pending += entry.len();
        state.size(key, entry.len());
        let answer = Answer::Sealed(entry.clone());
        let pending = Pending {
            entry,
            expires: ttl.map(|ttl| now.after(ttl)),
        };
        state.hold(now, key, answer, self.good_until(now, ttl), Some(pending));
        Ok(())
    }

    /// Gives what has to leave now, and goes on: the answers that it came from are kept.
    pub(crate) fn settle(&self) -> Vec<(Bytes, Leaving)> {
        let mut state = self.state();
        state.pending = 0;
        let now = self.clock.now();
        let held = state.held.iter_mut();
        held.filter_map(|(key, held)| Some((key.clone(), held.pending.take()?.leave(now))))
            .collect()
    }

    /// Ends the scope and gives what has to leave. A second call gives nothing.
    pub(crate) fn close(&self) -> Vec<(Bytes, Leaving)> {
        let mut state = self.state();
        state.open = false;
        state.take_all(self.clock.now())
    }
}

/// Visits: what the pages read that the scope is made for.
impl Scope {
    /// Begins a visit to `page`, which ends with the scope if not before.
    pub(crate) fn begin_visit(&self, page: Arc<Page>) {
        self.state().visits.push(OpenVisit {
            page,
            departed: false,
            visit: Visit::default(),
        });
    }

    /// Whether it is made for a page.
    #[cfg(feature = "tower")]
    pub(crate) fn is_visited(&self) -> bool {
        !self.state().visits.is_empty()
    }

    /// Ends the visit to `page` that began last.
    pub(crate) fn end_visit(&self, page: &Arc<Page>) -> Option<Visit> {
        let visits = &mut self.state().visits;
        let at = visits
            .iter()
            .rposition(|open| Arc::ptr_eq(&open.page, page))?;
        Some(visits.remove(at).visit)
    }

    /// Ends all visits.
    pub(crate) fn end_visits(&self) -> Vec<(Arc<Page>, Visit)> {
        let visits = std::mem::take(&mut self.state().visits);
        visits
            .into_iter()
            .map(|open| (open.page, open.visit))
            .collect()
    }

    /// Counts a trip that reads.
    pub(crate) fn count_trip(&self) {
        for open in &mut self.state().visits {
            open.visit.trips += 1;
        }
    }

    /// Begins a read that travels. The pages whose first one it is.
    pub(crate) fn depart_visits(&self) -> SmallVec<[Arc<Page>; 1]> {
        let visits = &mut self.state().visits;
        let departing = visits.iter_mut().filter_map(|open| {
            let first = !std::mem::replace(&mut open.departed, true);
            first.then(|| Arc::clone(&open.page))
        });
        departing.collect()
    }

    /// Lets the next trip take along what `page` is likely to read: nothing was known of it before.
    pub(crate) fn depart_again(&self, page: &Arc<Page>) {
        for open in self.state().visits_to(page) {
            open.departed = false;
        }
    }

    /// Notes a key that was read from the store.
    pub(crate) fn note_read(&self, key: &[u8], bytes: usize) {
        self.state().note(key, bytes, false);
    }

    /// Notes a key that was asked for since `page` is likely to read it.
    pub(crate) fn note_ahead(&self, page: &Arc<Page>, key: &[u8], bytes: usize) {
        for open in self.state().visits_to(page) {
            open.visit.ahead.insert(key.into(), length(bytes));
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl State {
    fn visits_to(&mut self, page: &Arc<Page>) -> impl Iterator<Item = &mut OpenVisit> {
        let visits = self.visits.iter_mut();
        visits.filter(move |open| Arc::ptr_eq(&open.page, page))
    }

    /// Notes a key that was read. What the page itself wrote needed no store, unless it was read
    /// from there before.
    fn note(&mut self, key: &[u8], bytes: usize, own: bool) {
        for open in &mut self.visits {
            let uses = &mut open.visit.uses;
            if !own && uses.len() < MAX_READS && !uses.contains_key(key) {
                let used = Use {
                    bytes: length(bytes),
                    piece: true,
                    ..Use::default()
                };
                uses.insert(key.into(), used);
            }
        }
    }

    /// Notes how large an entry is that a page missed and then wrote: the next visit finds it.
    fn size(&mut self, key: &[u8], bytes: usize) {
        for open in &mut self.visits {
            if let Some(used) = open.visit.uses.get_mut(key)
                && used.bytes == 0
            {
                used.bytes = length(bytes);
            }
        }
    }

    /// Empties the scope, and gives what has to leave.
    fn take_all(&mut self, now: Moment) -> Vec<(Bytes, Leaving)> {
        self.pending = 0;
        std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(|(key, held)| Some((key, held.pending?.leave(now))))
            .collect()
    }

    /// Holds an answer, having made room for it.
    fn hold(
        &mut self,
        now: Moment,
        key: &[u8],
        answer: Answer,
        good_until: Moment,
        pending: Option<Pending>,
    ) {
        self.sweep(now);
        let held = Held {
            answer,
            good_until,
            pending,
        };
        self.held.insert(Bytes::copy_from_slice(key), held);
    }

    fn drop_key(&mut self, key: &[u8]) -> Option<Pending> {
        let pending = self.held.remove(key)?.pending?;
        self.pending -= pending.entry.len();
        Some(pending)
    }

    /// Drops answers that are too old, once there are many: a scope around a long task must not
    /// grow with everything that the task ever read.
    fn sweep(&mut self, now: Moment) {
        if self.held.len() >= self.sweep_at {
            self.held
                .retain(|_, held| held.pending.is_some() || now < held.good_until);
            self.sweep_at = (2 * self.held.len()).max(SWEEP_FROM);
        }
    }
}

impl Pending {
    fn leave(self, now: Moment) -> Leaving {
        match self.expires.map(|expires| expires.since(now)) {
            Some(Duration::ZERO) => Leaving::Delete,
            ttl => Leaving::Set(self.entry, ttl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_at_once_does_not_pile_up() {
        let clock = Clock::manual();
        let scope = Scope::new(clock.clone(), Duration::from_secs(10));
        for number in 0..3 * SWEEP_FROM {
            let key = number.to_string();
            let (_, ticket) = scope.forget(key.as_bytes());
            let stored = Some((Bytes::from_static(b"1"), None));
            scope.keep_written(ticket, [(key.as_bytes(), stored)]);
            clock.advance(Duration::from_secs(1));
        }
        assert!(scope.state().held.len() <= SWEEP_FROM);
    }
}

//! What the pages did that a scope is open for.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{Reading, Scope, State, Ticket, Work};
use crate::learn::{Page, Predicted, Use, Visit};

/// The most keys that a visit remembers: no page makes one trip of more.
const MAX_USES: usize = 10_000;

/// The visits of a scope, outermost first, and what it does besides.
#[derive(Debug, Default)]
pub(super) struct Visits {
    open: Vec<OpenVisit>,
    /// What was done while no page was visited. Its changes count, too.
    rest: Visit,
    /// Marks of the entries that plain reads found last, to tell a change between two reads.
    marks: HashMap<Box<[u8]>, u64>,
    /// Whether the next key that is read again is to be asked for anew, and the whole snapshot with
    /// it.
    verifies: bool,
}

/// A visit that goes on.
#[derive(Debug)]
struct OpenVisit {
    page: Arc<Page>,
    /// What it is likely to read, from its first trip on.
    expected: Option<Arc<[Predicted]>>,
    visit: Visit,
}

/// What is known of the pages that a scope serves.
pub(crate) struct Outlook {
    /// Those whose first trip is still to come.
    pub(crate) departing: SmallVec<[Arc<Page>; 1]>,
    /// What the others are likely to read.
    pub(crate) expected: SmallVec<[Arc<[Predicted]>; 1]>,
    /// Whether plain reads may be answered by a snapshot.
    pub(crate) snapshots: bool,
}

/// A plain write, as a visit notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set,
    Touch,
    Delete,
    /// An add, an increment, a lock: an agreement with other processes.
    Exact,
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Returns a number that tells an entry from another, as far as learning needs it.
fn mark(entry: &[u8]) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // An entry with a header begins with its seal. Another is hashed whole, up to a page's worth.
    let most = if entry.first() == Some(&0xC1) {
        40
    } else {
        4096
    };
    STATE.hash_one((entry.len(), entry.get(..most).unwrap_or(entry)))
}

impl Visits {
    /// Changes what every open visit notes of `key`.
    fn note(&mut self, key: &[u8], change: impl Fn(&mut Use)) {
        let change = |visit: &mut Visit| {
            let room = visit.uses.len() < MAX_USES;
            match visit.uses.get_mut(key) {
                Some(used) => change(used),
                None if room => {
                    let mut used = Use::default();
                    change(&mut used);
                    visit.uses.insert(key.into(), used);
                }
                None => {}
            }
        };
        match &mut self.open[..] {
            [] => change(&mut self.rest),
            open => open.iter_mut().map(|open| &mut open.visit).for_each(change),
        }
    }

    /// Returns whether a snapshot must not answer this read, since the visit verifies.
    pub(super) fn verifies(&self, key: &[u8]) -> bool {
        let is_read =
            |open: &OpenVisit| open.visit.uses.get(key).is_some_and(|used| used.reads > 0);
        self.verifies && self.open.iter().any(is_read)
    }

    /// Notes that the snapshot was replaced: what it answers was verified if it was not the first.
    pub(super) fn replaced(&mut self, was_taken: bool) {
        self.verifies &= !was_taken;
    }

    /// Notes a read that the scope answered: the bytes of its value, or none.
    pub(super) fn note_held(&mut self, key: &[u8], reading: Reading, bytes: Option<usize>) {
        // Only pages learn what they read of what is held.
        if self.open.is_empty() {
            return;
        }
        match reading {
            Reading::Piece(_) => self.note_piece(key, bytes.unwrap_or(0)),
            Reading::Plain(_) => self.note_plain(key, bytes),
        }
    }

    fn note_piece(&mut self, key: &[u8], bytes: usize) {
        self.note(key, |used| {
            used.piece = true;
            used.bytes = used.bytes.max(length(bytes));
        });
    }

    /// Compares an entry with what was seen of its key before.
    fn compare(&mut self, key: &[u8], entry: Option<&[u8]>) {
        let now = entry.map_or(0, mark);
        let room = self.marks.len() < MAX_USES;
        let before = match self.marks.get_mut(key) {
            Some(mark) => Some(std::mem::replace(mark, now)),
            None if room => self.marks.insert(key.into(), now),
            None => None,
        };
        if let Some(before) = before {
            // What appeared was filled, by whomever. What was there and is another was changed.
            let differs = before != 0 && before != now;
            self.note(key, |used| {
                used.compared = true;
                used.changed |= differs;
            });
        }
    }

    fn note_plain(&mut self, key: &[u8], bytes: Option<usize>) {
        self.note(key, |used| {
            used.reads = used.reads.saturating_add(1);
            used.found |= bytes.is_some();
            used.absent = bytes.is_none();
            if let Some(bytes) = bytes {
                used.bytes = length(bytes);
            }
        });
    }
}

impl Scope {
    /// Begins a visit to `page`, which ends with the scope if not before.
    /// If it `verifies`, the first key that plain calls read again is asked for anew.
    pub(crate) fn begin_visit(&self, page: Arc<Page>, verifies: bool) {
        let visits = &mut self.state().visits;
        visits.verifies = verifies;
        visits.open.push(OpenVisit {
            page,
            expected: None,
            visit: Visit::default(),
        });
    }

    /// Returns whether the scope serves a page.
    #[cfg(feature = "tower")]
    pub(crate) fn is_visited(&self) -> bool {
        !self.state().visits.open.is_empty()
    }

    /// Ends the visit to `page` that began last.
    pub(crate) fn end_visit(&self, page: &Arc<Page>) -> Option<Visit> {
        let state = &mut *self.state();
        let open = &mut state.visits.open;
        let at = open
            .iter()
            .rposition(|open| Arc::ptr_eq(&open.page, page))?;
        let visit = open.remove(at).visit;
        if open.is_empty() {
            // What follows is no page: its plain reads ask the store.
            state.snapshot.end();
        }
        Some(visit)
    }

    /// Ends all visits.
    pub(crate) fn end_visits(&self) -> Vec<(Arc<Page>, Visit)> {
        let state = &mut *self.state();
        let open = std::mem::take(&mut state.visits.open);
        state.snapshot.end();
        open.into_iter()
            .map(|open| (open.page, open.visit))
            .collect()
    }

    /// Takes what was done while no page was visited.
    pub(crate) fn take_rest(&self) -> Visit {
        std::mem::take(&mut self.state().visits.rest)
    }

    /// Counts a trip that reads.
    pub(crate) fn count_trip(&self) {
        for open in &mut self.state().visits.open {
            open.visit.trips += 1;
        }
    }

    /// Returns what is known of the pages that this scope serves, if it serves one.
    pub(crate) fn outlook(&self) -> Option<Outlook> {
        let state = self.state();
        let open = &state.visits.open;
        if open.is_empty() || !state.open {
            return None;
        }
        let departing = open.iter().filter(|open| open.expected.is_none());
        Some(Outlook {
            departing: departing.map(|open| Arc::clone(&open.page)).collect(),
            expected: open
                .iter()
                .filter_map(|open| open.expected.clone())
                .collect(),
            snapshots: !state.sending && self.work != Work::Request,
        })
    }

    /// Says what `page` is likely to read, as its first trip departs.
    pub(crate) fn expect(&self, page: &Arc<Page>, expected: Arc<[Predicted]>) {
        for open in &mut self.state().visits.open {
            if Arc::ptr_eq(&open.page, page) {
                open.expected = Some(Arc::clone(&expected));
            }
        }
    }

    /// Lets the next trip bring what `page` is likely to read: more was learned of it meanwhile.
    pub(crate) fn depart_again(&self, page: &Arc<Page>) {
        for open in &mut self.state().visits.open {
            if Arc::ptr_eq(&open.page, page) {
                open.expected = None;
            }
        }
    }

    /// Returns whether a visit has read `key` by a plain call.
    pub(crate) fn has_read(&self, key: &[u8]) -> bool {
        let state = self.state();
        let mut open = state.visits.open.iter();
        open.any(|open| open.visit.uses.get(key).is_some_and(|used| used.reads > 0))
    }

    /// Notes a read that the store answered.
    pub(crate) fn note_read(
        &self,
        ticket: Ticket,
        key: &[u8],
        reading: Reading,
        entry: Option<&Bytes>,
    ) {
        let State {
            visits, snapshot, ..
        } = &mut *self.state();
        match reading {
            Reading::Piece(_) => visits.note_piece(key, entry.map_or(0, Bytes::len)),
            Reading::Plain(_) => {
                visits.compare(key, entry.map(|entry| &**entry));
                visits.note_plain(key, entry.map(Bytes::len));
                if let Some(entry) = entry {
                    snapshot.note_read(ticket, key, entry);
                }
            }
        }
    }

    /// Compares what a snapshot brings with what plain reads found before.
    pub(crate) fn compare(&self, key: &[u8], entry: Option<&[u8]>) {
        self.state().visits.compare(key, entry);
    }

    /// Notes a plain write, of this entry if it sets one.
    pub(crate) fn note_write(&self, key: &[u8], change: Change, entry: Option<&[u8]>) {
        let visits = &mut self.state().visits;
        // The next read is no change: it finds what this wrote.
        let before = visits.marks.remove(key);
        // Some programs write back what they have just read. That changes nothing.
        let is_same = change == Change::Set && before == entry.map(mark);
        visits.note(key, |used| {
            used.wrote = true;
            used.changed |= match change {
                Change::Set | Change::Exact => used.found && !is_same,
                Change::Touch => false,
                Change::Delete => true,
            };
            used.exact |= change == Change::Exact;
            if let (Change::Set, Some(entry), 0) = (change, entry, used.bytes) {
                // The next visit finds it.
                used.bytes = length(entry.len());
            }
        });
    }

    /// Notes how large the piece is that a page missed and then made: the next visit finds it.
    pub(crate) fn note_made(&self, key: &[u8], bytes: usize) {
        self.state().visits.note_piece(key, bytes);
    }

    /// Notes a key that was asked for because `page` is likely to read it.
    pub(crate) fn note_ahead(&self, page: &Arc<Page>, key: &[u8], bytes: usize) {
        for open in &mut self.state().visits.open {
            if Arc::ptr_eq(&open.page, page) {
                open.visit.ahead.insert(key.into(), length(bytes));
            }
        }
    }
}

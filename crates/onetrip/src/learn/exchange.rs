//! What workers tell each other on trips that their pages make anyway, and when.

use std::time::Duration;

use super::lists::PageList;
use super::record::{self, Heard};
use super::report::Totals;
use super::route::Route;
use super::{Learner, Page, lists, lock};
use crate::clock::Moment;

/// So many visits of this process make a route worth telling of: what is asked for once is often
/// what nobody asks for again.
const FEW: u64 = 2;

/// How often a worker exchanges what it knows of a route, if that is visited at all.
pub(super) const EXCHANGE: Duration = Duration::from_secs(60);

/// How long nothing is exchanged with a store that refused it.
pub(super) const REST: Duration = Duration::from_secs(30 * 60);

/// When a store refused to give, or to take, what workers tell each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    load: Option<Moment>,
    save: Option<Moment>,
}

/// A route, what came of it, and when it was exchanged.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) route: Route,
    pub(super) totals: Totals,
    loaded: Option<Moment>,
    saved: Option<Moment>,
    /// Whether it was saved on a trip of its own since it was loaded.
    told: bool,
    /// Whether there were visits since it was saved.
    pub(super) changed: bool,
}

/// What to exchange with other workers on the next trip.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Whether to ask for the record of the route.
    pub load: bool,
    /// The record to leave there.
    pub save: Option<Vec<u8>>,
    /// Whether to ask for the index of all routes that have a record.
    pub load_index: bool,
    /// The index to leave there.
    pub save_index: Option<Vec<u8>>,
    /// Whether to ask for the keys that pages changed.
    pub load_changes: bool,
    /// The keys that pages changed, to leave there.
    pub save_changes: Option<Vec<u8>>,
    /// Whether to ask for the list of this page.
    pub load_list: bool,
    /// Lists of pages to leave there, of any route.
    pub save_lists: Vec<PageList>,
}

impl Known {
    /// Mostly what others know is heard first, and the next trip tells them what is known then. A
    /// route that is visited less often than it is exchanged does both at once: it has no next trip
    /// before it is to hear again.
    fn exchange(&mut self, page: &Page, now: Moment, may_save: bool) -> Exchange {
        let is_due = |last: Option<Moment>| last.is_none_or(|last| now.since(last) >= EXCHANGE);
        let load = is_due(self.loaded);
        // Before a record was heard, nothing tells whether pages have lists.
        let may_have_lists = self.route.has_lists() || self.loaded.is_none();
        let waits = load && (self.loaded.is_none() || std::mem::take(&mut self.told));
        if load {
            self.loaded = Some(now);
        }
        let is_known = self.route.visits >= FEW;
        let save = may_save && self.changed && is_known && is_due(self.saved) && !waits;
        self.told |= save && !load;
        Exchange {
            load,
            load_list: may_have_lists && self.route.lacks_list(page),
            save: save.then(|| {
                self.saved = Some(now);
                self.changed = false;
                record::write(&self.route, &self.totals.recent)
            }),
            ..Exchange::default()
        }
    }
}

impl Learner {
    /// Returns what the next trip of `page` is to take along for other workers, and to bring from
    /// them: seldom anything. What is given to be saved counts as saved.
    #[must_use]
    pub fn exchange(&self, page: &Page, now: Moment) -> Exchange {
        let rests = |refused: Option<Moment>| refused.is_some_and(|last| now.since(last) < REST);
        let refused = *lock(&self.refused);
        if rests(refused.load) {
            return Exchange::default();
        }
        let may_save = !rests(refused.save);
        let mut exchange = self.with(page, |known| known.exchange(page, now, may_save));
        let changes = &mut *lock(&self.changes);
        if exchange.load {
            exchange.load_index = lock(&self.index).load(now);
            exchange.load_changes = changes.load(now);
        }
        if exchange.save.is_some() {
            exchange.save_index = lock(&self.index).save(page.route(), now);
        }
        if may_save {
            exchange.save_changes = changes.save(&mut lock(&self.ledger), now);
            let lists = &mut *lock(&self.lists);
            lists.note_trip(now);
            exchange.save_lists = lists.take();
        }
        exchange
    }

    /// Returns whether no record was seen before that cannot be read.
    pub(crate) fn is_first_bad(&self) -> bool {
        !self
            .told_bad
            .swap(true, std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes that the store refused to give records, or to take them, so that it is left alone for
    /// a while.
    pub(crate) fn refused(&self, load: bool, now: Moment) {
        let refused = &mut *lock(&self.refused);
        let which = if load {
            &mut refused.load
        } else {
            &mut refused.save
        };
        *which = Some(now);
    }

    /// Takes over what another worker has learned of the route of `page`. Returns whether `record`
    /// parsed; records of other versions count.
    pub fn merge(&self, page: &Page, record: &[u8]) -> bool {
        let heard = self.with(page, |known| {
            record::merge(&mut known.route, &mut known.totals.recent, record)
        });
        heard != Heard::Junk
    }

    /// Takes the index of routes that the store has, if it has one.
    pub fn merge_index(&self, index: Option<&[u8]>) {
        lock(&self.index).listed(index);
    }

    /// Takes in the keys that pages of other workers changed, if the store has any. Returns whether
    /// they parsed; those of other versions count.
    pub fn merge_changes(&self, changes: Option<&[u8]>) -> bool {
        lock(&self.changes).hear(&mut lock(&self.ledger), changes)
    }

    /// Takes in the list of `page`, if the store has one. Returns whether it names keys that were
    /// not known, or `None` if it cannot be read; lists of other versions count.
    pub fn merge_list(&self, page: &Page, list: Option<&[u8]>) -> Option<bool> {
        let (heard, keys) =
            list.map_or((Heard::Record, Vec::new()), |list| lists::read(page, list));
        if heard == Heard::Junk {
            return None;
        }
        let ledger = &mut *lock(&self.ledger);
        for (key, usage, reads) in &keys {
            if usage.kinds.is_state() {
                ledger.told_reads(key, *reads);
            }
        }
        let keys = keys.into_iter().map(|(key, usage, _)| (key, usage));
        Some(self.with(page, |known| {
            let is_new = known.route.hear_list(page, keys, &self.budget);
            if !is_new {
                known.route.note_listless(page);
            }
            is_new
        }))
    }
}

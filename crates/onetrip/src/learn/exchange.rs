//! Decides what workers exchange on trips that their pages make anyway, and when.

use std::time::Duration;

use super::lists::PageList;
use super::record::{self, Parsed};
use super::report::Totals;
use super::route::Route;
use super::{Learner, Page, lists, lock};
use crate::clock::Moment;

/// Visits of this process after which a route is worth saving. Much of what is visited once is
/// never visited again.
const FEW: u64 = 2;

/// How often a worker exchanges the record of a route that is visited.
pub(super) const EXCHANGE: Duration = Duration::from_secs(60);

/// How long a worker exchanges nothing with a store that refused.
pub(super) const REST: Duration = Duration::from_secs(30 * 60);

/// When a store last refused to load, or to save, records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    load: Option<Moment>,
    save: Option<Moment>,
}

/// A route, its totals, and when it was exchanged.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) route: Route,
    pub(super) totals: Totals,
    loaded: Option<Moment>,
    saved: Option<Moment>,
    /// Whether it was saved on a trip that did not load it, since it was last loaded.
    saved_alone: bool,
    /// Whether there were visits since it was saved.
    pub(super) changed: bool,
}

/// Data that the next trip exchanges with other workers.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Whether to load the record of the route.
    pub load: bool,
    /// The record to save.
    pub save: Option<Vec<u8>>,
    /// Whether to load the index of routes that have a record.
    pub load_index: bool,
    /// The index to save.
    pub save_index: Option<Vec<u8>>,
    /// Whether to load the keys that pages changed.
    pub load_changes: bool,
    /// The changed keys to save.
    pub save_changes: Option<Vec<u8>>,
    /// Whether to load the list of this page.
    pub load_list: bool,
    /// Lists of pages to save, of any route.
    pub save_lists: Vec<PageList>,
}

impl Known {
    /// Usually one trip loads what others know, and the next saves what is known then. A route
    /// visited less often than once per interval does both on one trip: its next trip has to load
    /// again.
    fn exchange(&mut self, page: &Page, now: Moment, may_save: bool) -> Exchange {
        let is_due = |last: Option<Moment>| last.is_none_or(|last| now.since(last) >= EXCHANGE);
        let load = is_due(self.loaded);
        // Before a record was loaded, nothing says whether pages have lists.
        let may_have_lists = self.route.has_lists() || self.loaded.is_none();
        let waits = load && (self.loaded.is_none() || std::mem::take(&mut self.saved_alone));
        if load {
            self.loaded = Some(now);
        }
        let is_known = self.route.visits >= FEW;
        let save = may_save && self.changed && is_known && is_due(self.saved) && !waits;
        self.saved_alone |= save && !load;
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
    /// Returns what the next trip of `page` exchanges with other workers: usually nothing. What it
    /// returns to save counts as saved.
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

    /// Returns whether this is the first unreadable record.
    pub(crate) fn is_first_bad(&self) -> bool {
        !self
            .reported_bad
            .swap(true, std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes that the store refused to load or save records. It is left alone for a while.
    pub(crate) fn refused(&self, load: bool, now: Moment) {
        let refused = &mut *lock(&self.refused);
        let which = if load {
            &mut refused.load
        } else {
            &mut refused.save
        };
        *which = Some(now);
    }

    /// Merges what another worker has learned of the route of `page`. Returns whether `record`
    /// parsed; records of other versions count.
    pub fn merge(&self, page: &Page, record: &[u8]) -> bool {
        let parsed = self.with(page, |known| {
            record::merge(&mut known.route, &mut known.totals.recent, record)
        });
        parsed != Parsed::Junk
    }

    /// Takes the store's index of routes, if there is one.
    pub fn merge_index(&self, index: Option<&[u8]>) {
        lock(&self.index).replace(index);
    }

    /// Merges the keys that pages of other workers changed. Returns whether they parsed; changes of
    /// other versions count.
    pub fn merge_changes(&self, changes: Option<&[u8]>) -> bool {
        lock(&self.changes).merge(&mut lock(&self.ledger), changes)
    }

    /// Merges the store's list of `page`. Returns whether it names unknown keys, or `None` if it
    /// does not parse; lists of other versions count.
    pub fn merge_list(&self, page: &Page, list: Option<&[u8]>) -> Option<bool> {
        let (parsed, keys) =
            list.map_or((Parsed::Record, Vec::new()), |list| lists::read(page, list));
        if parsed == Parsed::Junk {
            return None;
        }
        let ledger = &mut *lock(&self.ledger);
        for (key, usage, reads) in &keys {
            if usage.kinds.is_state() {
                ledger.merge_reads(key, *reads);
            }
        }
        let keys = keys.into_iter().map(|(key, usage, _)| (key, usage));
        Some(self.with(page, |known| {
            let is_new = known.route.merge_list(page, keys, &self.budget);
            if !is_new {
                known.route.note_listless(page);
            }
            is_new
        }))
    }
}

//! Learns from visits which keys pages read. Pure: no I/O.
//!
//! A *page* is a route and its arguments. A route learns three kinds of keys from its visits:
//! functions of the arguments (`template`) or of their digests (`digest`), keys that every page
//! reads, and other keys of recently visited pages (`page_keys`). How often a key is used decides
//! (`usage`), and a [`Budget`] bounds what is asked for. Keys are learned, never values.
//!
//! Learned pieces may be asked for ahead. State has to earn it: `earn` says how, and `ledger` keeps
//! the counts for all routes.
//!
//! Workers exchange what they know on trips that pages make anyway (`exchange`): a record of each
//! route (`record`), an index of the records (`index`), keys that pages changed (`changes`), and
//! keys of single pages that no template explains (`lists`).
//!
//! # Memory
//!
//! A process remembers at most [`MAX_ROUTES`] routes, each with at most 1024 templates and 2048
//! keys of single pages, and no key longer than 512 bytes. A route that templates explain takes
//! about 2 KiB, a route with fifty pages that also read other keys about 50 KiB, and no route more
//! than 3 MiB. The process also keeps counts of at most 16,384 keys and shapes, 256 KiB of lists
//! that wait to be saved, and notes on 4,096 saved lists: about 1 MiB together. [`Learner::memory`]
//! counts it.

mod bounded;
mod budget;
mod candidates;
mod changes;
mod digest;
mod earn;
#[cfg(test)]
mod earning;
mod exchange;
mod index;
mod ledger;
mod lists;
mod memory;
mod page;
mod page_keys;
mod recent;
mod record;
mod report;
mod route;
mod series;
mod shape;
#[cfg(test)]
mod sharing;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod untrusted;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::budget::Budget;
use self::changes::Changes;
pub use self::exchange::Exchange;
use self::exchange::{EXCHANGE, Known, Refused};
use self::index::Index;
use self::ledger::Ledger;
use self::lists::Lists;
pub use self::lists::PageList;
pub use self::page::Page;
use self::recent::Recent;
use self::record::Parsed;
pub use self::report::{PageReport, Predicted, Use, Visit};
use self::route::{Route, StateRead};

/// Most routes remembered; beyond it, the least recently visited are dropped.
pub const MAX_ROUTES: usize = 512;

/// Most bytes of a learned key. A longer key would take more memory than it saves.
const MAX_KEY: usize = 512;

/// Most bytes of a route's name. Programmers write names, and few of them; a longer name was made
/// from user input.
pub(crate) const MAX_NAME: usize = 200;

/// One visit in this many reads again from the store what its snapshot would answer.
const VERIFY: u64 = 16;

/// Knowledge of all pages.
#[derive(Debug, Default)]
pub struct Learner {
    budget: Budget,
    routes: Mutex<Routes>,
    index: Mutex<Index>,
    /// Lock order: a route first, then one of these; `changes` before `ledger`.
    changes: Mutex<Changes>,
    ledger: Mutex<Ledger>,
    lists: Mutex<Lists>,
    refused: Mutex<Refused>,
    /// Whether an unreadable record was reported before.
    reported_bad: AtomicBool,
}

#[derive(Debug, Default)]
struct Routes {
    by_name: HashMap<Arc<str>, Entry>,
    visits: u64,
}

#[derive(Debug)]
struct Entry {
    known: Arc<Mutex<Known>>,
    last: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Learner {
    /// Creates a learner that knows nothing.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    fn with<T>(&self, page: &Page, look: impl FnOnce(&mut Known) -> T) -> T {
        let known = {
            let routes = &mut *lock(&self.routes);
            routes.visits += 1;
            let last = routes.visits;
            match routes.by_name.get_mut(page.route()) {
                Some(entry) => {
                    entry.last = last;
                    Arc::clone(&entry.known)
                }
                None => {
                    if routes.by_name.len() >= MAX_ROUTES {
                        let oldest = routes.by_name.iter().min_by_key(|(_, entry)| entry.last);
                        if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                            routes.by_name.remove(&name);
                        }
                    }
                    let known = Arc::<Mutex<Known>>::default();
                    let entry = Entry {
                        known: Arc::clone(&known),
                        last,
                    };
                    routes.by_name.insert(page.route().into(), entry);
                    known
                }
            }
        };
        look(&mut lock(&known))
    }

    /// Returns the keys that a visit to `page` is likely to read and that may be asked for ahead:
    /// pieces, and state that has earned a place in a snapshot.
    #[must_use]
    pub fn predict(&self, page: &Page) -> Vec<Predicted> {
        let offers = self.with(page, |known| known.route.offers(page));
        let judged = if offers.have_state() {
            offers.judge(Some(&lock(&self.ledger)))
        } else {
            offers.judge(None)
        };
        self.budget.choose(judged)
    }

    /// Returns whether the next visit to `page` reads repeated keys from the store, so that changes
    /// of keys that have earned their place show.
    #[must_use]
    pub fn is_to_verify(&self, page: &Page) -> bool {
        self.with(page, |known| known.route.visits % VERIFY == VERIFY - 1)
    }

    /// Learns from a visit to `page` under a safe method (GET, HEAD).
    pub fn learn(&self, page: &Page, visit: &Visit) {
        lock(&self.ledger).note(visit, true);
        let list = self.with(page, |known| {
            known.changed = true;
            let read = known.route.learn(page, visit, &self.budget);
            known.totals.note(visit, self.exact(&read));
            self.list(page, &mut known.route)
        });
        if let Some(bytes) = list {
            lock(&self.lists).push(PageList {
                route: page.route().into(),
                page: page.id(),
                bytes,
            });
        }
    }

    /// Counts the keys that have not earned their place.
    fn exact(&self, read: &[StateRead<'_>]) -> u64 {
        if read.is_empty() {
            return 0;
        }
        let ledger = lock(&self.ledger);
        let exact = read.iter().filter(|(key, counts, secret)| {
            *secret || shape::is_session(key) || !ledger.evidence(key, *counts).has_earned()
        });
        exact.count() as u64
    }

    /// Returns the list of a page if it should be saved.
    fn list(&self, page: &Page, route: &mut Route) -> Option<Vec<u8>> {
        let held = route.pages.get(&page.id())?;
        let ledger = lock(&self.ledger);
        let mark = held.mark(|key| ledger.reads(key))?;
        let list = lock(&self.lists)
            .wants(page, mark)
            .then(|| lists::write(held, &ledger));
        route.note_list(page.id());
        list
    }

    /// Notes a visit that is not learned from: under another method, without a name, or failed.
    /// Give its page if it has one.
    pub fn note(&self, page: Option<&Page>, visit: &Visit) {
        lock(&self.ledger).note(visit, false);
        let Some(page) = page else {
            return;
        };
        let known = {
            let routes = lock(&self.routes);
            let entry = routes.by_name.get(page.route());
            entry.map(|entry| Arc::clone(&entry.known))
        };
        if let Some(known) = known {
            lock(&known).route.note(page, visit);
        }
    }

    /// Notes that a key was added, incremented or locked, in a scope or outside. It never earns a
    /// place in a snapshot.
    pub fn mark_exact(&self, key: &[u8]) {
        lock(&self.ledger).mark_exact(key);
    }

    /// Returns the routes known to have a record in the store.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<str>> {
        lock(&self.index).names().cloned().collect()
    }

    /// Returns the pages, as route and number, whose lists this process saved in the store.
    #[must_use]
    pub(crate) fn shared_lists(&self) -> Vec<(Arc<str>, u64)> {
        lock(&self.lists).shared().collect()
    }

    /// Returns all routes by name, each with its own lock.
    fn all(&self) -> Vec<(Arc<str>, Arc<Mutex<Known>>)> {
        let routes = lock(&self.routes);
        let all = routes.by_name.iter();
        all.map(|(name, entry)| (Arc::clone(name), Arc::clone(&entry.known)))
            .collect()
    }

    /// Returns the approximate memory use, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let bytes = |(name, known): (Arc<str>, Arc<Mutex<Known>>)| {
            name.len() + size_of::<(Entry, Known)>() + lock(&known).route.memory()
        };
        self.all().into_iter().map(bytes).sum::<usize>()
            + lock(&self.changes).memory()
            + lock(&self.ledger).memory()
            + lock(&self.lists).memory()
    }

    /// Reports on each visited route, most visited first.
    #[must_use]
    pub fn report(&self) -> Vec<PageReport> {
        let all = self.all().into_iter();
        let mut reports: Vec<_> = all
            .map(|(name, known)| {
                let known = lock(&known);
                known.totals.report(name, &known.route)
            })
            .collect();
        reports.retain(|report| report.visits > 0);
        reports.sort_by_key(|report| std::cmp::Reverse(report.visits));
        reports
    }
}

/// Returns the routes that an index lists; empty if the bytes are invalid.
#[must_use]
pub fn read_index(index: &[u8]) -> Vec<Arc<str>> {
    index::names(index)
}

/// Reports what all workers know of `route` from recent visits, read from its record. `None` if the
/// bytes are invalid.
#[must_use]
pub fn read_record(route: Arc<str>, record: &[u8]) -> Option<PageReport> {
    let (mut learned, mut recent) = (Route::default(), Recent::default());
    let parsed = record::merge(&mut learned, &mut recent, record);
    (parsed == Parsed::Record).then(|| report::shared(route, &learned, &recent))
}

//! What pages read, learned from their visits: pure, without input or output.
//!
//! A *page* is a route and its arguments. From the keys that its visits read, a route learns which
//! are functions of the arguments (`template`), which are the same on every page, and of pages
//! that were visited of late which others they read (`route`). How often a key is used decides
//! (`usage`), and a [`Budget`] bounds what is asked for. Keys are learned, never values.
//!
//! # Memory
//!
//! A process remembers at most [`MAX_ROUTES`] routes, of each at most 1024 templates and 2048 keys
//! of single pages, and no key longer than 512 bytes. That is some 2 KiB for a route that templates
//! explain, 50 KiB for one with fifty pages that read other keys besides, and never more than 3 MiB.
//! [`Learner::memory`] counts it.

mod budget;
mod form;
mod index;
mod memory;
mod page;
mod recent;
mod record;
mod report;
mod route;
mod series;
#[cfg(test)]
mod strangers;
mod template;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::budget::Budget;
use self::index::Index;
pub use self::page::Page;
use self::recent::Recent;
use self::record::Heard;
use self::report::Totals;
pub use self::report::{Predicted, Report, Use, Visit};
use self::route::Route;
use crate::clock::Moment;

/// The most routes that are remembered; of more, those that were visited least recently go.
pub const MAX_ROUTES: usize = 512;

/// The most bytes of a key that is learned: a longer one would hold more than it saves.
const MAX_KEY: usize = 512;

/// The most bytes of the name of a route. Names are few and written by whoever programs; what is
/// longer was made of what somebody asked for.
pub(crate) const MAX_NAME: usize = 200;

/// So many visits of this process make a route worth telling of: what is asked for once is often
/// what nobody asks for again.
const FEW: u64 = 2;

/// How often a worker exchanges what it knows of a route, if that is visited at all.
const EXCHANGE: Duration = Duration::from_secs(60);

/// How long nothing is exchanged with a store that refused it.
const REST: Duration = Duration::from_secs(30 * 60);

/// What was learned of all pages.
#[derive(Debug, Default)]
pub struct Learner {
    budget: Budget,
    routes: Mutex<Routes>,
    index: Mutex<Index>,
    refused: Mutex<Refused>,
    /// Whether a record was told of that could not be read.
    told_bad: AtomicBool,
}

/// When a store refused to give, or to take, what workers tell each other.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    load: Option<Moment>,
    save: Option<Moment>,
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

/// A route, what came of it, and when it was exchanged.
#[derive(Debug, Default)]
struct Known {
    route: Route,
    totals: Totals,
    loaded: Option<Moment>,
    saved: Option<Moment>,
    /// Whether it was saved on a trip of its own since it was loaded.
    told: bool,
    /// Whether there were visits since it was saved.
    changed: bool,
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
}

impl Known {
    /// Mostly what others know is heard first, and the next trip tells them what is known then. A
    /// route that is visited less often than it is exchanged does both at once: it has no next trip
    /// before it is to hear again.
    fn exchange(&mut self, now: Moment, may_save: bool) -> Exchange {
        let is_due = |last: Option<Moment>| last.is_none_or(|last| now.since(last) >= EXCHANGE);
        let load = is_due(self.loaded);
        let waits = load && (self.loaded.is_none() || std::mem::take(&mut self.told));
        if load {
            self.loaded = Some(now);
        }
        let is_known = self.route.visits >= FEW;
        let save = may_save && self.changed && is_known && is_due(self.saved) && !waits;
        self.told |= save && !load;
        Exchange {
            load,
            save: save.then(|| {
                self.saved = Some(now);
                self.changed = false;
                record::write(&self.route, &self.totals.recent)
            }),
            ..Exchange::default()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Learner {
    /// One that has learned nothing yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            routes: Mutex::default(),
            index: Mutex::default(),
            refused: Mutex::default(),
            told_bad: AtomicBool::new(false),
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

    /// The keys that a visit to `page` is likely to read, with the bytes that their entries had.
    #[must_use]
    pub fn predict(&self, page: &Page) -> Vec<Predicted> {
        let keys = self.with(page, |known| known.route.predict(page, &self.budget));
        let keys = keys.into_iter();
        keys.map(|(key, bytes)| Predicted { key, bytes, piece: true, state: true, lasting: false, again: true })
            .collect()
    }

    /// Stub.
    pub fn note(&self, _visit: &Visit) {}

    /// Stub.
    pub fn mark_exact(&self, _key: &[u8]) {}

    /// Learns from a visit to `page`.
    pub fn learn(&self, page: &Page, visit: &Visit) {
        let mut visit = visit.clone();
        visit.read = visit.uses.iter().filter(|(_, used)| used.piece || used.reads > 0).map(|(key, used)| (key.clone(), used.bytes)).collect();
        let visit = &visit;
        self.with(page, |known| {
            known.totals.note(visit);
            known.changed = true;
            known.route.learn(page, &visit.read, &self.budget);
        });
    }

    /// What the next trip of `page` is to take along for other workers, and to bring from them:
    /// seldom anything. What is given to be saved counts as saved.
    #[must_use]
    pub fn exchange(&self, page: &Page, now: Moment) -> Exchange {
        let rests = |refused: Option<Moment>| refused.is_some_and(|last| now.since(last) < REST);
        let refused = *lock(&self.refused);
        if rests(refused.load) {
            return Exchange::default();
        }
        let may_save = !rests(refused.save);
        let mut exchange = self.with(page, |known| known.exchange(now, may_save));
        if exchange.load {
            exchange.load_index = lock(&self.index).load(now);
        }
        if exchange.save.is_some() {
            exchange.save_index = lock(&self.index).save(page.route(), now);
        }
        exchange
    }

    /// Whether no record was seen before that cannot be read.
    pub(crate) fn is_first_bad(&self) -> bool {
        !self.told_bad.swap(true, Ordering::Relaxed)
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

    /// Takes over what another worker has learned of the route of `page`. Whether that is a record,
    /// be it of another version.
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

    /// The routes that are known to have a record in the store.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<str>> {
        lock(&self.index).names().cloned().collect()
    }

    /// All routes by name, to be looked at one after the other.
    fn all(&self) -> Vec<(Arc<str>, Arc<Mutex<Known>>)> {
        let routes = lock(&self.routes);
        let all = routes.by_name.iter();
        all.map(|(name, entry)| (Arc::clone(name), Arc::clone(&entry.known)))
            .collect()
    }

    /// How many bytes hold what was learned, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let bytes = |(name, known): (Arc<str>, Arc<Mutex<Known>>)| {
            name.len() + size_of::<(Entry, Known)>() + lock(&known).route.memory()
        };
        self.all().into_iter().map(bytes).sum()
    }

    /// What is known of each route that was visited, those that are visited most first.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
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

/// The routes that an index lists; none if the bytes are none.
#[must_use]
pub fn read_index(index: &[u8]) -> Vec<Arc<str>> {
    index::names(index)
}

/// What all workers know of `route`, of its visits of late, by its record; `None` if the bytes are
/// none.
#[must_use]
pub fn read_record(route: Arc<str>, record: &[u8]) -> Option<Report> {
    let (mut learned, mut recent) = (Route::default(), Recent::default());
    let heard = record::merge(&mut learned, &mut recent, record);
    (heard == Heard::Record).then(|| report::shared(route, &learned, &recent))
}

//! What pages read, learned from their visits: pure, without input or output.
//!
//! A *page* is a route and its arguments. From the keys that its visits read, a route learns which
//! are functions of the arguments ([`template`]), which are the same on every page, and of pages
//! that were visited of late which others they read ([`route`]). How often a key is used decides
//! ([`usage`]), and a [`Budget`] bounds what is asked for. Keys are learned, never values.

mod budget;
mod page;
mod route;
mod series;
mod template;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::budget::Budget;
pub use self::page::Page;
use self::route::{Route, Visit};

/// The most routes that are remembered; of more, those that were visited least recently go.
pub const MAX_ROUTES: usize = 512;

/// What was learned of all pages.
#[derive(Debug, Default)]
pub struct Learner {
    budget: Budget,
    routes: Mutex<HashMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Mutex<Route>>,
    last: u64,
}

impl Learner {
    /// One that has learned nothing yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            routes: Mutex::default(),
        }
    }

    fn route(&self, page: &Page) -> Arc<Mutex<Route>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = routes.values().map(|entry| entry.last).max().unwrap_or(0) + 1;
        if let Some(entry) = routes.get_mut(page.route()) {
            entry.last = now;
            return Arc::clone(&entry.route);
        }
        if routes.len() >= MAX_ROUTES {
            let oldest = routes.iter().min_by_key(|(_, entry)| entry.last);
            if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                routes.remove(&name);
            }
        }
        let route = Arc::<Mutex<Route>>::default();
        let entry = Entry {
            route: Arc::clone(&route),
            last: now,
        };
        routes.insert(page.route().into(), entry);
        route
    }

    /// The keys that a visit to `page` is likely to read.
    #[must_use]
    pub fn predict(&self, page: &Page) -> Vec<Vec<u8>> {
        let route = self.route(page);
        let route = route.lock().unwrap_or_else(PoisonError::into_inner);
        route.predict(page, &self.budget)
    }

    /// Learns from a visit to `page`: the keys that it read, each with the bytes of its entry, or
    /// none where it was absent.
    pub fn learn<'a>(&self, page: &Page, used: impl IntoIterator<Item = (&'a [u8], u32)>) {
        let route = self.route(page);
        let visit = Visit {
            used: used.into_iter().collect(),
        };
        let mut route = route.lock().unwrap_or_else(PoisonError::into_inner);
        route.learn(page, &visit, &self.budget);
    }
}

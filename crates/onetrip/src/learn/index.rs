//! The index of routes that have a record. A worker that knows no route can list them all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rmp_serde::{from_slice, to_vec};

use super::bounded::List;
use super::{EXCHANGE, MAX_NAME, MAX_ROUTES};
use crate::clock::Moment;

/// The version of this format. Other versions are ignored.
const VERSION: u8 = 1;

/// Time after which an unchanged index is written again, to outlive what it lists.
const RENEW: Duration = Duration::from_secs(24 * 60 * 60);

type Names = BTreeSet<Arc<str>>;

/// The store's list, and the routes that this process saved.
#[derive(Debug, Default)]
pub(super) struct Index {
    own: Names,
    listed: Names,
    loaded: Option<Moment>,
    saved: Option<Moment>,
}

impl Index {
    /// Returns whether to load the index on a trip made at `now`. If so, it counts as loaded.
    pub(super) fn load(&mut self, now: Moment) -> bool {
        let due = self.loaded.is_none_or(|last| now.since(last) >= EXCHANGE);
        if due {
            self.loaded = Some(now);
        }
        due
    }

    /// Notes that a route has a record. Returns the bytes to write if the store should be updated.
    pub(super) fn save(&mut self, route: &str, now: Moment) -> Option<Vec<u8>> {
        if !self.own.contains(route) {
            if self.own.len() >= MAX_ROUTES {
                self.own.pop_first();
            }
            self.own.insert(route.into());
        }
        let fresh = self.saved.is_some_and(|last| now.since(last) < RENEW);
        if fresh && self.listed.contains(route) {
            return None;
        }
        self.saved = Some(now);
        // If there are too many, other workers' names give way: those workers add theirs again.
        let room = MAX_ROUTES - self.own.len();
        let others = self.listed.difference(&self.own).take(room);
        self.listed = self.own.iter().chain(others).cloned().collect();
        let names: Vec<&str> = self.listed.iter().map(|name| &**name).collect();
        // Text in memory: nothing can fail.
        Some(to_vec(&(VERSION, names)).unwrap_or_default())
    }

    /// Replaces the list with the store's.
    pub(super) fn replace(&mut self, bytes: Option<&[u8]>) {
        self.listed = bytes.map(names).unwrap_or_default().into_iter().collect();
    }

    /// Returns all routes known to have a record.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.own.union(&self.listed)
    }
}

/// Parses an index; empty if the bytes are invalid.
pub(super) fn names(bytes: &[u8]) -> Vec<Arc<str>> {
    match from_slice::<(u8, List<&str, MAX_ROUTES>)>(bytes) {
        Ok((VERSION, List(names))) => {
            let names = names.into_iter().filter(|name| name.len() <= MAX_NAME);
            names.map(Arc::from).collect()
        }
        _ => Vec::new(),
    }
}

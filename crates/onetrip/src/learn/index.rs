//! Which routes there are records of, so that who knows no route can ask for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rmp_serde::{from_slice, to_vec};

use super::bounded::List;
use super::{EXCHANGE, MAX_NAME, MAX_ROUTES};
use crate::clock::Moment;

/// The version of this form. Others are not read.
const VERSION: u8 = 1;

/// How often it is written though it says nothing new, so that it outlives what it lists.
const RENEW: Duration = Duration::from_secs(24 * 60 * 60);

type Names = BTreeSet<Arc<str>>;

/// What the store lists, and what this process left there.
#[derive(Debug, Default)]
pub(super) struct Index {
    own: Names,
    listed: Names,
    loaded: Option<Moment>,
    saved: Option<Moment>,
}

impl Index {
    /// Whether to ask for it on a trip that is made at `now`. What is asked for counts as loaded.
    pub(super) fn load(&mut self, now: Moment) -> bool {
        let due = self.loaded.is_none_or(|last| now.since(last) >= EXCHANGE);
        if due {
            self.loaded = Some(now);
        }
        due
    }

    /// Notes that there is a record of a route. The bytes to write, if the store is to be told.
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
        // Of too many, those of others give way: they write again what they miss.
        let room = MAX_ROUTES - self.own.len();
        let others = self.listed.difference(&self.own).take(room);
        self.listed = self.own.iter().chain(others).cloned().collect();
        let names: Vec<&str> = self.listed.iter().map(|name| &**name).collect();
        // Text in memory: there is nothing that could fail.
        Some(to_vec(&(VERSION, names)).unwrap_or_default())
    }

    /// Takes what the store lists.
    pub(super) fn listed(&mut self, bytes: Option<&[u8]>) {
        self.listed = bytes.map(names).unwrap_or_default().into_iter().collect();
    }

    /// All routes that are known to have a record.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.own.union(&self.listed)
    }
}

/// The routes that are listed in `bytes`; none if they are no index.
pub(super) fn names(bytes: &[u8]) -> Vec<Arc<str>> {
    match from_slice::<(u8, List<&str, MAX_ROUTES>)>(bytes) {
        Ok((VERSION, List(names))) => {
            let names = names.into_iter().filter(|name| name.len() <= MAX_NAME);
            names.map(Arc::from).collect()
        }
        _ => Vec::new(),
    }
}

//! Counts of keys that plain calls use, across all pages.

use hashbrown::HashMap;

use super::MAX_KEY;
use super::earn::{Counts, Evidence, Scale};
use super::memory::slots;
use super::report::{Use, Visit};
use super::shape;

/// Most keys and shapes of one generation. There are two generations, so that unused ones go.
const MAX_ROWS: usize = 8192;

/// Most changed keys that outlive their generation unused.
const MAX_KEPT: usize = 2048;

/// Counts of keys and shapes, by hash.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    young: HashMap<u64, Counts>,
    old: HashMap<u64, Counts>,
    /// Whether a key has counts against it that other workers do not know.
    pub(super) news: bool,
}

impl Ledger {
    /// Notes what a visit did; `safe` if it was of a GET or HEAD page.
    pub(super) fn note(&mut self, visit: &Visit, safe: bool) {
        for (key, used) in &visit.uses {
            if used.reads > 0 || used.wrote || used.exact {
                self.note_use(key, used, safe);
            }
        }
    }

    fn note_use(&mut self, key: &[u8], used: &Use, safe: bool) {
        self.with(shape::hash(key), |counts| {
            counts.note(used, safe, Scale::Key);
        });
        if key.len() <= MAX_KEY
            && let Some(shape) = shape::shape(key)
        {
            self.with(shape, |counts| counts.note(used, safe, Scale::Many));
        }
    }

    /// Notes that a key was added, incremented or locked.
    pub(super) fn mark_exact(&mut self, key: &[u8]) {
        let used = Use {
            exact: true,
            ..Use::default()
        };
        self.note_use(key, &used, false);
    }

    /// Returns all that is known of a key; `template` are the counts of its template.
    pub(super) fn evidence(&self, key: &[u8], template: Counts) -> Evidence {
        let shape = shape::shape(key).map(|shape| self.get(shape));
        Evidence {
            own: self.get(shape::hash(key)),
            shape: shape.unwrap_or_default(),
            template,
        }
    }

    fn get(&self, hash: u64) -> Counts {
        let found = self.young.get(&hash).or_else(|| self.old.get(&hash));
        found.copied().unwrap_or_default()
    }

    /// Returns how many visits read a key.
    pub(super) fn reads(&self, key: &[u8]) -> u8 {
        self.get(shape::hash(key)).reads
    }

    /// Merges how many visits of another worker read a key.
    pub(super) fn merge_reads(&mut self, key: &[u8], reads: u8) {
        let theirs = Counts {
            reads: reads.min(8),
            ..Counts::default()
        };
        self.with(shape::hash(key), |counts| counts.weigh(&theirs));
    }

    /// Merges what another worker saw of a key or shape.
    pub(super) fn weigh(&mut self, hash: u64, other: &Counts) {
        let news = self.news;
        self.with(hash, |counts| counts.weigh(other));
        // The others know it already.
        self.news = news;
    }

    /// Returns what other workers should know, most important first.
    pub(super) fn against(&self) -> Vec<(u64, Counts)> {
        let old = self.old.iter();
        let old = old.filter(|(hash, _)| !self.young.contains_key(*hash));
        let mut rows: Vec<_> = (self.young.iter().chain(old))
            .filter_map(|(hash, counts)| Some((counts.against()?, *hash, *counts)))
            .collect();
        rows.sort_by_key(|(rank, hash, _)| (*rank, *hash));
        let rows = rows.into_iter();
        rows.map(|(_, hash, counts)| (hash, counts)).collect()
    }

    fn with(&mut self, hash: u64, change: impl FnOnce(&mut Counts)) {
        if !self.young.contains_key(&hash) {
            if self.young.len() >= MAX_ROWS {
                self.turn();
            }
            let known = self.old.remove(&hash).unwrap_or_default();
            self.young.insert(hash, known);
        }
        if let Some(counts) = self.young.get_mut(&hash) {
            let matters = |it: &Counts| (it.exact, it.wrote.changed, it.reread.changed);
            let before = matters(counts);
            change(counts);
            self.news |= matters(counts) != before;
        }
    }

    /// Begins a new generation. Changed keys outlive the old one, or they would pass for harmless.
    fn turn(&mut self) {
        let kept = self.old.iter().chain(&self.young);
        let kept = kept.filter(|(_, counts)| counts.against().is_some_and(|rank| rank < 2));
        let kept: HashMap<u64, Counts> = kept
            .take(MAX_KEPT)
            .map(|(hash, counts)| (*hash, *counts))
            .collect();
        self.old = std::mem::replace(&mut self.young, kept);
    }

    /// Returns the bytes it allocated.
    pub(super) fn memory(&self) -> usize {
        slots::<u64, Counts>(self.young.capacity()) + slots::<u64, Counts>(self.old.capacity())
    }
}

//! What became of keys that plain calls use, whichever page uses them.

use hashbrown::HashMap;

use super::MAX_KEY;
use super::earn::{Counts, Evidence, Scale};
use super::memory::slots;
use super::report::{Use, Visit};
use super::shape;

/// The most keys and shapes of one generation. There are two, so that what is not used any more
/// goes.
const MAX_ROWS: usize = 8192;

/// The most of them that outlive it unused, since a page changed them.
const MAX_KEPT: usize = 2048;

/// Counts of keys and shapes, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    young: HashMap<u64, Counts>,
    old: HashMap<u64, Counts>,
    /// Whether there is something against a key that others have not been told of.
    pub(super) news: bool,
}

impl Ledger {
    /// Notes what a visit did: one of a GET or HEAD page if it is `safe`.
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

    /// Returns all that is known of a key whose template has `template`.
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

    /// Believes another worker that so many visits read a key.
    pub(super) fn told_reads(&mut self, key: &[u8], reads: u8) {
        let told = Counts {
            reads: reads.min(8),
            ..Counts::default()
        };
        self.with(shape::hash(key), |counts| counts.weigh(&told));
    }

    /// Takes in what another worker saw of a key or shape.
    pub(super) fn weigh(&mut self, hash: u64, other: &Counts) {
        let news = self.news;
        self.with(hash, |counts| counts.weigh(other));
        // They know.
        self.news = news;
    }

    /// Returns what others should know, what matters most first.
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

    /// Begins a new generation. What was changed outlives the old one, since it would be taken for
    /// harmless otherwise.
    fn turn(&mut self) {
        let kept = self.old.iter().chain(&self.young);
        let kept = kept.filter(|(_, counts)| counts.against().is_some_and(|rank| rank < 2));
        let kept: HashMap<u64, Counts> = kept
            .take(MAX_KEPT)
            .map(|(hash, counts)| (*hash, *counts))
            .collect();
        self.old = std::mem::replace(&mut self.young, kept);
    }

    /// Returns its bytes, as it was allocated.
    pub(super) fn memory(&self) -> usize {
        slots::<u64, Counts>(self.young.capacity()) + slots::<u64, Counts>(self.old.capacity())
    }
}

//! Keys remembered for one page, beyond the templates.

use std::collections::HashMap;

use super::budget::Budget;
use super::candidates::Offers;
use super::earn::{Counts, READS};
use super::page::Page;
use super::report::Use;
use super::route::FORGET;
use super::series::Series;
use super::shape::{hash, is_private, is_secret};
use super::template::Template;
use super::usage::{Habits, Usage};

/// The keys of one page that no template explains.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) keys: HashMap<Box<[u8]>, Usage>,
    pub(super) series: Series,
    /// Time of its last visit, in visits to the route.
    pub(super) last: u64,
    /// Whether it comes from the route's record alone: its list has more.
    pub(super) from_record: bool,
}

impl Held {
    pub(super) fn learn(
        &mut self,
        page: &Page,
        used: &HashMap<&[u8], &Use>,
        habits: &mut Habits,
        budget: &Budget,
    ) {
        self.from_record = false;
        for (key, usage) in &mut self.keys {
            let used = used.get(&**key).copied();
            habits.note(usage, used.is_some());
            usage.note(used);
        }
        for (key, used) in used {
            if !self.keys.contains_key(*key) {
                let secret = is_secret(key, &Template::plain(key, page));
                self.keys.insert((*key).into(), Usage::first(used, secret));
            }
        }
        self.series.note(used.keys().copied());
        let series = &self.series;
        self.keys.retain(|key, usage| {
            usage.share >= FORGET && !(usage.missed && !series.is_empty() && series.leaves(key))
        });
        if self.keys.len() > budget.keys {
            let mut keys: Vec<_> = std::mem::take(&mut self.keys).into_iter().collect();
            keys.sort_by(|(name, one), (other_name, other)| {
                let surest = other.share.total_cmp(&one.share);
                surest.then_with(|| name.cmp(other_name))
            });
            keys.truncate(budget.keys);
            self.keys.extend(keys);
        }
    }

    pub(super) fn offer(&self, habits: &Habits, offers: &mut Offers) {
        let mut like: Option<Usage> = None;
        for (key, usage) in &self.keys {
            let like = like.get_or_insert(*usage);
            like.bytes = like.bytes.max(usage.bytes);
            like.kinds.join(usage.kinds);
            if !self.series.leaves(key) {
                offers.add(key.to_vec(), habits.chance(usage), usage, Counts::default());
            }
        }
        if let Some(like) = like {
            // Half a chance: a list that moved once may stand still.
            self.series
                .next(|key| offers.add(key, 0.95, &like, Counts::default()));
        }
    }

    /// Returns the keys that other workers may learn, most used first.
    pub(super) fn shared(&self) -> Vec<(&[u8], &Usage)> {
        let keys = self.keys.iter().map(|(key, usage)| (&**key, usage));
        let mut keys: Vec<_> = keys
            .filter(|(key, usage)| !is_private(key, usage))
            .collect();
        keys.sort_by(|(name, one), (other_name, other)| {
            let surest = other.share.total_cmp(&one.share);
            surest.then_with(|| name.cmp(other_name))
        });
        keys
    }

    /// Returns a hash of the keys that the last visit read, by which an unchanged list is
    /// recognised. `None` if there are too few keys for a list to save a trip.
    pub(super) fn mark(&self, reads: impl Fn(&[u8]) -> u8) -> Option<u64> {
        let read = self.keys.iter().filter(|(_, usage)| !usage.missed);
        let read = read.filter(|(key, usage)| !is_private(key, usage));
        let (mut count, mut mark) = (0, 0_u64);
        for (key, usage) in read {
            count += 1;
            // State earns its place by visits, so others need to know of its first ones.
            let reads = if usage.kinds.is_state() {
                reads(key).min(READS)
            } else {
                0
            };
            // A sum: with XOR, one more read of each key would cancel out.
            let how = u64::from(usage.kinds.bits() | (reads << 4));
            mark = mark.wrapping_add(hash(key)).wrapping_add(how);
        }
        (count >= 2).then_some(mark)
    }

    /// Returns its cost in the route's memory: its keys, plus one.
    pub(super) fn cost(&self) -> usize {
        self.keys.len() + 1
    }
}

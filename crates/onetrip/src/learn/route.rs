//! What was learned of one route, from the visits to its pages.

use std::collections::{HashMap, HashSet};

use super::MAX_KEY;
use super::budget::{Budget, Candidate};
use super::page::Page;
use super::series::Series;
use super::template::Template;
use super::usage::{Habits, Usage};

/// The most templates of a route, those on probation among them.
pub(super) const MAX_TEMPLATES: usize = 1024;

/// The most keys that are kept for single pages of a route.
pub(super) const MAX_PAGE_KEYS: usize = 2048;

/// A template is known once it held on so many pages; on one it may be a coincidence.
const PAGES: usize = 2;

/// Pages of which a template remembers that it held there.
const MAX_PAGES: usize = 4;

/// A key used less than this is no longer remembered.
const FORGET: f32 = 0.03;

/// A template that explains a key this often needs no help from the page's own memory.
const SURE: f32 = 0.9;

/// What a visit read: keys, with the bytes of their entries.
type Read = hashbrown::HashMap<Box<[u8]>, u32>;

/// The memory of one route.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) templates: HashMap<Template, Known>,
    pub(super) pages: HashMap<u64, Held>,
    /// The first pages that were visited: whether there was more than one.
    seen: Pages,
    /// What tends to become of its templates, and of the keys of single pages.
    habits: Habits,
    page_habits: Habits,
    pub(super) visits: u64,
    /// What its pages count for.
    held: usize,
}

/// What is known of a template.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) usage: Usage,
    /// Where it held.
    pages: Pages,
}

/// What is remembered of one page beyond the templates.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) keys: HashMap<Box<[u8]>, Usage>,
    pub(super) series: Series,
    /// When it was last visited, in visits to the route.
    pub(super) last: u64,
}

/// A few pages.
#[derive(Clone, Copy, Debug, Default)]
struct Pages {
    ids: [u64; MAX_PAGES],
    count: usize,
}

impl Pages {
    fn contains(&self, id: u64) -> bool {
        self.ids.iter().take(self.count).any(|other| *other == id)
    }

    fn add(&mut self, id: u64) {
        if !self.contains(id)
            && let Some(free) = self.ids.get_mut(self.count)
        {
            *free = id;
            self.count += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.count == MAX_PAGES
    }
}

impl Known {
    fn new(bytes: u32, page: u64) -> Self {
        let mut pages = Pages::default();
        pages.add(page);
        Self {
            usage: Usage::first(bytes),
            pages,
        }
    }

    /// One that another worker tells of.
    pub(super) fn told(usage: Usage) -> Self {
        Self {
            usage,
            pages: Pages::default(),
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.pages.count >= PAGES
    }

    /// Believes another worker that it holds on several pages.
    pub(super) fn establish(&mut self) {
        // Their numbers stay unknown: no page has this one.
        for unknown in 0..PAGES as u64 {
            self.pages.add(unknown);
        }
    }

    /// Notes a visit to `page`. While it held on few pages, those cannot confirm it: even a
    /// coincidence holds where it came from.
    fn note(&mut self, page: u64, has_args: bool, used: Option<u32>, habits: &mut Habits) {
        let own = has_args && !self.pages.is_full() && self.pages.contains(page);
        if !own || (used.is_none() && !self.is_established()) {
            if self.is_established() {
                habits.note(&self.usage, used.is_some());
            }
            self.usage.note(used);
        }
        if let Some(bytes) = used {
            self.usage.bytes = bytes;
            self.pages.add(page);
        }
    }
}

impl Route {
    /// Learns from one visit.
    pub(super) fn learn(&mut self, page: &Page, read: &Read, budget: &Budget) {
        let (id, has_args) = (page.id(), page.args().len() > 0);
        self.visits += 1;
        self.seen.add(id);
        let read_keys = || read.iter().filter(|(key, _)| key.len() <= MAX_KEY);
        let mut unexplained: HashMap<&[u8], u32> =
            read_keys().map(|(key, bytes)| (&**key, *bytes)).collect();
        let mut known = HashSet::new();
        for (template, learned) in &mut self.templates {
            let Some(key) = template.key(page) else {
                continue;
            };
            let used = read.get(key.as_slice()).copied();
            learned.note(id, has_args, used, &mut self.habits);
            if used.is_some() {
                if learned.is_established() && learned.usage.share >= SURE {
                    unexplained.remove(key.as_slice());
                }
                known.insert(key);
            }
        }
        for (key, bytes) in read_keys() {
            if !known.contains(&**key) {
                let template = Template::of(key, page);
                let new = || Known::new(*bytes, id);
                self.templates.entry(template).or_insert_with(new);
            }
        }
        self.forget_templates();
        // A page that the templates explain needs no memory of its own.
        if has_args && (!unexplained.is_empty() || self.pages.contains_key(&id)) {
            let before = self.pages.get(&id).map_or(0, Held::cost);
            let held = self.pages.entry(id).or_default();
            held.last = self.visits;
            held.learn(&unexplained, &mut self.page_habits, budget);
            self.held = (self.held + held.cost()).saturating_sub(before);
            if held.keys.is_empty() {
                self.held = self.held.saturating_sub(held.cost());
                self.pages.remove(&id);
            }
            self.forget_pages();
        }
    }

    /// Whether all its visits so far were to one page.
    pub(super) fn has_one_page(&self) -> bool {
        self.seen.count <= 1
    }

    /// Drops what is beyond the bounds.
    pub(super) fn bound(&mut self) {
        self.forget_templates();
        self.held = self.pages.values().map(Held::cost).sum();
        self.forget_pages();
    }

    fn forget_templates(&mut self) {
        self.templates.retain(|_, known| {
            let usage = &known.usage;
            let probation_failed =
                !known.is_established() && usage.visits >= 4 && usage.share < 0.3;
            !probation_failed && (usage.share >= FORGET || usage.visits < 16)
        });
        if self.templates.len() > MAX_TEMPLATES {
            let mut all: Vec<_> = self
                .templates
                .iter()
                .map(|(template, known)| {
                    (known.is_established(), known.usage.share, template.clone())
                })
                .collect();
            all.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
            for (_, _, template) in all.iter().take(self.templates.len() - MAX_TEMPLATES / 2) {
                self.templates.remove(template);
            }
        }
    }

    /// Forgets the pages that were visited longest ago, a quarter at once, so that it is done
    /// seldom.
    fn forget_pages(&mut self) {
        if self.held <= MAX_PAGE_KEYS {
            return;
        }
        let mut oldest: Vec<_> = self
            .pages
            .iter()
            .map(|(id, page)| (page.last, *id))
            .collect();
        oldest.sort_unstable();
        // The last of them is this very page.
        oldest.pop();
        for (_, id) in oldest {
            if self.held <= MAX_PAGE_KEYS / 4 * 3 {
                return;
            }
            if let Some(page) = self.pages.remove(&id) {
                self.held = self.held.saturating_sub(page.cost());
            }
        }
    }

    /// The keys to ask for when `page` is visited.
    pub(super) fn predict(&self, page: &Page, budget: &Budget) -> Vec<(Vec<u8>, u32)> {
        let mut candidates: HashMap<Vec<u8>, (f32, u32)> = HashMap::new();
        let mut offer = |key: Vec<u8>, chance: f32, bytes: u32| {
            let best = candidates.entry(key).or_insert((chance, bytes));
            if chance > best.0 {
                *best = (chance, bytes);
            }
        };
        let held = self.pages.get(&page.id());
        // Nothing tells yet what is a coincidence: the first visit elsewhere takes it all along.
        let hopeful = self.has_one_page() && held.is_none();
        for (template, known) in &self.templates {
            let worth = hopeful || known.is_established();
            if worth && let Some(key) = template.key(page) {
                offer(key, self.habits.chance(&known.usage), known.usage.bytes);
            }
        }
        if let Some(held) = held {
            held.offer(&self.page_habits, offer);
        }
        let candidates = candidates.into_iter();
        budget.choose(
            candidates
                .map(|(key, (chance, bytes))| Candidate { key, chance, bytes })
                .collect(),
        )
    }

    /// The templates that are known, with the share of visits that use them.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&Template, &Usage)> {
        let known = self.templates.iter();
        known
            .filter(|(_, known)| known.is_established() || self.has_one_page())
            .map(|(template, known)| (template, &known.usage))
    }
}

impl Held {
    fn learn(&mut self, used: &HashMap<&[u8], u32>, habits: &mut Habits, budget: &Budget) {
        for (key, usage) in &mut self.keys {
            let bytes = used.get(&**key).copied();
            habits.note(usage, bytes.is_some());
            usage.note(bytes);
        }
        for (key, bytes) in used {
            if !self.keys.contains_key(*key) {
                self.keys.insert((*key).into(), Usage::first(*bytes));
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

    fn offer(&self, habits: &Habits, mut offer: impl FnMut(Vec<u8>, f32, u32)) {
        let mut bytes = 0;
        for (key, usage) in &self.keys {
            bytes = bytes.max(usage.bytes);
            if !self.series.leaves(key) {
                offer(key.to_vec(), habits.chance(usage), usage.bytes);
            }
        }
        // As likely as not: a list that has moved once may stand still.
        self.series.next(|key| offer(key, 0.95, bytes));
    }

    /// What it counts for among what is remembered: its keys, and itself.
    fn cost(&self) -> usize {
        self.keys.len() + 1
    }
}

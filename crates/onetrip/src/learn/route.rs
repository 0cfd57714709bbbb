//! Knowledge of one route, from visits to its pages.

use std::collections::HashMap;

use super::MAX_KEY;
use super::budget::Budget;
use super::candidates::Offers;
use super::digest::MAX_VISIT_HASHES;
use super::earn::{Counts, Scale};
use super::page::Page;
use super::page_keys::Held;
use super::report::{Use, Visit};
use super::shape::is_secret_template;
use super::template::Template;
use super::usage::{Habits, Usage};

/// Most templates of a route, including those on probation.
pub(super) const MAX_TEMPLATES: usize = 1024;

/// Most keys kept for single pages of a route.
pub(super) const MAX_PAGE_KEYS: usize = 2048;

/// Pages on which a template must hold to be established. On one page it may be a coincidence.
const PAGES: usize = 2;

/// Most pages a template remembers having held on.
const MAX_PAGES: usize = 4;

/// Keys whose share is lower than this are forgotten.
pub(super) const FORGET: f32 = 0.03;

/// A template with at least this share needs no help from the page's own keys.
const SURE: f32 = 0.9;

/// Visits with unexplained keys after which a route's pages have lists. The first visits to any
/// route have some, before templates are established.
const LISTS: u8 = 4;

/// Most pages remembered to have no list in the store.
const MAX_LISTLESS: usize = 64;

/// The memory of one route.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) templates: HashMap<Template, Known>,
    pub(super) pages: HashMap<u64, Held>,
    /// The first pages visited; tells whether there was more than one.
    seen: Pages,
    /// How its templates, and the keys of single pages, tend to behave.
    habits: Habits,
    page_habits: Habits,
    pub(super) visits: u64,
    /// Total cost of its pages.
    held: usize,
    /// Visits that left a list, counted only as far as needed.
    lists: u8,
    /// Pages without a list, in a hash table of one slot each.
    listless: Box<[u64]>,
}

/// A key that only plain calls read, the counts of its template, and whether it is a secret.
pub(super) type StateRead<'a> = (&'a [u8], Counts, bool);

/// Knowledge of a template.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) usage: Usage,
    /// Counts of visits to its keys.
    pub(super) counts: Counts,
    /// Pages on which it held.
    pages: Pages,
}

/// A small set of pages.
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
    fn new(template: &Template, used: &Use, page: u64) -> Self {
        let mut pages = Pages::default();
        pages.add(page);
        let mut counts = Counts::default();
        counts.note(used, true, Scale::Many);
        Self {
            usage: Usage::first(used, is_secret_template(template)),
            counts,
            pages,
        }
    }

    /// Creates one that another worker reported.
    pub(super) fn from_worker(usage: Usage, counts: Counts) -> Self {
        Self {
            usage,
            counts,
            pages: Pages::default(),
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.pages.count >= PAGES
    }

    /// Trusts another worker that it holds on several pages.
    pub(super) fn establish(&mut self) {
        // Which pages is unknown: no page has these numbers.
        for unknown in 0..PAGES as u64 {
            self.pages.add(unknown);
        }
    }

    /// Notes a visit to `page`. Pages on which it first held cannot confirm it: even a coincidence
    /// holds there.
    fn note(&mut self, page: u64, has_args: bool, used: Option<&Use>, habits: &mut Habits) {
        let own = has_args && !self.pages.is_full() && self.pages.contains(page);
        if !own || (used.is_none() && !self.is_established()) {
            if self.is_established() {
                habits.note(&self.usage, used.is_some());
            }
            self.usage.note(used);
        }
        if let Some(used) = used {
            self.usage.bytes = used.bytes;
            self.pages.add(page);
        }
    }
}

impl Route {
    /// Learns from one visit. Returns the keys that only plain calls read and that were not
    /// preloaded.
    pub(super) fn learn<'a>(
        &mut self,
        page: &Page,
        visit: &'a Visit,
        budget: &Budget,
    ) -> Vec<StateRead<'a>> {
        let (id, has_args) = (page.id(), page.args().len() > 0);
        self.visits += 1;
        self.seen.add(id);
        let read_keys = || {
            let uses = visit.uses.iter().map(|(key, used)| (&**key, used));
            uses.filter(|(key, used)| key.len() <= MAX_KEY && used.is_read())
        };
        let mut unexplained: HashMap<&[u8], &Use> = read_keys().collect();
        // Keys that templates make, each with the template's counts and whether it is a secret.
        let mut known: HashMap<Vec<u8>, (Counts, bool)> = HashMap::new();
        for (template, learned) in &mut self.templates {
            let Some(key) = template.key(page) else {
                continue;
            };
            let used = visit.uses.get(key.as_slice());
            if let Some(used) = used {
                learned.counts.note(used, true, Scale::Many);
            }
            let used = used.filter(|used| used.is_read());
            learned.note(id, has_args, used, &mut self.habits);
            if used.is_some() {
                if learned.is_established() && learned.usage.share >= SURE {
                    unexplained.remove(key.as_slice());
                }
                let secret = learned.usage.secret;
                let known = known.entry(key).or_insert((learned.counts, secret));
                known.1 &= secret;
            }
        }
        let mut hashes = MAX_VISIT_HASHES;
        for (key, used) in read_keys() {
            if !known.contains_key(key) {
                let template = Template::of(key, page, &mut hashes);
                let new = Known::new(&template, used, id);
                known.insert(key.to_vec(), (new.counts, new.usage.secret));
                self.templates.entry(template).or_insert(new);
            }
        }
        self.forget_templates();
        // A page that the templates explain needs no keys of its own.
        if has_args && (!unexplained.is_empty() || self.pages.contains_key(&id)) {
            let before = self.pages.get(&id).map_or(0, Held::cost);
            let held = self.pages.entry(id).or_default();
            held.last = self.visits;
            held.learn(page, &unexplained, &mut self.page_habits, budget);
            self.held = (self.held + held.cost()).saturating_sub(before);
            if held.keys.is_empty() {
                self.held = self.held.saturating_sub(held.cost());
                self.pages.remove(&id);
            }
            self.forget_pages();
        }
        let state =
            read_keys().filter(|(key, used)| used.is_state() && !visit.ahead.contains_key(*key));
        state
            .map(|(key, _)| {
                let (counts, secret) = known.get(key).copied().unwrap_or_default();
                (key, counts, secret)
            })
            .collect()
    }

    /// Notes a visit that is not learned from.
    pub(super) fn note(&mut self, page: &Page, visit: &Visit) {
        for (key, used) in &visit.uses {
            if (used.wrote || used.exact || used.reads > 0)
                && key.len() <= MAX_KEY
                && let Some(known) = self.templates.get_mut(&Template::plain(key, page))
            {
                known.counts.note(used, false, Scale::Many);
            }
        }
    }

    /// Returns whether to ask the store for the list of a page: the store may have one, and none is
    /// remembered.
    pub(super) fn lacks_list(&self, page: &Page) -> bool {
        let id = page.id();
        page.args().len() > 0
            && self.pages.get(&id).is_none_or(|held| held.from_record)
            && self
                .listless
                .get(place(id))
                .is_none_or(|listless| *listless != id)
    }

    /// Returns whether its pages read unexplained keys and have lists in the store.
    pub(super) fn has_lists(&self) -> bool {
        self.lists >= LISTS
    }

    /// Notes that a visit to a page left a list.
    pub(super) fn note_list(&mut self, id: u64) {
        self.lists = (self.lists + 1).min(LISTS);
        if let Some(listless) = self
            .listless
            .get_mut(place(id))
            .filter(|other| **other == id)
        {
            *listless = 0;
        }
    }

    /// Trusts another worker that its pages have lists.
    pub(super) fn trust_lists(&mut self) {
        self.lists = LISTS;
    }

    /// Notes that the store has no list of a page.
    pub(super) fn note_listless(&mut self, page: &Page) {
        if self.has_lists() {
            if self.listless.is_empty() {
                self.listless = vec![0; MAX_LISTLESS].into();
            }
            let id = page.id();
            if let Some(listless) = self.listless.get_mut(place(id)) {
                *listless = id;
            }
        }
    }

    /// Merges keys of a page from another worker. Returns whether any are known now.
    pub(super) fn merge_list(
        &mut self,
        page: &Page,
        keys: impl Iterator<Item = (Box<[u8]>, Usage)>,
        budget: &Budget,
    ) -> bool {
        let mut held = self.pages.remove(&page.id()).unwrap_or_default();
        for (key, usage) in keys.take(budget.keys) {
            held.keys.entry(key).or_insert(usage);
        }
        let any_known = !held.keys.is_empty();
        held.from_record = false;
        if any_known {
            held.last = self.visits;
            self.pages.insert(page.id(), held);
            self.held = self.pages.values().map(Held::cost).sum();
            self.forget_pages();
        }
        any_known
    }

    pub(super) fn listless_bytes(&self) -> usize {
        size_of_val(&*self.listless)
    }

    /// Returns whether all its visits so far were to one page.
    pub(super) fn has_one_page(&self) -> bool {
        self.seen.count <= 1
    }

    /// Drops what exceeds the bounds.
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

    /// Forgets the least recently visited pages, a quarter at once, so that it seldom runs.
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
        // The last of them is the page just visited.
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

    /// Returns the keys that a visit to `page` may read.
    pub(super) fn offers(&self, page: &Page) -> Offers {
        let mut offers = Offers::default();
        let held = self.pages.get(&page.id());
        // Coincidences cannot be told apart yet, so the first visit to another page takes
        // everything.
        let hopeful = self.has_one_page() && held.is_none();
        for (template, known) in &self.templates {
            let worth = hopeful || known.is_established();
            if worth && let Some(key) = template.key(page) {
                let chance = self.habits.chance(&known.usage);
                offers.add(key, chance, &known.usage, known.counts);
            }
        }
        if let Some(held) = held {
            held.offer(&self.page_habits, &mut offers);
        }
        offers
    }

    /// Returns the established templates, with the share of visits that use them.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&Template, &Usage)> {
        let known = self.templates.iter();
        known
            .filter(|(_, known)| known.is_established() || self.has_one_page())
            .map(|(template, known)| (template, &known.usage))
    }
}

/// Returns the slot of a page in `listless`.
fn place(id: u64) -> usize {
    (id % MAX_LISTLESS as u64) as usize
}

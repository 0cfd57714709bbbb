//! What workers tell each other of pages, through the store: a record for each route, an index of the
//! routes that have one, the keys that pages changed, and for single pages a list of what they read.
//!
//! They stand beside the keys of a cache and not among them, so that whoever counts, lists or clears
//! those never sees them: under `blog@onetrip:` where the cache has the prefix `blog`. A cache
//! without a prefix has the whole store, and its `clear` takes them away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::entry::{self, BadEntry, Fields, Kind, Name};
use crate::key::Keyspace;
use crate::learn::{self, Page, PageReport};
use crate::policy::{Policy, Step};
use crate::trip::{Op, Replies, Reply, Trip};

/// How long a record outlives the last visit to its route.
const TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long the list of a page outlives the last visit that saved it.
const LIST_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The most bytes of an entry that is read as a record: four times what is written.
const MAX_RECORD: usize = 256 << 10;

/// The key of the index.
const INDEX: &[u8] = b"pages";

/// The key of what pages changed.
const CHANGES: &[u8] = b"changes";

/// What a trip asked other workers for.
pub(crate) enum Asked {
    Record(Arc<Page>),
    Index,
    Changes,
    List(Arc<Page>),
}

fn list_key(route: &str, page: u64) -> Vec<u8> {
    format!("list:{route}:{page:016x}").into_bytes()
}

fn record_key(route: &str) -> Vec<u8> {
    [b"page:", route.as_bytes()].concat()
}

impl Policy {
    fn records(&self) -> Keyspace {
        self.keyspace.records()
    }

    /// Lets a trip of `page` ask for what other workers know, and adds what it is to tell them.
    pub(crate) fn exchange(
        &self,
        page: &Arc<Page>,
        trip: &mut Trip,
        asked: &mut impl Extend<Asked>,
        told: &mut impl Extend<Op>,
    ) {
        let exchange = self.learner().exchange(page, self.clock.now());
        // Seldom made: a page exchanges something once a minute.
        let key = || record_key(page.route());
        if exchange.load {
            trip.push_along(self.ask(&key()));
            asked.extend([Asked::Record(Arc::clone(page))]);
        }
        if exchange.load_index {
            trip.push_along(self.ask(INDEX));
            asked.extend([Asked::Index]);
        }
        if exchange.load_changes {
            trip.push_along(self.ask(CHANGES));
            asked.extend([Asked::Changes]);
        }
        if exchange.load_list {
            trip.push_along(self.ask(&list_key(page.route(), page.id())));
            asked.extend([Asked::List(Arc::clone(page))]);
        }
        told.extend(exchange.save.map(|record| self.tell(&key(), &record, TTL)));
        told.extend(
            exchange
                .save_index
                .map(|index| self.tell(INDEX, &index, TTL)),
        );
        let changes = exchange.save_changes;
        told.extend(changes.map(|changes| self.tell(CHANGES, &changes, TTL)));
        let lists = exchange.save_lists.into_iter();
        told.extend(lists.map(|list| {
            let key = list_key(&list.route, list.page);
            self.tell(&key, &list.bytes, LIST_TTL)
        }));
    }

    fn ask(&self, key: &[u8]) -> Op {
        let name = self.records().name(key);
        Op::Get { name }
    }

    fn tell(&self, key: &[u8], bytes: &[u8], ttl: Duration) -> Op {
        let records = self.records();
        let mut draft = self.record_sealer.draft(&Fields::default());
        draft.extend_from_slice(bytes);
        let prefix = records.prefix();
        let entry = self
            .record_sealer
            .seal(Name { prefix, key }, Kind::Bytes, draft);
        let (name, ttl) = (records.name(key), Some(ttl));
        Op::Set { name, entry, ttl }
    }

    fn told(&self, key: &[u8], entry: &Bytes) -> Result<Bytes, BadEntry> {
        let records = self.records();
        let prefix = records.prefix();
        if entry.len() > MAX_RECORD || entry::is_compressed(entry) {
            return Err(BadEntry::Inflated);
        }
        let content = self.record_sealer.open(Name { prefix, key }, entry)?;
        Ok(content.payload)
    }

    /// Takes what another worker told. The page that was not known before, and may be now.
    pub(crate) fn hear<'a>(&self, asked: &'a Asked, reply: Reply) -> Option<&'a Arc<Page>> {
        let Reply::Entry(stored) = reply else {
            return None;
        };
        // What cannot be read is noted, and written anew in time.
        let told = |key: &[u8]| match self.told(key, &stored.as_ref()?.bytes) {
            Ok(bytes) => Some(bytes),
            Err(bad) => self.bad_record(key, bad),
        };
        match asked {
            Asked::Record(page) => {
                let key = record_key(page.route());
                let record = told(&key)?;
                let knew = !self.learner().predict(page).is_empty();
                if !self.learner().merge(page, &record) {
                    return self.bad_record(&key, BadEntry::Undecodable);
                }
                (!knew).then_some(page)
            }
            Asked::Index => {
                self.learner().merge_index(told(INDEX).as_deref());
                None
            }
            Asked::Changes => {
                if !self.learner().merge_changes(told(CHANGES).as_deref()) {
                    self.bad_record::<()>(CHANGES, BadEntry::Undecodable);
                }
                None
            }
            Asked::List(page) => {
                let key = list_key(page.route(), page.id());
                match self.learner().merge_list(page, told(&key).as_deref()) {
                    Some(is_new) => is_new.then_some(page),
                    None => self.bad_record(&key, BadEntry::Undecodable),
                }
            }
        }
    }

    /// A record that cannot be read is no record. It is told of once: it is asked for every minute.
    fn bad_record<T>(&self, key: &[u8], bad: BadEntry) -> Option<T> {
        if self.learner().is_first_bad() {
            self.note_bad(key, bad);
        } else {
            self.counters.bad_entries.add(1);
        }
        None
    }

    /// What removes the records that are among the keys of this cache, as far as they are known: of
    /// a cache that has the whole store.
    pub(crate) fn drop_records(&self) -> impl Iterator<Item = Op> {
        let (routes, lists) = if self.keyspace.prefix().is_empty() {
            (self.learner().shared(), self.learner().shared_lists())
        } else {
            (Vec::new(), Vec::new())
        };
        let index = (!routes.is_empty()).then(|| [INDEX.to_vec(), CHANGES.to_vec()]);
        let keys = routes.into_iter().map(|route| record_key(&route));
        let lists = lists.into_iter();
        let lists = lists.map(|(route, page)| list_key(&route, page));
        let records = self.records();
        let names = keys
            .chain(index.into_iter().flatten())
            .chain(lists)
            .map(move |key| records.name(&key));
        names.map(|name| Op::Delete { name })
    }

    /// The routes that workers have records of in the store, by name.
    pub fn shared_routes(&self) -> Step<Vec<Arc<str>>, impl FnOnce(Replies) -> Vec<Arc<str>>> {
        Step::Ask(self.ask(INDEX).into(), |mut replies: Replies| {
            let index = self.recorded(INDEX, replies.pop());
            index.as_deref().map(learn::read_index).unwrap_or_default()
        })
    }

    /// What workers shared of `routes`, in their order; nothing of those of which they did not.
    pub fn shared_pages<'a>(
        &'a self,
        routes: &'a [Arc<str>],
    ) -> Step<Vec<PageReport>, impl FnOnce(Replies) -> Vec<PageReport> + 'a> {
        if routes.is_empty() {
            return Step::Done(Vec::new());
        }
        let keys = routes.iter().map(|route| record_key(route));
        let trip: Trip = keys.map(|key| self.ask(&key)).collect();
        Step::Ask(trip, move |replies: Replies| {
            let shared = routes.iter().zip(replies).filter_map(|(route, reply)| {
                let record = self.recorded(&record_key(route), Some(reply))?;
                learn::read_record(Arc::clone(route), &record)
            });
            shared.collect()
        })
    }

    fn recorded(&self, key: &[u8], reply: Option<Reply>) -> Option<Bytes> {
        let Some(Reply::Entry(Some(stored))) = reply else {
            return None;
        };
        match self.told(key, &stored.bytes) {
            Ok(bytes) => Some(bytes),
            Err(bad) => {
                self.note_bad(key, bad);
                None
            }
        }
    }
}

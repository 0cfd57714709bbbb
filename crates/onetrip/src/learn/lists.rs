//! Lists of the keys that single pages read beyond the templates, kept in the store for all
//! workers.
//!
//! A process remembers about 2,000 such keys of a route. A route with many pages has more, so each
//! page's list is stored beside the record of its route. The first trip of a page that the process
//! does not remember asks for the list; the second brings the keys it names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use rmp_serde::{from_slice, to_vec};

use super::bounded::{Bin, List};
use super::ledger::Ledger;
use super::memory::slots;
use super::page::Page;
use super::page_keys::Held;
use super::record::{Parsed, UsageRow, row, usage};
use super::shape::{hash, is_secret};
use super::template::Template;
use super::usage::Usage;
use super::{EXCHANGE, MAX_KEY};
use crate::clock::Moment;

/// The version of this format. Other versions are ignored.
const VERSION: u8 = 1;

/// Most keys and bytes of a list.
const MAX_KEYS: usize = 512;
const MAX_BYTES: usize = 16 << 10;

/// Most bytes that a row takes beside its key.
const OVERHEAD: usize = 24;

/// Most lists, and bytes of lists, that wait to be saved.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 256 << 10;

/// Most lists, and bytes of lists, that one trip saves.
const MAX_TAKEN: usize = 4;
const MAX_TAKEN_BYTES: usize = 32 << 10;

/// Time before an unchanged list is saved again.
const UNCHANGED: Duration = Duration::from_secs(60 * 60);

/// Most lists of one generation known to be saved. There are two generations.
const MAX_SAVED: usize = 2048;

/// Version, and for each key how often it is used and how many visits read it.
type ListsRecord<'a> = (u8, List<(Bin<'a>, UsageRow, u8), MAX_KEYS>);

/// The list of a page, for saving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageList {
    /// The name of its route.
    pub route: Arc<str>,
    /// Its number among the pages of the route.
    pub page: u64,
    /// The bytes to store.
    pub bytes: Vec<u8>,
}

impl PageList {
    fn hash(&self) -> u64 {
        hash(self.route.as_bytes()) ^ self.page
    }
}

/// Lists that wait to be saved, newest last, and notes on those saved.
#[derive(Debug, Default)]
pub(super) struct Lists {
    waiting: VecDeque<PageList>,
    bytes: usize,
    /// Page to mark of the saved list, and when it was saved.
    saved: HashMap<u64, (u64, Moment)>,
    saved_before: HashMap<u64, (u64, Moment)>,
    /// When a page last made a trip.
    now: Option<Moment>,
    /// Pages whose lists this process saved in the store.
    saved_pages: HashSet<(Arc<str>, u64)>,
}

impl Lists {
    /// Returns whether to save a page's list with this mark. If so, notes it as saved.
    pub(super) fn wants(&mut self, page: &Page, mark: u64) -> bool {
        let hash = hash(page.route().as_bytes()) ^ page.id();
        // If pages make no trips, nothing would be saved.
        let Some(now) = self.now else {
            return false;
        };
        let known = self
            .saved
            .get(&hash)
            .or_else(|| self.saved_before.get(&hash));
        if let Some((saved, at)) = known {
            let rest = if *saved == mark { UNCHANGED } else { EXCHANGE };
            if now.since(*at) < rest {
                return false;
            }
        }
        if self.saved.len() >= MAX_SAVED {
            self.saved_before = std::mem::take(&mut self.saved);
        }
        self.saved.insert(hash, (mark, now));
        true
    }

    /// Queues a list for the next trip. If there are too many, the oldest are dropped.
    pub(super) fn push(&mut self, list: PageList) {
        self.waiting.retain(|other| {
            let is_other = other.page != list.page || other.route != list.route;
            self.bytes -= if is_other { 0 } else { other.bytes.len() };
            is_other
        });
        self.bytes += list.bytes.len();
        self.waiting.push_back(list);
        while self.waiting.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES {
            if let Some(lost) = self.waiting.pop_front() {
                self.bytes -= lost.bytes.len();
                self.saved.remove(&lost.hash());
                self.saved_before.remove(&lost.hash());
            }
        }
    }

    /// Returns the pages whose lists this process saved recently.
    pub(super) fn shared(&self) -> impl Iterator<Item = (Arc<str>, u64)> {
        let pages = self.saved_pages.iter();
        pages.map(|(route, page)| (Arc::clone(route), *page))
    }

    /// Notes that a page makes a trip.
    pub(super) fn note_trip(&mut self, now: Moment) {
        self.now = Some(now);
    }

    /// Returns the lists to save on a trip, the newest first.
    pub(super) fn take(&mut self) -> Vec<PageList> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MAX_TAKEN
            && let Some(list) = self.waiting.pop_back()
        {
            if bytes + list.bytes.len() > MAX_TAKEN_BYTES {
                self.waiting.push_back(list);
                break;
            }
            bytes += list.bytes.len();
            if self.saved_pages.len() >= MAX_SAVED {
                self.saved_pages.clear();
            }
            self.saved_pages
                .insert((Arc::clone(&list.route), list.page));
            taken.push(list);
        }
        self.bytes -= bytes;
        taken
    }

    /// Returns the bytes it allocated.
    pub(super) fn memory(&self) -> usize {
        let saved = |map: &HashMap<u64, (u64, Moment)>| slots::<u64, (u64, Moment)>(map.capacity());
        self.bytes
            + self.waiting.capacity() * size_of::<PageList>()
            + saved(&self.saved)
            + saved(&self.saved_before)
            + slots::<(Arc<str>, u64), ()>(self.saved_pages.capacity())
    }
}

/// Writes the list of a page. Leaves out keys that plain calls must read from the store: they could
/// not be used.
pub(super) fn write(held: &Held, ledger: &Ledger) -> Vec<u8> {
    let mut left = MAX_BYTES - OVERHEAD;
    let keys = held.shared().into_iter().filter(|(key, usage)| {
        usage.kinds.is_piece()
            || !ledger
                .evidence(key, super::earn::Counts::default())
                .is_exact()
    });
    let keys = keys.filter(|(key, _)| {
        let bytes = Bin(key).cost() + OVERHEAD;
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    let rows = keys
        .take(MAX_KEYS)
        .map(|(key, usage)| (Bin(key), row(usage), ledger.reads(key)));
    let record: ListsRecord<'_> = (VERSION, List(rows.collect()));
    // Numbers and bytes in memory: nothing can fail.
    to_vec(&record).unwrap_or_default()
}

/// A key of a page's list, its usage, and how many visits read it.
pub(super) type Listed = (Box<[u8]>, Usage, u8);

/// Parses the list of a page, which may be hostile.
pub(super) fn read(page: &Page, record: &[u8]) -> (Parsed, Vec<Listed>) {
    let rows = match record {
        [0x92, VERSION, ..] => match from_slice::<ListsRecord<'_>>(record) {
            Ok((_, List(rows))) => rows,
            Err(_) => return (Parsed::Junk, Vec::new()),
        },
        [0x90..=0x9F, 0..=0x7F, ..] => return (Parsed::Other, Vec::new()),
        _ => return (Parsed::Junk, Vec::new()),
    };
    let rows = rows
        .into_iter()
        .filter(|(key, ..)| key.0.len() <= MAX_KEY)
        .map(|(Bin(key), row, reads)| {
            let secret = is_secret(key, &Template::plain(key, page));
            (key.into(), usage(row, secret), reads)
        });
    (Parsed::Record, rows.collect())
}

//! Lists of what single pages read beyond the templates, as the store keeps them for all workers.
//!
//! A process remembers some 2,000 such keys of a route. A route with many pages has more, and so
//! each page's list stands in the store beside the record of its route. It is asked for on the first
//! trip of a page that the process does not remember, and what it names comes with the second.

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
use super::record::{Heard, UsageRow, row, usage};
use super::shape::{hash, is_secret};
use super::template::Template;
use super::usage::Usage;
use super::{EXCHANGE, MAX_KEY};
use crate::clock::Moment;

/// The version of this form. Others are not read.
const VERSION: u8 = 1;

/// The most keys and bytes of a list.
const MAX_KEYS: usize = 512;
const MAX_BYTES: usize = 16 << 10;

/// Bytes that a row takes beside its key, at most.
const OVERHEAD: usize = 24;

/// The most lists, and bytes of lists, that wait to be saved.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 256 << 10;

/// The most lists, and bytes of lists, that one trip saves.
const MAX_TAKEN: usize = 4;
const MAX_TAKEN_BYTES: usize = 32 << 10;

/// How long a list that did not change is not saved again.
const UNCHANGED: Duration = Duration::from_secs(60 * 60);

/// The most lists, of one generation, that are known to be saved. There are two generations.
const MAX_SAVED: usize = 2048;

/// Keys, how often they are used, and how many visits read them.
type ListsRecord<'a> = (u8, List<(Bin<'a>, UsageRow, u8), MAX_KEYS>);

/// The list of a page, to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageList {
    /// The name of its route.
    pub route: Arc<str>,
    /// Its number among the pages of the route.
    pub page: u64,
    /// What to leave in the store.
    pub bytes: Vec<u8>,
}

impl PageList {
    fn hash(&self) -> u64 {
        hash(self.route.as_bytes()) ^ self.page
    }
}

/// Lists that wait to be saved, newest last, and those that are.
#[derive(Debug, Default)]
pub(super) struct Lists {
    waiting: VecDeque<PageList>,
    bytes: usize,
    /// What was saved of which page, and when.
    saved: HashMap<u64, (u64, Moment)>,
    saved_before: HashMap<u64, (u64, Moment)>,
    /// When a page last made a trip.
    now: Option<Moment>,
    /// Pages whose lists this process left in the store.
    told: HashSet<(Arc<str>, u64)>,
}

impl Lists {
    /// Returns whether to save the list of a page that is marked so, and notes that it is.
    pub(super) fn wants(&mut self, page: &Page, mark: u64) -> bool {
        let hash = hash(page.route().as_bytes()) ^ page.id();
        // Where no page makes a trip, nothing would be saved.
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

    /// Lets a list wait for the next trip. Of too many, the newest are kept.
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

    /// Returns the pages whose lists this process left in the store, of late.
    pub(super) fn told(&self) -> impl Iterator<Item = (Arc<str>, u64)> {
        let told = self.told.iter();
        told.map(|(route, page)| (Arc::clone(route), *page))
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
            if self.told.len() >= MAX_SAVED {
                self.told.clear();
            }
            self.told.insert((Arc::clone(&list.route), list.page));
            taken.push(list);
        }
        self.bytes -= bytes;
        taken
    }

    /// Returns its bytes, as it was allocated.
    pub(super) fn memory(&self) -> usize {
        let saved = |map: &HashMap<u64, (u64, Moment)>| slots::<u64, (u64, Moment)>(map.capacity());
        self.bytes
            + self.waiting.capacity() * size_of::<PageList>()
            + saved(&self.saved)
            + saved(&self.saved_before)
            + slots::<(Arc<str>, u64), ()>(self.told.capacity())
    }
}

/// Writes the list of a page. Keys that plain calls must read exactly are left out: nothing would be
/// done with them.
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
    // Numbers and bytes in memory: there is nothing that could fail.
    to_vec(&record).unwrap_or_default()
}

/// A key of a page's list, how it is used, and how many visits read it.
pub(super) type Listed = (Box<[u8]>, Usage, u8);

/// Reads the list of a page, which may have been written by anybody.
pub(super) fn read(page: &Page, record: &[u8]) -> (Heard, Vec<Listed>) {
    let rows = match record {
        [0x92, VERSION, ..] => match from_slice::<ListsRecord<'_>>(record) {
            Ok((_, List(rows))) => rows,
            Err(_) => return (Heard::Junk, Vec::new()),
        },
        [0x90..=0x9F, 0..=0x7F, ..] => return (Heard::Other, Vec::new()),
        _ => return (Heard::Junk, Vec::new()),
    };
    let rows = rows
        .into_iter()
        .filter(|(key, ..)| key.0.len() <= MAX_KEY)
        .map(|(Bin(key), told, reads)| {
            let secret = is_secret(key, &Template::plain(key, page));
            (key.into(), usage(told, secret), reads)
        });
    (Heard::Record, rows.collect())
}

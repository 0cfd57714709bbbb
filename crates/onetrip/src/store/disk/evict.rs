//! Which entries go when room is needed.
//!
//! First what has expired, the longest gone first. Then the rest in the order in which their
//! names came, but for what this process has used since it last passed there: a second chance
//! (the CLOCK algorithm). A use is noted in memory alone, so that reading writes nothing, and each
//! process judges by its own uses: where several serve the same pages, each sees a fair sample.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use heed::{DatabaseStat, RwTxn};

use super::entries;
use super::environment::Tree;
use super::row::{self, Key, NEVER, Row};
use crate::trip::Op;

/// Names whose last use is remembered: 64 KiB.
const USES: usize = 1 << 15;

/// How many used entries are passed over before the next goes whatever its use.
const MERCY: usize = 32;

/// Pages that a write may take besides its entry's own: splits of the tree, and its copies.
const SPLITS: usize = 4;

/// The most steps of eviction within one transaction: what a write may have to wait for.
const STEPS: usize = 1024;

/// How many pages of the file may hold entries, and which entries go first.
#[derive(Debug)]
pub(super) struct Room {
    pages: usize,
    page: usize,
    uses: Box<[AtomicU16]>,
    hasher: DefaultHashBuilder,
    /// Where in the queue to look next, and where to begin again. Entries that come meanwhile are
    /// left for the next round, so that each stays for one at least.
    hand: AtomicU64,
    end: AtomicU64,
}

impl Room {
    /// Room for `size` bytes, in pages of `page` bytes.
    pub(super) fn new(size: usize, page: usize) -> Self {
        Self {
            pages: size / page,
            page,
            uses: (0..USES).map(|_| AtomicU16::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
            // At the end of a round: the first one begins at the front.
            hand: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(0),
        }
    }

    /// The bytes that the file may grow to, for `size` bytes of entries: a quarter more.
    ///
    /// A transaction copies each page that it changes, and what it frees can be used by a later
    /// one only, when no reader sees it any more. Large entries need pages that lie side by side.
    pub(super) fn space(size: usize) -> usize {
        (size + size / 4 + (256 << 10)).next_multiple_of(1 << 16)
    }

    /// Bytes of the largest row that is taken, and of what is written in one transaction: an
    /// eighth of all, half of what the file has beside them.
    pub(super) fn largest(&self) -> usize {
        self.pages / 8 * self.page
    }

    /// Bytes that an operation may write: its own, and a copied page of the tree.
    pub(super) fn weigh(&self, op: &Op) -> usize {
        self.page + op.name().len() + op.carries()
    }

    /// Notes that the entry at `key` was read, or written over.
    pub(super) fn used(&self, key: &[u8]) {
        let (place, mark) = self.use_of(key);
        // Looked at first, so that reads of the same entry share the cache line.
        if let Some(place) = place
            && place.load(Ordering::Relaxed) != mark
        {
            place.store(mark, Ordering::Relaxed);
        }
    }

    /// Forgets the use of the entry at `key`. Whether there was one.
    fn spend(&self, key: &[u8]) -> bool {
        let (place, mark) = self.use_of(key);
        place.is_some_and(|place| {
            let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
            place.compare_exchange(mark, 0, set, get).is_ok()
        })
    }

    fn use_of(&self, key: &[u8]) -> (Option<&AtomicU16>, u16) {
        let [a, b, c, d, ..] = self.hasher.hash_one(key).to_le_bytes();
        let place = usize::from(u16::from_le_bytes([a, b])) % USES;
        (self.uses.get(place), u16::from_le_bytes([c, d]) | 1)
    }

    /// Makes room for a row of `bytes`.
    ///
    /// The work is bounded: if it does not do, as when the size was lowered, later writes go on.
    pub(super) fn make(
        &self,
        tree: Tree,
        txn: &mut RwTxn<'_>,
        bytes: usize,
        now: u64,
    ) -> heed::Result<()> {
        let goal = self
            .pages
            .saturating_sub(bytes.div_ceil(self.page) + SPLITS);
        self.shrink(tree, txn, goal, now).map(drop)
    }

    /// Takes a transaction's worth of steps towards room for `bytes`, twice over, and towards a
    /// part of all pages that doubles with each `attempt`. Whether there is more to do.
    pub(super) fn make_more(
        &self,
        tree: Tree,
        txn: &mut RwTxn<'_>,
        bytes: usize,
        attempt: u32,
        now: u64,
    ) -> heed::Result<bool> {
        let part = (self.pages / 128).max(1) << attempt;
        let free = part.max(2 * bytes.div_ceil(self.page));
        self.shrink(tree, txn, self.pages.saturating_sub(free), now)
    }

    /// Removes entries until no more than `goal` pages are in use. Whether there is more to do.
    fn shrink(&self, tree: Tree, txn: &mut RwTxn<'_>, goal: usize, now: u64) -> heed::Result<bool> {
        // Each step may copy a page or two.
        for _ in 0..STEPS.min(self.pages / 32) {
            if pages(&tree.stat(txn)?) <= goal || !self.evict(tree, txn, now)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes one step towards more room. Whether there was anything to remove.
    fn evict(&self, tree: Tree, txn: &mut RwTxn<'_>, now: u64) -> heed::Result<bool> {
        if expire(tree, txn, now)? {
            return Ok(true);
        }
        match self.next(tree, txn)? {
            Some((place, key)) => drop_place(tree, txn, place, &key).map(|()| true),
            None => Ok(false),
        }
    }

    /// The next in the queue that is in little use.
    fn next(&self, tree: Tree, txn: &RwTxn<'_>) -> heed::Result<Option<(u64, Key)>> {
        for mercy in (0..=MERCY).rev() {
            let hand = self.hand.load(Ordering::Relaxed);
            let found = match from(tree, txn, hand)? {
                Some(found) if found.0 <= self.end.load(Ordering::Relaxed) => Some(found),
                _ => {
                    let last = tree.get_lower_than(txn, row::BEHIND_QUEUE)?;
                    let end = last.and_then(|(key, _)| row::place(key));
                    self.end.store(end.unwrap_or_default(), Ordering::Relaxed);
                    from(tree, txn, 0)?
                }
            };
            let Some((place, key)) = found else {
                return Ok(None);
            };
            self.hand.store(place.saturating_add(1), Ordering::Relaxed);
            if !self.spend(&key) || mercy == 0 {
                return Ok(Some((place, key)));
            }
        }
        Ok(None)
    }
}

/// Pages that hold rows. What LMDB keeps free, for itself or for later, is not among them.
fn pages(stat: &DatabaseStat) -> usize {
    stat.branch_pages + stat.leaf_pages + stat.overflow_pages
}

/// The first in the queue that has this `place` or a later one.
fn from(tree: Tree, txn: &RwTxn<'_>, place: u64) -> heed::Result<Option<(u64, Key)>> {
    let row = tree.get_greater_than_or_equal_to(txn, &row::queue_key(place))?;
    Ok(row.and_then(|(key, entry)| Some((row::place(key)?, Key::from_slice(entry)))))
}

/// Removes what has this `place` in the queue: the entry at `key`.
fn drop_place(tree: Tree, txn: &mut RwTxn<'_>, place: u64, key: &Key) -> heed::Result<()> {
    let record = tree.get(txn, key)?.and_then(Row::read);
    match record.map(|record| record.header) {
        Some(header) if header.place == place => entries::remove(tree, txn, key, header),
        // No entry is without a row and no row without its entry; were it so, the row goes.
        _ => tree.delete(txn, &row::queue_key(place)).map(drop),
    }
}

/// Takes the first step towards what has expired: removes it, or puts in order what was given more
/// time since its row was written. Whether there was anything to do.
fn expire(tree: Tree, txn: &mut RwTxn<'_>, now: u64) -> heed::Result<bool> {
    let row = tree.get_greater_than_or_equal_to(txn, row::EXPIRIES)?;
    let due = row.and_then(|(key, _)| row::expiry(key));
    let Some((listed, place)) = due.filter(|(listed, _)| *listed <= now) else {
        return Ok(false);
    };
    let key = tree.get(txn, &row::queue_key(place))?;
    let key = key.map(Key::from_slice).unwrap_or_default();
    let record = match key.is_empty() {
        true => None,
        false => tree.get(txn, &key)?.and_then(Row::read),
    };
    match record.filter(|record| (record.header.place, record.header.listed) == (place, listed)) {
        Some(Row { header, .. }) if !header.lives(now) => {
            entries::remove(tree, txn, &key, header)?;
        }
        Some(mut record) => {
            let (name, entry) = (record.name.to_vec(), record.entry.to_vec());
            record.header.listed = record.header.expires;
            let header = record.header;
            tree.delete(txn, &row::expiry_key(listed, place))?;
            if header.listed != NEVER {
                tree.put(txn, &row::expiry_key(header.listed, place), &[])?;
            }
            entries::put(tree, txn, &key, header, &name, &entry)?;
        }
        // No row is without its entry; were it so, the row goes.
        None => {
            tree.delete(txn, &row::expiry_key(listed, place))?;
        }
    }
    Ok(true)
}

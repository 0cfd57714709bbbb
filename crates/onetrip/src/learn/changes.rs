//! Keys that pages changed, as workers exchange them across all routes.
//!
//! Records of routes cannot hold this: a POST page that changes a cart has no record, and the pages
//! that show the cart belong to other routes. Keys are exchanged as hashes only.

use std::time::Duration;

use hashbrown::HashMap;
use rmp_serde::{from_slice, to_vec};

use super::EXCHANGE;
use super::bounded::List;
use super::earn::{Counts, CountsRow, Scale};
use super::ledger::Ledger;
use super::memory::slots;
use crate::clock::Moment;

/// The version of this format. Other versions are ignored.
const VERSION: u8 = 1;

/// Most keys and shapes exchanged.
const MAX_ROWS: usize = 2048;

/// Most of them that a page set and that have nothing else against them.
const MAX_SET: usize = 256;

/// Time after which an unchanged record is written again, to outlive what it holds.
const RENEW: Duration = Duration::from_secs(24 * 60 * 60);

type ChangesRecord = (u8, List<(u64, CountsRow), MAX_ROWS>);

/// When changes were exchanged, and which.
#[derive(Debug, Default)]
pub(super) struct Changes {
    loaded: Option<Moment>,
    saved: Option<Moment>,
    /// The store's content when last read or written. The same row is not merged twice: that would
    /// keep a key from regaining its place.
    known: Option<HashMap<u64, CountsRow>>,
}

impl Changes {
    /// Returns whether to load changes on a trip made at `now`. If so, they count as loaded.
    pub(super) fn load(&mut self, now: Moment) -> bool {
        let due = self.loaded.is_none_or(|last| now.since(last) >= EXCHANGE);
        if due {
            self.loaded = Some(now);
        }
        due
    }

    /// Returns the bytes to write if the store should be updated at `now`. Always loads first, so
    /// that no worker's changes are lost.
    pub(super) fn save(&mut self, ledger: &mut Ledger, now: Moment) -> Option<Vec<u8>> {
        let due = |span| self.saved.is_none_or(|last| now.since(last) >= span);
        if self.known.is_none() || !due(if ledger.news { EXCHANGE } else { RENEW }) {
            return None;
        }
        let mut set = 0;
        let rows = ledger.against().into_iter().filter(|(_, counts)| {
            set += usize::from(counts.against() == Some(2));
            set <= MAX_SET
        });
        let rows = rows.take(MAX_ROWS);
        let rows: Vec<_> = rows.map(|(hash, counts)| (hash, counts.row())).collect();
        if rows.is_empty() {
            return None;
        }
        ledger.news = false;
        self.saved = Some(now);
        self.known = Some(rows.iter().copied().collect());
        let record: ChangesRecord = (VERSION, List(rows));
        // Numbers in memory: nothing can fail.
        Some(to_vec(&record).unwrap_or_default())
    }

    /// Merges the store's changes. Returns whether they parsed; changes of other versions count.
    pub(super) fn merge(&mut self, ledger: &mut Ledger, record: Option<&[u8]>) -> bool {
        let before = self.known.replace(HashMap::new()).unwrap_or_default();
        let rows = match record {
            None => Vec::new(),
            Some([0x92, VERSION, ..]) => match record.map(from_slice::<ChangesRecord>) {
                Some(Ok((_, List(rows)))) => rows,
                _ => return false,
            },
            // Workers of two versions overwrite each other's bytes; neither reads the other's.
            Some([0x90..=0x9F, 0..=0x7F, ..]) => return true,
            Some(_) => return false,
        };
        for (hash, row) in &rows {
            if before.get(hash) != Some(row) {
                // Shapes have the larger window; for keys it is cut at their next test.
                ledger.weigh(*hash, &Counts::of(*row, Scale::Many));
            }
        }
        let is_full = rows.len() >= MAX_ROWS;
        let known: HashMap<u64, CountsRow> = rows.into_iter().collect();
        // Tell again what another worker overwrote.
        let is_lost = |(hash, counts): &(u64, Counts)| {
            counts.against() < Some(2) && !known.contains_key(hash)
        };
        ledger.news |= !is_full && ledger.against().iter().any(is_lost);
        self.known = Some(known);
        true
    }

    /// Returns the bytes it allocated.
    pub(super) fn memory(&self) -> usize {
        let known = self.known.as_ref().map_or(0, HashMap::capacity);
        slots::<u64, CountsRow>(known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::learn::report::{Use, Visit};

    fn changed(key: &str) -> Visit {
        let used = Use {
            reads: 1,
            found: true,
            wrote: true,
            changed: true,
            ..Use::default()
        };
        Visit {
            uses: [(key.as_bytes().into(), used)].into_iter().collect(),
            ..Visit::default()
        }
    }

    #[derive(Default)]
    struct Worker {
        changes: Changes,
        ledger: Ledger,
    }

    impl Worker {
        fn exchange(&mut self, store: &mut Option<Vec<u8>>, now: Moment) {
            if self.changes.load(now) {
                assert!(self.changes.merge(&mut self.ledger, store.as_deref()));
            }
            if let Some(saved) = self.changes.save(&mut self.ledger, now) {
                *store = Some(saved);
            }
        }

        fn knows(&self, key: &str) -> bool {
            let evidence = self.ledger.evidence(key.as_bytes(), Counts::default());
            evidence.own.wrote.changed > 0
        }
    }

    #[test]
    fn changes_reach_other_workers_and_none_is_lost() {
        let clock = Clock::manual();
        let (mut one, mut other, mut store) = (Worker::default(), Worker::default(), None);
        one.exchange(&mut store, clock.now());
        other.exchange(&mut store, clock.now());
        assert_eq!(store, None);
        one.ledger.note(&changed("cart:a"), false);
        other.ledger.note(&changed("cart:b"), false);
        // The second loads before the first saves, and overwrites it.
        one.exchange(&mut store, clock.now());
        other.exchange(&mut store, clock.now());
        for _ in 0..3 {
            clock.advance(EXCHANGE);
            one.exchange(&mut store, clock.now());
            other.exchange(&mut store, clock.now());
        }
        assert!(one.knows("cart:b") && other.knows("cart:a"));
        let saved = store.clone();
        clock.advance(EXCHANGE);
        one.exchange(&mut store, clock.now());
        assert_eq!(store, saved, "saved again though nothing is new");
    }

    #[test]
    fn key_regains_its_place_after_others_reported_its_change() {
        let (clock, mut one, mut store) = (Clock::manual(), Worker::default(), None);
        one.exchange(&mut store, clock.now());
        one.ledger.note(&changed("menu"), false);
        one.exchange(&mut store, clock.now());
        let mut other = Worker::default();
        let mut fill = changed("menu");
        fill.uses.values_mut().for_each(|used| {
            used.found = false;
            used.absent = true;
            used.changed = false;
        });
        let passes = |worker: &Worker| {
            let evidence = worker.ledger.evidence(b"menu", Counts::default());
            evidence.has_earned()
        };
        for _ in 0..20 {
            clock.advance(EXCHANGE);
            other.exchange(&mut store, clock.now());
            other.ledger.note(&fill, true);
        }
        assert!(passes(&other));
        for _ in 0..8 {
            clock.advance(EXCHANGE);
            other.exchange(&mut store, clock.now());
            one.exchange(&mut store, clock.now());
        }
        assert!(passes(&one), "the other worker reported nothing");
    }

    #[test]
    fn most_important_changes_are_kept_when_room_is_short() {
        let (clock, mut one) = (Clock::manual(), Worker::default());
        for nth in 0..MAX_ROWS + 500 {
            one.ledger.note(&changed(&"x".repeat(nth + 1)), false);
        }
        one.ledger.mark_exact(b"lock");
        let mut store = None;
        one.exchange(&mut store, clock.now());
        let (_, List(rows)) = from_slice::<ChangesRecord>(store.as_deref().unwrap()).unwrap();
        assert_eq!(rows.len(), MAX_ROWS);
        let mut other = Worker::default();
        other.exchange(&mut store, clock.now());
        assert!(other.ledger.evidence(b"lock", Counts::default()).own.exact);
    }

    #[test]
    fn other_versions_are_ignored_and_junk_is_reported() {
        let merge = |bytes: &[u8]| Changes::default().merge(&mut Ledger::default(), Some(bytes));
        assert!(merge(b"\x92\x01\x90"));
        assert!(merge(b"\x93\x07\x90"));
        for junk in [
            &b""[..],
            b"text",
            b"\x92\x01\xc0",
            b"\x92\x01\xdd\xff\xff\xff\xff",
        ] {
            assert!(!merge(junk), "{junk:?}");
        }
        let row = (5_u64, (1_u16, 1_u8, 1_u16, 1_u8, 1_u8, 1_u8, true, true));
        let many = |count| to_vec(&(VERSION, vec![row; count])).unwrap();
        assert!(merge(&many(MAX_ROWS)));
        assert!(!merge(&many(MAX_ROWS + 1)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            if head {
                bytes.splice(0..0, [0x92, VERSION]);
            }
            let mut ledger = Ledger::default();
            Changes::default().merge(&mut ledger, Some(&bytes));
            ledger.note(&changed("a"), true);
        }
    }
}

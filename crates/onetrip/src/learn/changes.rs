//! What workers tell each other of keys that pages changed, whichever route those belong to.
//!
//! The records of routes cannot hold it: a POST page that changes a cart has no record, and the
//! pages that show the cart are of other routes. Keys are told by their hashes alone.

use std::time::Duration;

use hashbrown::HashMap;
use rmp_serde::{from_slice, to_vec};

use super::EXCHANGE;
use super::bounded::List;
use super::earn::{Counts, CountsRow, Scale};
use super::ledger::Ledger;
use super::memory::slots;
use crate::clock::Moment;

/// The version of this form. Others are not read.
const VERSION: u8 = 1;

/// The most keys and shapes that are told.
const MAX_ROWS: usize = 2048;

/// The most of them that have nothing against them but that a page set them.
const MAX_SET: usize = 256;

/// How often it is written though it says nothing new, so that it outlives what it tells.
const RENEW: Duration = Duration::from_secs(24 * 60 * 60);

type ChangesRecord = (u8, List<(u64, CountsRow), MAX_ROWS>);

/// When changes were exchanged.
#[derive(Debug, Default)]
pub(super) struct Changes {
    loaded: Option<Moment>,
    saved: Option<Moment>,
    /// What the store had, or was given, when that was last known. The same is not heard twice: it
    /// would keep a key from regaining its place.
    heard: Option<HashMap<u64, CountsRow>>,
}

impl Changes {
    /// Returns whether to ask for them on a trip that is made at `now`. What is asked for counts as
    /// loaded.
    pub(super) fn load(&mut self, now: Moment) -> bool {
        let due = self.loaded.is_none_or(|last| now.since(last) >= EXCHANGE);
        if due {
            self.loaded = Some(now);
        }
        due
    }

    /// Returns the bytes to write, if the store is to be told at `now`. The others' are heard first,
    /// so that none of theirs are lost.
    pub(super) fn save(&mut self, ledger: &mut Ledger, now: Moment) -> Option<Vec<u8>> {
        let due = |span| self.saved.is_none_or(|last| now.since(last) >= span);
        if self.heard.is_none() || !due(if ledger.news { EXCHANGE } else { RENEW }) {
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
        self.heard = Some(rows.iter().copied().collect());
        let record: ChangesRecord = (VERSION, List(rows));
        // Numbers in memory: there is nothing that could fail.
        Some(to_vec(&record).unwrap_or_default())
    }

    /// Takes in what the store has. Returns whether that parsed; changes of other versions count.
    pub(super) fn hear(&mut self, ledger: &mut Ledger, record: Option<&[u8]>) -> bool {
        let before = self.heard.replace(HashMap::new()).unwrap_or_default();
        let rows = match record {
            None => Vec::new(),
            Some([0x92, VERSION, ..]) => match record.map(from_slice::<ChangesRecord>) {
                Some(Ok((_, List(rows)))) => rows,
                _ => return false,
            },
            // Who runs another version writes it anew, and so does this process: neither is heard.
            Some([0x90..=0x9F, 0..=0x7F, ..]) => return true,
            Some(_) => return false,
        };
        for (hash, row) in &rows {
            if before.get(hash) != Some(row) {
                // Shapes have the larger window; of keys it is cut at their next test.
                ledger.weigh(*hash, &Counts::of(*row, Scale::Many));
            }
        }
        let is_full = rows.len() >= MAX_ROWS;
        let heard: HashMap<u64, CountsRow> = rows.into_iter().collect();
        // What another worker overwrote is told again.
        let is_lost = |(hash, counts): &(u64, Counts)| {
            counts.against() < Some(2) && !heard.contains_key(hash)
        };
        ledger.news |= !is_full && ledger.against().iter().any(is_lost);
        self.heard = Some(heard);
        true
    }

    /// Returns its bytes, as it was allocated.
    pub(super) fn memory(&self) -> usize {
        let heard = self.heard.as_ref().map_or(0, HashMap::capacity);
        slots::<u64, CountsRow>(heard)
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
                assert!(self.changes.hear(&mut self.ledger, store.as_deref()));
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
    fn a_change_is_heard_by_other_workers_and_none_is_lost() {
        let clock = Clock::manual();
        let (mut one, mut other, mut store) = (Worker::default(), Worker::default(), None);
        one.exchange(&mut store, clock.now());
        other.exchange(&mut store, clock.now());
        assert_eq!(store, None);
        one.ledger.note(&changed("cart:a"), false);
        other.ledger.note(&changed("cart:b"), false);
        // The second has heard before the first told, and overwrites it.
        one.exchange(&mut store, clock.now());
        other.exchange(&mut store, clock.now());
        for _ in 0..3 {
            clock.advance(EXCHANGE);
            one.exchange(&mut store, clock.now());
            other.exchange(&mut store, clock.now());
        }
        assert!(one.knows("cart:b") && other.knows("cart:a"));
        let told = store.clone();
        clock.advance(EXCHANGE);
        one.exchange(&mut store, clock.now());
        assert_eq!(store, told, "told again though nothing is new");
    }

    #[test]
    fn a_key_regains_its_place_though_others_told_of_its_change() {
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
        assert!(passes(&one), "the other worker told nothing of it");
    }

    #[test]
    fn what_matters_most_is_told_where_there_is_no_room() {
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
    fn other_versions_are_left_alone_and_junk_is_told_apart() {
        let hear = |bytes: &[u8]| Changes::default().hear(&mut Ledger::default(), Some(bytes));
        assert!(hear(b"\x92\x01\x90"));
        assert!(hear(b"\x93\x07\x90"));
        for junk in [
            &b""[..],
            b"text",
            b"\x92\x01\xc0",
            b"\x92\x01\xdd\xff\xff\xff\xff",
        ] {
            assert!(!hear(junk), "{junk:?}");
        }
        let row = (5_u64, (1_u16, 1_u8, 1_u16, 1_u8, 1_u8, 1_u8, true, true));
        let many = |count| to_vec(&(VERSION, vec![row; count])).unwrap();
        assert!(hear(&many(MAX_ROWS)));
        assert!(!hear(&many(MAX_ROWS + 1)));
    }

    proptest! {
        #[test]
        fn no_bytes_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            if head {
                bytes.splice(0..0, [0x92, VERSION]);
            }
            let mut ledger = Ledger::default();
            Changes::default().hear(&mut ledger, Some(&bytes));
            ledger.note(&changed("a"), true);
        }
    }
}

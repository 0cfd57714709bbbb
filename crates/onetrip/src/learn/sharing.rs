//! Two workers that share a store, and the lists of pages they exchange.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::clock::Clock;

/// The store's content beside the keys, by name.
type Store = HashMap<String, Vec<u8>>;

/// A process and the trips that its pages make.
#[derive(Default)]
struct Worker(Learner);

fn list_name(route: &str, page: u64) -> String {
    format!("list:{route}:{page:016x}")
}

impl Worker {
    /// Visits a page that reads these keys, one after the other, as `pages.rs` does. Returns its
    /// trips.
    fn visit(
        &self,
        page: &Page,
        keys: &[String],
        used: Use,
        store: &mut Store,
        clock: &Clock,
    ) -> u32 {
        let mut visit = Visit::default();
        let mut held: HashSet<Vec<u8>> = HashSet::new();
        let mut departs = true;
        for key in keys {
            visit.uses.insert(key.as_bytes().into(), used);
            if !held.insert(key.clone().into()) {
                continue;
            }
            visit.trips += 1;
            if std::mem::take(&mut departs) {
                for predicted in self.0.predict(page) {
                    held.insert(predicted.key.clone());
                    visit.ahead.insert(predicted.key.into(), predicted.bytes);
                }
                departs = self.exchange(page, store, clock);
            }
        }
        self.0.learn(page, &visit);
        visit.trips
    }

    /// Exchanges with the store. Returns whether the next trip preloads what was loaded.
    fn exchange(&self, page: &Page, store: &mut Store, clock: &Clock) -> bool {
        let exchange = self.0.exchange(page, clock.now());
        let mut again = false;
        let record = format!("page:{}", page.route());
        if exchange.load
            && let Some(bytes) = store.get(&record)
        {
            let knew = !self.0.predict(page).is_empty();
            assert!(self.0.merge(page, bytes));
            again |= !knew;
        }
        if exchange.load_changes {
            assert!(
                self.0
                    .merge_changes(store.get("changes").map(Vec::as_slice))
            );
        }
        if exchange.load_list {
            let list = store.get(&list_name(page.route(), page.id()));
            again |= self.0.merge_list(page, list.map(Vec::as_slice)).unwrap();
        }
        store.extend(exchange.save.map(|bytes| (record, bytes)));
        store.extend(exchange.save_changes.map(|bytes| ("changes".into(), bytes)));
        let lists = exchange.save_lists.into_iter();
        store.extend(lists.map(|list| (list_name(&list.route, list.page), list.bytes)));
        again
    }
}

const PIECE: Use = Use {
    compared: false,
    bytes: 100,
    piece: true,
    reads: 0,
    found: false,
    absent: false,
    wrote: false,
    changed: false,
    exact: false,
};
const STATE: Use = Use {
    piece: false,
    reads: 1,
    found: true,
    ..PIECE
};

/// Comments of a note; their numbers say nothing about it.
fn comments(id: u64) -> Vec<String> {
    let number = |nth: u64| (id * 31 + nth + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 10_000_000;
    (0..20)
        .map(|nth| format!("comment:{}", number(nth)))
        .collect()
}

fn page(id: u64) -> Page {
    Page::new("note").arg("id", id)
}

#[test]
fn page_visited_by_another_worker_takes_two_trips() {
    for (used, rounds) in [(PIECE, 1), (STATE, 3)] {
        let (clock, mut store) = (Clock::manual(), Store::new());
        let (one, other) = (Worker::default(), Worker::default());
        let round = |worker: &Worker, store: &mut Store| {
            let trips =
                (0..200).map(|id| worker.visit(&page(id), &comments(id), used, store, &clock));
            trips.max().unwrap()
        };
        for _ in 0..rounds {
            assert_eq!(round(&one, &mut store), 20);
            clock.advance(EXCHANGE);
        }
        // Later trips save lists, so the last lists need more trips.
        one.visit(&page(0), &comments(0), used, &mut store, &clock);
        assert!(store.len() > 195, "{} lists", store.len());
        assert!(round(&one, &mut store) <= 2, "{used:?}");
        assert!(round(&other, &mut store) <= 2, "{used:?} by another worker");
    }
}

#[test]
fn unchanged_list_is_saved_once_an_hour() {
    let (clock, worker) = (Clock::manual(), Worker::default());
    let mut saved = 0;
    for minute in 0..130 {
        let mut store = Store::new();
        worker.visit(&page(1), &comments(1), PIECE, &mut store, &clock);
        saved += usize::from(store.contains_key(&list_name("note", page(1).id())));
        assert!(minute > 3 || saved <= 1);
        clock.advance(EXCHANGE);
    }
    assert_eq!(saved, 3);
}

#[test]
fn list_that_always_changes_is_saved_once_a_minute() {
    let (clock, worker) = (Clock::manual(), Worker::default());
    let mut saved = 0;
    for nth in 0..60 {
        let mut store = Store::new();
        worker.visit(&page(1), &comments(nth), PIECE, &mut store, &clock);
        saved += usize::from(store.contains_key(&list_name("note", page(1).id())));
        clock.advance(EXCHANGE / 10);
    }
    assert!((5..=7).contains(&saved), "{saved}");
}

#[test]
fn pages_that_templates_explain_have_no_lists() {
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    let keys = |id: u64| vec![format!("note:{id}"), format!("author:{id}"), "menu".into()];
    for id in 1..100 {
        worker.visit(&page(id), &keys(id), PIECE, &mut store, &clock);
    }
    assert!(!worker.0.exchange(&page(7), clock.now()).load_list);
    assert!(!worker.0.exchange(&page(777), clock.now()).load_list);
    let lists = store.keys().filter(|name| name.starts_with("list:"));
    // From the first pages, before two of them confirmed the templates.
    assert!(lists.count() <= 2);
}

#[test]
fn missing_list_is_asked_for_once() {
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    for id in 0..5 {
        worker.visit(&page(id), &comments(id), PIECE, &mut store, &clock);
    }
    let asks = || worker.0.exchange(&page(77), clock.now()).load_list;
    assert!(asks());
    assert_eq!(worker.0.merge_list(&page(77), None), Some(false));
    assert!(!asks());
}

#[test]
fn secrets_are_not_shared() {
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    let secrets = [
        "django.contrib.sessions.cacheq0w9e8r7",
        "Session:5",
        "auth:9f86d081884c7d659a2feaa0c55ad015",
        "t:550e8400-e29b-41d4-a716-446655440000:x",
    ];
    for used in [PIECE, STATE] {
        for _ in 0..4 {
            for id in 0..4 {
                let keys: Vec<_> = secrets.iter().map(ToString::to_string).collect();
                let keys = [keys, comments(id)].concat();
                worker.visit(&page(id), &keys, used, &mut store, &clock);
            }
            worker.visit(
                &Page::new("home"),
                &secrets.map(String::from),
                used,
                &mut store,
                &clock,
            );
            clock.advance(EXCHANGE);
        }
    }
    assert!(store.len() > 5, "{:?}", store.keys());
    for (name, bytes) in &store {
        let text = String::from_utf8_lossy(bytes);
        assert!(
            !secrets.iter().any(|key| text.contains(key)),
            "{name}: {text}"
        );
    }
    let shared = store
        .values()
        .any(|bytes| String::from_utf8_lossy(bytes).contains("comment:"));
    assert!(shared);
}

#[test]
fn lists_contain_no_locks() {
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    worker.0.mark_exact(b"lock:1");
    let keys = [vec!["lock:77777".to_owned()], comments(1)].concat();
    worker.visit(&page(1), &keys, STATE, &mut store, &clock);
    worker.visit(&page(1), &keys, STATE, &mut store, &clock);
    let list = &store[&list_name("note", page(1).id())];
    let text = String::from_utf8_lossy(list);
    assert!(text.contains("comment:") && !text.contains("lock:"));
}

#[test]
fn waiting_lists_are_bounded_and_the_newest_win() {
    let (clock, mut lists) = (Clock::manual(), Lists::default());
    lists.note_trip(clock.now());
    let list = |page: u64, bytes: usize| PageList {
        route: "r".into(),
        page,
        bytes: vec![0; bytes],
    };
    for page in 0..100 {
        lists.push(list(page, 10));
    }
    let mut left = Vec::new();
    loop {
        let taken = lists.take();
        assert!(taken.len() <= 4);
        if taken.is_empty() {
            break;
        }
        left.extend(taken.into_iter().map(|list| list.page));
    }
    assert_eq!(left, (36..100).rev().collect::<Vec<_>>());
    for page in 0..100 {
        lists.push(list(page, 16 << 10));
        lists.push(list(page, 15 << 10));
    }
    assert!(lists.memory() < 256 << 10 | 16 << 10);
    let taken = lists.take();
    assert_eq!(
        taken.iter().map(|list| list.page).collect::<Vec<_>>(),
        [99, 98]
    );
}

#[test]
fn list_is_cut_at_16_kib() {
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    let keys: Vec<_> = (0..400)
        .map(|nth| format!("c:{}:{nth}", "x".repeat(200)))
        .collect();
    worker.visit(&page(1), &keys, PIECE, &mut store, &clock);
    worker.visit(&page(1), &keys, PIECE, &mut store, &clock);
    let list = &store[&list_name("note", page(1).id())];
    assert!(
        (12 << 10..=16 << 10).contains(&list.len()),
        "{} bytes",
        list.len()
    );
}

#[test]
fn django_fragments_are_learned_by_their_arguments() {
    // A page of three fragments and a menu, named as in Django 5.2: by `[note]` and `[note, lang]`.
    let (clock, mut store, worker) = (Clock::manual(), Store::new(), Worker::default());
    let page = |id: u64| Page::new("note").arg("id", id).arg("lang", "de");
    let fragments = |id: u64| -> Vec<String> {
        let id = id.to_string();
        let digest = |args: &[(&str, &str)]| digest::How::Colons.digest(args.iter().copied());
        vec![
            format!(":1:template.cache.note.{}", digest(&[("", &id)])),
            format!(
                ":1:template.cache.tags.{}",
                digest(&[("", &id), ("", "de")])
            ),
            format!(
                ":1:template.cache.more.{}",
                digest(&[("", "de"), ("", &id)])
            ),
            format!(":1:template.cache.menu.{}", digest(&[])),
        ]
    };
    // Not from note 1: its number equals Django's version in each key.
    for id in 5..8 {
        worker.visit(&page(id), &fragments(id), PIECE, &mut store, &clock);
    }
    let trips = |worker: &Worker, id, store: &mut Store| {
        worker.visit(&page(id), &fragments(id), PIECE, store, &clock)
    };
    assert_eq!(trips(&worker, 77, &mut store), 1);
    // Other workers learn of it.
    let other = Worker::default();
    assert_eq!(trips(&other, 78, &mut store), 2);
    assert_eq!(trips(&other, 79, &mut store), 1);
}

mod untrusted {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_list_does_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            if head {
                bytes.splice(0..0, [0x92, 1]);
            }
            let learner = Learner::default();
            let _ = learner.merge_list(&page(1), Some(&bytes));
            let _ = learner.predict(&page(1));
        }
    }

    #[test]
    fn untrusted_lists_are_bounded() {
        use rmp_serde::to_vec;
        let usage = (f32::NAN, u16::MAX, u32::MAX, 255_u8);
        let merged = |bytes: &[u8]| Learner::default().merge_list(&page(1), Some(bytes));
        let keys = |count: usize, length: usize| {
            let rows = (0..count).map(|nth| {
                let key = format!("{nth:0length$}").into_bytes();
                (serde_bytes(key), usage, 255_u8)
            });
            to_vec(&(1_u8, rows.collect::<Vec<_>>())).unwrap()
        };
        assert_eq!(merged(&keys(512, 5)), Some(true));
        assert_eq!(merged(&keys(513, 5)), None);
        assert_eq!(merged(&keys(5, 513)), Some(false));
        assert_eq!(merged(b"\x92\x07\x90"), Some(false));
        assert_eq!(merged(b"junk"), None);
    }

    /// Serializes as MessagePack bytes.
    fn serde_bytes(key: Vec<u8>) -> impl serde::Serialize {
        struct Owned(Vec<u8>);
        impl serde::Serialize for Owned {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }
        Owned(key)
    }
}

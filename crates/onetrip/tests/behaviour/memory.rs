//! Specifics of the memory store: it is bounded, and shared by name.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, ErrorKind, OnError, Ttl};

use crate::support::Blob;

fn build(builder: Builder) -> Cache {
    builder.on_error(OnError::Raise).build().unwrap().blocking()
}

fn open(url: &str) -> Cache {
    build(onetrip::Cache::builder(url))
}

fn living(cache: &Cache, keys: usize) -> usize {
    (0..keys)
        .filter(|key| cache.contains(key.to_string()).unwrap())
        .count()
}

#[test]
fn store_stays_within_its_size() {
    for (size, bytes) in [("1MiB", 1 << 20), ("32MiB", 32 << 20)] {
        let cache = open(&format!("memory://?size={size}"));
        let value = Blob(vec![1; 10_000]);
        let keys = 2 * bytes / value.0.len();
        for key in 0..keys {
            cache.set(key.to_string(), &value).unwrap();
        }
        let held = living(&cache, keys) * value.0.len();
        assert!(held <= bytes, "{held} bytes in {size}");
        assert!(held > bytes / 2, "only {held} bytes in {size}");
        assert!(
            cache.contains((keys - 1).to_string()).unwrap(),
            "the newest is there"
        );
    }
}

#[test]
fn small_entries_and_long_names_count_towards_the_size() {
    let cache = open("memory://?size=1MiB");
    for key in 0..20_000 {
        cache.set(key.to_string(), &1).unwrap();
    }
    let held = living(&cache, 20_000);
    assert!(
        held * 100 < 1 << 20,
        "{held} entries, each with its names and tables"
    );
    let key = |number: usize| format!("{number:01000}");
    for number in 0..2000 {
        cache.set(key(number), &1).unwrap();
    }
    let held = (0..2000).filter(|number| cache.contains(key(*number)).unwrap());
    assert!(held.count() * 1000 < 1 << 20);
}

#[test]
fn added_entries_count_towards_the_size() {
    let cache = open("memory://?size=1MiB");
    let value = Blob(vec![1; 10_000]);
    for key in 0..300 {
        cache
            .set_for(key.to_string(), &1, Duration::from_nanos(1))
            .unwrap();
        assert!(cache.add(key.to_string(), &value, Ttl::Never).unwrap());
    }
    assert!(living(&cache, 300) * value.0.len() <= 1 << 20);
}

#[test]
fn too_large_entry_is_refused_and_removes_the_old_one() {
    let cache = open("memory://?size=1MiB");
    cache.set("a", "old").unwrap();
    let large = Blob(vec![1; 1 << 20]);
    let error = cache.set("a", &large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("size="), "{error}");
    assert!(error.to_string().contains("\"a\""), "{error}");
    assert!(!cache.contains("a").unwrap(), "the old entry is outdated");
    let error = cache.add("a", &large, Ttl::Default).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    cache.set("a", "small").unwrap();
    assert_eq!(cache.get("a").unwrap(), Some("small".to_owned()));
}

#[test]
fn largest_accepted_entry_is_kept() {
    for (size, largest) in [("1MiB", 1_000_000), ("32MiB", 4_000_000)] {
        let cache = open(&format!("memory://?size={size}"));
        let value = Blob(vec![1; largest]);
        for key in ["a", "b"] {
            cache.set(key, &value).unwrap();
            assert_eq!(cache.get(key).unwrap(), Some(value.clone()), "{size}");
        }
    }
}

#[test]
fn too_large_entry_is_dropped_with_on_error_miss() {
    let cache = onetrip::Cache::open("memory://?size=1MiB")
        .unwrap()
        .blocking();
    cache.set("a", "old").unwrap();
    let page = || cache.set("a", &Blob(vec![1; 1 << 20]));
    cache.scope(page).unwrap();
    assert_eq!(cache.get::<String>("a").unwrap(), None);
    assert_eq!(cache.asynchronous().stats().errors, 1);
}

#[test]
fn unnamed_stores_are_separate() {
    let (one, other) = (open("memory://"), open("memory://"));
    one.set("a", &1).unwrap();
    assert!(!other.contains("a").unwrap());
}

#[test]
fn named_store_lasts_as_long_as_one_of_its_caches() {
    let (one, other) = (open("memory://shared-name"), open("memory://shared-name"));
    one.set("a", &1).unwrap();
    assert_eq!(other.get("a").unwrap(), Some(1));
    assert!(!open("memory://other-name").contains("a").unwrap());
    drop(one);
    assert_eq!(open("memory://shared-name").get("a").unwrap(), Some(1));
    drop(other);
    assert!(!open("memory://shared-name").contains("a").unwrap());
}

#[test]
fn named_store_has_one_size() {
    let _first = open("memory://sized?size=1MiB");
    open("memory://sized");
    open("memory://sized?size=1024KiB");
    let error = onetrip::Cache::open("memory://sized?size=2MiB").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("memory://sized"), "{error}");
    assert!(error.to_string().contains("size=1048576"), "{error}");
}

#[test]
fn latency_only_delays_answers() {
    let (slow, fast) = (open("memory://late?latency=100us"), open("memory://late"));
    assert!(!slow.asynchronous().is_local());
    assert!(fast.asynchronous().is_local());
    assert!(slow.asynchronous().label().contains("100µs"));
    let page = || {
        slow.set("a", &1)?;
        assert_eq!(slow.incr("a", 1)?, Some(2));
        slow.set("b", &3)
    };
    slow.preload(["a", "b"], page).unwrap();
    assert_eq!(fast.get("a").unwrap(), Some(2));
    assert_eq!(slow.get("b").unwrap(), Some(3));
    // However busy the machine is, a trip takes at least this long.
    let slow = open("memory://?latency=20ms");
    let began = std::time::Instant::now();
    slow.get::<i64>("a").unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[test]
fn expired_entry_counts_as_absent() {
    let clock = Clock::manual();
    let cache = build(onetrip::Cache::builder("memory://").clock(clock.clone()));
    let second = Duration::from_secs(1);
    for key in ["get", "add", "incr", "touch", "delete", "clear"] {
        cache.set_for(key, &1, second).unwrap();
    }
    clock.advance(second);
    assert_eq!(cache.get::<i64>("get").unwrap(), None);
    assert!(cache.add("add", &2, Ttl::Never).unwrap());
    assert_eq!(cache.get("add").unwrap(), Some(2));
    assert_eq!(cache.incr("incr", 1).unwrap(), None);
    assert!(!cache.touch("touch", second).unwrap());
    assert!(!cache.delete("delete").unwrap());
    assert_eq!(cache.clear().unwrap(), 1, "only the added entry is alive");
}

#[test]
fn one_of_many_threads_adds() {
    let cache = open("memory://");
    let added = std::thread::scope(|threads| {
        let all: Vec<_> = (0..8)
            .map(|thread| {
                let cache = &cache;
                threads.spawn(move || {
                    let add = |key: &usize| cache.add(key.to_string(), &thread, Ttl::Never);
                    (0..1000).filter(|key| add(key).unwrap()).count()
                })
            })
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(added, 1000);
}

#[test]
fn increments_of_many_threads_are_all_counted() {
    let cache = open("memory://");
    cache.set("n", &0).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads
                .spawn(|| (0..1000).for_each(|_| assert!(cache.incr("n", 1).unwrap().is_some())));
        }
    });
    assert_eq!(cache.get("n").unwrap(), Some(8000));
}

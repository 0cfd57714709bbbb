//! The store stays within its size, and evicts the least needed entries first.

use std::time::Duration;

use onetrip::{Clock, Ttl};

use super::{build, open};
use crate::support::{Blob, Folder};

const MIB: u64 = 1 << 20;

/// Returns the largest file of a store of this size.
fn bound(size: u64) -> u64 {
    size + size / 4 + (320 << 10)
}

fn length(folder: &Folder) -> u64 {
    let data = folder.path().join("data.mdb");
    data.metadata().unwrap().len()
}

/// Returns pseudorandom numbers, the same each time.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

#[test]
fn overfilled_store_stays_within_its_size() {
    for size in [1, 4, 16] {
        let folder = Folder::new();
        let cache = open(&format!("{}?size={size}MiB", folder.url()));
        let mut number = numbers(size);
        let mut written = 0;
        while written < 3 * size * MIB {
            let length = match number(10) {
                0 => number(size * MIB / 10),
                1..5 => number(5000),
                _ => number(200),
            };
            let value = Blob(vec![1; length as usize]);
            let key = number(20_000).to_string();
            match number(3) {
                0 => cache.set_for(&key, &value, Ttl::Never).unwrap(),
                1 => cache
                    .set_for(&key, &value, Duration::from_millis(number(50) + 1))
                    .unwrap(),
                _ => cache
                    .set_for(&key, &value, Duration::from_secs(number(5000) + 1))
                    .unwrap(),
            }
            let answer: Option<Blob> = cache.get(&key).unwrap();
            assert!(answer.is_none_or(|answer| answer == value));
            written += length;
        }
        assert!(
            length(&folder) <= bound(size * MIB),
            "{} bytes",
            length(&folder)
        );
        assert!(
            length(&folder) > size * MIB / 2,
            "{} bytes",
            length(&folder)
        );
    }
}

#[test]
fn many_small_entries_in_one_trip_stay_within_the_size() {
    let folder = Folder::new();
    let cache = open(&format!("{}?size=1MiB", folder.url()));
    for round in 0..3 {
        let values = (0..30_000).map(|key| (format!("{round}:{key}"), key));
        cache.set_many(values, Ttl::Never).unwrap();
        assert!(cache.contains(format!("{round}:29999")).unwrap());
    }
    assert!(length(&folder) <= bound(MIB), "{} bytes", length(&folder));
    let large = Blob(vec![1; 100_000]);
    let values = (0..50).map(|key| (key.to_string(), &large));
    cache.set_many(values, Ttl::Never).unwrap();
    assert_eq!(cache.get("49").unwrap(), Some(large));
    assert!(length(&folder) <= bound(MIB), "{} bytes", length(&folder));
}

#[test]
fn store_shrinks_to_a_smaller_size() {
    let folder = Folder::new();
    let value = Blob(vec![1; 1500]);
    let fill = |size: &str, keys: std::ops::Range<usize>| {
        let cache = open(&format!("{}?size={size}", folder.url()));
        for key in keys {
            cache.set_for(key.to_string(), &value, Ttl::Never).unwrap();
        }
        cache
    };
    fill("8MiB", 0..4000);
    let before = length(&folder);
    let cache = fill("1MiB", 4000..8000);
    assert!(length(&folder) <= before.max(bound(MIB)));
    let living = (0..8000).filter(|key| cache.contains(key.to_string()).unwrap());
    assert!(living.count() * 1500 <= MIB as usize);
    assert!(cache.contains("7999").unwrap());
    drop(cache);
    fill("16MiB", 0..20_000);
    assert!(length(&folder) <= bound(16 * MIB));
    assert!(length(&folder) > 8 * MIB);
}

#[test]
fn expired_entries_are_evicted_first() {
    let folder = Folder::new();
    let clock = Clock::manual();
    let url = format!("{}?size=1MiB", folder.url());
    let cache = build(onetrip::Cache::builder(url).clock(clock.clone()));
    let value = Blob(vec![1; 3000]);
    let set = |kind: &str, count: usize, timeout: Ttl| {
        for key in 0..count {
            cache
                .set_for(format!("{kind}{key}"), &value, timeout)
                .unwrap();
        }
    };
    let living = |kind: &str, count: usize| {
        let keys = (0..count).map(|key| format!("{kind}{key}"));
        keys.filter(|key| cache.contains(key).unwrap()).count()
    };
    set("old", 60, Ttl::Never);
    set("brief", 120, Ttl::After(Duration::from_secs(10)));
    // Entries whose ttl was extended do not count as expired.
    for key in 0..20 {
        assert!(cache.touch(format!("brief{key}"), Ttl::Never).unwrap());
    }
    clock.advance(Duration::from_secs(11));
    // There is room for these only if most expired entries are evicted.
    set("new", 130, Ttl::Never);
    assert_eq!(living("old", 60), 60);
    assert_eq!(living("brief", 120), 20);
    assert_eq!(living("new", 130), 130);
}

#[test]
fn used_entries_are_evicted_last() {
    let folder = Folder::new();
    let cache = open(&format!("{}?size=1MiB", folder.url()));
    let value = Blob(vec![1; 3000]);
    for key in 0..20 {
        cache
            .set_for(format!("used{key}"), &value, Ttl::Never)
            .unwrap();
        cache
            .set_for(format!("left{key}"), &value, Ttl::Never)
            .unwrap();
    }
    for key in 0..2000 {
        cache.set_for(key.to_string(), &value, Ttl::Never).unwrap();
        assert!(
            cache.contains(format!("used{}", key % 20)).unwrap(),
            "{key}"
        );
    }
    assert!((0..20).all(|key| !cache.contains(format!("left{key}")).unwrap()));
    assert!(cache.contains("1999").unwrap(), "the newest is there");
}

#[test]
fn short_ttl_is_not_evicted_for_entries_that_never_expire() {
    let folder = Folder::new();
    let cache = open(&format!("{}?size=1MiB", folder.url()));
    let value = Blob(vec![1; 3000]);
    for key in 0..600 {
        cache.set_for(key.to_string(), &value, Ttl::Never).unwrap();
    }
    cache
        .set_for("brief", &value, Duration::from_secs(60))
        .unwrap();
    for key in 600..650 {
        cache.set_for(key.to_string(), &value, Ttl::Never).unwrap();
    }
    assert!(cache.contains("brief").unwrap());
}

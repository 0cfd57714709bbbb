//! Within the process: hits in a scope, and stores in memory.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;

use crate::measure::{Pace, Work, compare};
use crate::text;

pub(crate) fn hit_in_a_scope(pace: Pace) -> Result<(), Box<dyn Error>> {
    let cache = onetrip::Cache::open("memory://")?.blocking();
    cache.set("one", "a small value")?;
    cache.set("text", &text())?;
    let held: HashMap<String, String> = HashMap::from([
        ("one".into(), "a small value".into()),
        ("text".into(), text()),
    ]);
    cache.preload(["one", "text"], || {
        compare(
            "hit in a scope",
            pace,
            vec![
                Work::new("a HashMap, cloned", || {
                    let value = held.get(black_box("one")).cloned();
                    assert!(value.as_deref() == Some("a small value"));
                }),
                Work::new("onetrip", || {
                    let value: Option<String> = cache.get(black_box("one")).unwrap();
                    assert!(value.as_deref() == Some("a small value"));
                }),
                Work::new("a HashMap, cloned, 1.5 kB", || {
                    assert!(black_box(held.get(black_box("text")).cloned()).is_some());
                }),
                Work::new("onetrip, 1.5 kB", || {
                    let value: Option<String> = cache.get(black_box("text")).unwrap();
                    assert!(black_box(value).is_some());
                }),
            ],
        );
        Ok(())
    })
}

pub(crate) fn memory(pace: Pace) -> Result<(), Box<dyn Error>> {
    const ENTRIES: usize = 10_000;
    let key = String::from("one");
    let text = text();

    let mut held: HashMap<String, String> = HashMap::new();
    held.insert(key.clone(), text.clone());
    let cache = onetrip::Cache::open("memory://")?.blocking();
    cache.set(&key, &text)?;
    let moka = moka::sync::Cache::new(ENTRIES as u64);
    moka.insert(key.clone(), text.clone());
    let quick = quick_cache::sync::Cache::new(ENTRIES);
    quick.insert(key.clone(), text.clone());
    let foyer: foyer::Cache<String, String> = foyer::CacheBuilder::new(ENTRIES).build();
    foyer.insert(key.clone(), text.clone());

    let is_right = |value: Option<&str>| assert!(value.is_some_and(|value| value.len() == 1500));
    compare(
        "the memory store, get",
        pace,
        vec![
            Work::new("a HashMap, cloned", || {
                is_right(held.get(black_box(&key)).cloned().as_deref())
            }),
            Work::new("onetrip", || {
                let value: Option<String> = cache.get(black_box(&key)).unwrap();
                is_right(value.as_deref());
            }),
            Work::new("moka", || is_right(moka.get(black_box(&key)).as_deref())),
            Work::new("quick_cache", || {
                is_right(quick.get(black_box(&key)).as_deref())
            }),
            Work::new("foyer", || {
                let entry = foyer.get(black_box(&key));
                is_right(entry.map(|entry| entry.value().clone()).as_deref());
            }),
        ],
    );
    compare(
        "the memory store, set",
        pace,
        vec![
            Work::new("a HashMap", || {
                held.insert(key.clone(), black_box(&text).clone());
            }),
            Work::new("onetrip", || cache.set(&key, black_box(&text)).unwrap()),
            Work::new("moka", || {
                moka.insert(key.clone(), black_box(&text).clone())
            }),
            Work::new("quick_cache", || {
                quick.insert(key.clone(), black_box(&text).clone());
            }),
            Work::new("foyer", || {
                foyer.insert(key.clone(), black_box(&text).clone());
            }),
        ],
    );
    Ok(())
}

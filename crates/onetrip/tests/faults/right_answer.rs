//! Law 4: no fault hands one caller another's answer, or a part of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

use crate::proxy::Fault;
use crate::stand::{Stand, TRIP_TIMEOUT, eventually};

on_every_server!(
    a_reply_cut_at_any_byte_is_a_miss,
    a_reply_that_comes_too_late_is_nobodys,
    a_million_reads_through_faults,
    cancelled_tasks_leave_the_connection_in_step,
);

/// A value that tells which key it belongs to, long enough for a reply to be cut in it.
fn tagged(key: &str) -> String {
    format!("<{key}>").repeat(10)
}

fn a_reply_cut_at_any_byte_is_a_miss(stand: &Stand) {
    let cache = stand.cache();
    let keys = ["a", "b", "c"];
    cache
        .set_many(keys.map(|key| (key, tagged(key))), Duration::from_secs(60))
        .unwrap();
    stand.fail(Fault::None);
    cache.get_many::<String, _>(&keys).unwrap();
    let length = stand.proxy.replied();
    assert!(length > 90, "{length}");
    for (ending, after) in [Fault::Cut as fn(usize) -> Fault, Fault::Reset]
        .into_iter()
        .flat_map(|ending| (1..length).map(move |after| (ending, after)))
    {
        eventually("recovery", || cache.get("a").unwrap() == Some(tagged("a")));
        stand.fail(ending(after));
        let values = cache.get_many::<String, _>(&keys).unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert!(
                value.is_none_or(|value| value == tagged(key)),
                "cut after {after}"
            );
        }
        stand.fail(Fault::None);
    }
}

fn a_reply_that_comes_too_late_is_nobodys(stand: &Stand) {
    let cache = stand.cache();
    for round in 0..5 {
        let key = |number: u8| format!("{round}:{number}");
        for number in 0..4 {
            cache.set(key(number), &tagged(&key(number))).unwrap();
        }
        stand.fail(Fault::Delay(TRIP_TIMEOUT * 2));
        assert_eq!(cache.get::<String>(key(0)).unwrap(), None);
        stand.fail(Fault::None);
        eventually("recovery", || {
            (1..4).all(|number| {
                let value = cache.get::<String>(key(number)).unwrap();
                assert!(
                    value
                        .as_ref()
                        .is_none_or(|value| *value == tagged(&key(number)))
                );
                value.is_some()
            })
        });
    }
}

const FAULTS: [Fault; 6] = [
    Fault::Cut(700),
    Fault::Reset(5_000),
    Fault::Delay(Duration::from_millis(5)),
    Fault::Garbage,
    Fault::Cut(0),
    Fault::Reset(0),
];

/// Reads a million values in eight threads while the network fails in all ways that end soon.
fn a_million_reads_through_faults(stand: &Stand) {
    const READS: u64 = 1_000_000;
    // So many of them from the store, unless this machine is too busy for its timeouts.
    const HITS: u64 = 100_000;
    let until = Instant::now() + Duration::from_secs(60);
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    stand
        .direct()
        .set_many(
            keys.iter().map(|key| (key, tagged(key))),
            Duration::from_secs(600),
        )
        .unwrap();
    let (read, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for fault in FAULTS.into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                stand.fail(fault);
                std::thread::sleep(Duration::from_millis(5));
                stand.fail(Fault::None);
                // Longer than the breaker pauses after a failure that came at once.
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        let readers: Vec<_> = (0..8)
            .map(|_| {
                threads.spawn(|| {
                    let cache = stand.cache();
                    let enough = || {
                        read.fetch_add(keys.len() as u64, Ordering::Relaxed) >= READS
                            && (found.load(Ordering::Relaxed) >= HITS || Instant::now() > until)
                    };
                    while !enough() {
                        let values = cache.get_many::<String, _>(&keys).unwrap();
                        for (key, value) in keys.iter().zip(values) {
                            if let Some(value) = value {
                                assert_eq!(value, tagged(key));
                                found.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let found = found.into_inner();
    assert!(found > 1_000, "{found} hits, so the store was asked");
}

/// Tasks of one runtime share a connection; some are cancelled while they wait for it.
fn cancelled_tasks_leave_the_connection_in_step(stand: &Stand) {
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    stand
        .direct()
        .set_many(
            keys.iter().map(|key| (key, tagged(key))),
            Duration::from_secs(600),
        )
        .unwrap();
    // Its own timeout, which would open the breaker for all, is none of these cancellations.
    let cache = stand.patient().asynchronous().clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let found = runtime.block_on(async {
        let tasks: Vec<_> = (0..16)
            .map(|seed| {
                let (cache, keys) = (cache.clone(), keys.clone());
                tokio::spawn(async move {
                    let mut random = TestRng::from_seed(
                        proptest::test_runner::RngAlgorithm::ChaCha,
                        &[seed; 32],
                    );
                    let mut found = 0;
                    for _ in 0..1_000 {
                        let key = &keys[random.next_u32() as usize % keys.len()];
                        // Every other read has the time that it needs, however busy the machine is.
                        let patience = match random.next_u32() % 8_000 {
                            micros @ ..4_000 => Duration::from_micros(micros.into()),
                            _ => Duration::MAX,
                        };
                        let reading = tokio::time::timeout(patience, cache.get::<String>(key));
                        if let Ok(value) = reading.await
                            && let Some(value) = value.unwrap()
                        {
                            assert_eq!(value, tagged(key));
                            found += 1;
                        }
                    }
                    found
                })
            })
            .collect();
        let mut found = 0;
        for task in tasks {
            found += task.await.unwrap();
        }
        found
    });
    assert!(found > 4_000, "{found} hits, so the store was asked");
    assert_eq!(
        cache.stats().errors,
        0,
        "a cancelled task fails for nobody else"
    );
}

//! Law 4: no fault gives one caller another's answer, or a part of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

use crate::proxy::Fault;
use crate::stand::{Stand, TRIP_TIMEOUT};

on_every_server!(
    truncated_reply_is_a_miss,
    late_reply_is_given_to_nobody;
    alone: million_reads_through_faults_are_right, cancelled_tasks_leave_the_connection_in_step,
);

/// Returns a value that identifies its key, long enough to be cut within.
fn tagged(key: &str) -> String {
    format!("<{key}>").repeat(10)
}

fn truncated_reply_is_a_miss(stand: Stand) {
    let cache = stand.cache();
    let keys = ["a", "b", "c"].map(|name| stand.key(name));
    cache
        .set_many(
            keys.iter().map(|key| (key, tagged(key))),
            Duration::from_secs(60),
        )
        .unwrap();
    stand.fail(Fault::None);
    cache.get_many::<String, _>(&keys).unwrap();
    let length = stand.proxy.replied();
    assert!(length > 90, "{length}");
    for (ending, after) in [Fault::Cut as fn(usize) -> Fault, Fault::Reset]
        .into_iter()
        .flat_map(|ending| (1..length).map(move |after| (ending, after)))
    {
        stand.recover();
        assert_eq!(cache.get(&keys[0]).unwrap(), Some(tagged(&keys[0])));
        stand.fail(ending(after));
        let values = cache.get_many::<String, _>(&keys).unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert!(
                value.is_none_or(|value| value == tagged(key)),
                "cut after {after}"
            );
        }
    }
}

fn late_reply_is_given_to_nobody(stand: Stand) {
    let cache = stand.cache();
    for round in 0..3 {
        let keys = [0, 1, 2, 3].map(|number| stand.key(&format!("{round}:{number}")));
        for key in &keys {
            cache.set(key, &tagged(key)).unwrap();
        }
        stand.fail(Fault::Delay(TRIP_TIMEOUT * 2));
        assert_eq!(cache.get::<String>(&keys[0]).unwrap(), None);
        stand.recover();
        for key in &keys[1..] {
            assert_eq!(cache.get(key).unwrap(), Some(tagged(key)));
        }
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

/// Values read of each store. At least `HITS` must come from the store, unless timeouts are too
/// short for this busy machine.
const READS: u64 = 1_000_000;
const HITS: u64 = 100_000;

/// Counts reads until there are enough.
#[derive(Default)]
struct Count {
    read: AtomicU64,
    found: AtomicU64,
}

impl Count {
    fn is_enough(&self, until: Instant) -> bool {
        let found = self.found.load(Ordering::Relaxed);
        let read = self.read.load(Ordering::Relaxed);
        read >= READS && (found >= HITS || Instant::now() > until)
    }

    fn check(&self, keys: &[String], values: Vec<Option<String>>) {
        self.read.fetch_add(keys.len() as u64, Ordering::Relaxed);
        for (key, value) in keys.iter().zip(values) {
            if let Some(value) = value {
                assert_eq!(value, tagged(key));
                self.found.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Reads a million values, in four threads and in tasks of which every other one is cancelled at
/// some point, through network faults that end soon.
fn million_reads_through_faults_are_right(stand: Stand) {
    let until = Instant::now() + Duration::from_secs(60);
    let keys = stand.keys(100);
    stand
        .direct()
        .set_many(
            keys.iter().map(|key| (key, tagged(key))),
            Duration::from_secs(600),
        )
        .unwrap();
    let count = Arc::new(Count::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for fault in FAULTS.into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                stand.fail(fault);
                std::thread::sleep(Duration::from_millis(5));
                stand.recover();
                // Leave time for reads to succeed.
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let mut readers: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(|| {
                    let cache = stand.cache();
                    while !count.is_enough(until) {
                        count.check(&keys, cache.get_many(&keys).unwrap());
                    }
                })
            })
            .collect();
        readers.push(threads.spawn(|| impatient_tasks(&stand, &keys, &count, until)));
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let found = count.found.load(Ordering::Relaxed);
    assert!(found > 1_000, "{found} hits, so the store was asked");
}

fn impatient_tasks(stand: &Stand, keys: &[String], count: &Arc<Count>, until: Instant) {
    let cache = stand.cache().asynchronous().clone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let tasks = (0..8_u8).map(|seed| {
            let (cache, keys, count) = (cache.clone(), keys.to_vec(), Arc::clone(count));
            tokio::spawn(async move {
                let mut random = random(seed);
                while !count.is_enough(until) {
                    let patience = match random.next_u32() % 4_000 {
                        micros @ ..2_000 => Duration::from_micros(micros.into()),
                        _ => Duration::MAX,
                    };
                    let reading = tokio::time::timeout(patience, cache.get_many(&keys)).await;
                    if let Ok(values) = reading {
                        count.check(&keys, values.unwrap());
                    }
                    // An open breaker answers without waiting.
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

/// Connecting takes longer than any of these callers waits, except the last.
#[test]
fn impatient_callers_leave_a_connection_for_the_next() {
    let stand = crate::stand::redis();
    stand.direct().set("key", &5).unwrap();
    let cache = stand.patient().asynchronous().clone();
    stand.fail(Fault::Delay(Duration::from_millis(100)));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        for _ in 0..5 {
            let patience = Duration::from_millis(5);
            let read = tokio::time::timeout(patience, cache.get::<i64>("key")).await;
            assert!(read.is_err(), "nothing answers so soon");
        }
        assert_eq!(cache.get("key").await.unwrap(), Some(5));
    });
    assert_eq!(stand.proxy.connections(), 1);
}

fn random(seed: u8) -> TestRng {
    TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[seed; 32])
}

/// Tasks of one runtime share a connection; some are cancelled while they wait for it.
fn cancelled_tasks_leave_the_connection_in_step(stand: Stand) {
    let keys = stand.keys(100);
    stand
        .direct()
        .set_many(
            keys.iter().map(|key| (key, tagged(key))),
            Duration::from_secs(600),
        )
        .unwrap();
    // The connection's own timeout would open the breaker for all, and is not tested here.
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
                    let mut random = random(seed);
                    let mut found = 0;
                    for _ in 0..1_000 {
                        let key = &keys[random.next_u32() as usize % keys.len()];
                        // Every other read has enough time, however busy the machine is.
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
        "a cancelled task makes no other fail"
    );
}

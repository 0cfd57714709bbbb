//! Redis Cluster: one trip to each node, moved slots, failing nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, ErrorKind, OnError};

use crate::support::{Cluster, Server, eventually};

/// Short, so that timeouts are cheap, but long enough for a busy machine to answer.
const TRIP_TIMEOUT: Duration = Duration::from_millis(400);

fn builder(cluster: &Cluster) -> Builder {
    onetrip::Cache::builder(cluster.url())
        .trip_timeout(TRIP_TIMEOUT)
        .connect_timeout(TRIP_TIMEOUT)
}

/// A cache that raises errors and is patient with a busy machine.
fn strict(cluster: &Cluster) -> Cache {
    let builder = builder(cluster).on_error(OnError::Raise);
    let patience = Duration::from_secs(20);
    let builder = builder.trip_timeout(patience).connect_timeout(patience);
    builder.build().unwrap().blocking()
}

fn lenient(cluster: &Cluster) -> Cache {
    builder(cluster).build().unwrap().blocking()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("note:{number}")).collect()
}

#[test]
fn keys_go_straight_to_their_node() {
    let cluster = Cluster::lend();
    let cache = strict(&cluster);
    cache.get::<u8>("connected").unwrap();
    let odd = [
        "",
        "{}",
        "{a}",
        "a{b}c",
        "{}{a}",
        "{{a}}",
        "}{",
        "{",
        "ключ",
        "{ключ}x",
    ];
    let odd = odd.map(String::from).into_iter().chain(keys(2000));
    let odd: Vec<String> = odd.collect();
    cache
        .set_many(odd.iter().map(|key| (key, 1)), Duration::from_secs(3600))
        .unwrap();
    for server in &cluster.servers {
        let info: String = server.ask(&["INFO", "errorstats"]);
        assert!(!info.contains("MOVED"), "{info}");
    }
}

#[test]
fn moved_slots_are_followed() {
    let cluster = Cluster::start();
    let (cache, other) = (strict(&cluster), strict(&cluster));
    // In two slots: during the move some entries are at the new node and others still at the old.
    let keys: Vec<String> = (0..12).map(|n| format!("{{{}}}:{n}", n % 2)).collect();
    let mut round = 0_i64;
    let mut step = || {
        round += 1;
        for key in &keys {
            cache.set(key, &round).unwrap();
        }
        let all: Vec<Option<i64>> = other.get_many(&keys).unwrap();
        assert_eq!(all, vec![Some(round); keys.len()]);
        let page = || {
            other.delete(&keys[0])?;
            let gone = cache.get::<i64>(&keys[0])?;
            assert_eq!(gone, None);
            other.set(&keys[0], &1_i64)?;
            assert_eq!(other.incr(&keys[0], 5)?, Some(6));
            other
                .touch(&keys[0], Duration::from_secs(60))
                .map(|there| assert!(there))
        };
        page().unwrap();
        cache.scope(|| cache.set(&keys[0], &round)).unwrap();
    };
    step();
    for turn in 0..6 {
        for key in &keys[..2] {
            cluster.move_slot(cluster.slot(key), turn % 3, &mut step);
        }
    }
    step();
    assert_eq!(cache.asynchronous().stats().errors, 0);
    assert_eq!(cache.clear().unwrap(), 12);
}

/// Stops the other threads when this one ends, even by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn threads_read_their_writes_while_slots_move() {
    let cluster = Cluster::start();
    let cache = strict(&cluster);
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (cache, ended) = (&cache, &ended);
            threads.spawn(move || {
                let keys: Vec<String> = (0..8).map(|n| format!("{{{n}}}:{thread}")).collect();
                let mut round = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    round += 1;
                    let values = keys.iter().map(|key| (key, format!("{key} {round}")));
                    cache.set_many(values, Duration::from_secs(3600)).unwrap();
                    let all: Vec<Option<String>> = cache.get_many(&keys).unwrap();
                    for (key, value) in keys.iter().zip(all) {
                        assert_eq!(value, Some(format!("{key} {round}")));
                    }
                }
            });
        }
        let _end = End(&ended);
        for slot in 0..8 {
            let slot = cluster.slot(&format!("{{{slot}}}"));
            cluster.move_slot(slot, usize::from(slot % 3), || {});
            cluster.move_slot(slot, usize::from((slot + 1) % 3), || {});
        }
    });
    assert_eq!(cache.asynchronous().stats().errors, 0);
}

/// Splits keys into those that node `number` holds and the others.
fn split(cluster: &Cluster, number: usize, keys: &[String]) -> (Vec<String>, Vec<String>) {
    let port = cluster.servers[number].port();
    let is_there = |key: &&String| cluster.holder(key).port() == port;
    keys.iter().cloned().partition(|key| is_there(&key))
}

#[test]
fn hung_node_makes_only_its_keys_unknown() {
    let cluster = Cluster::start();
    let (cache, keys) = (lenient(&cluster), keys(30));
    let (lost, rest) = split(&cluster, 1, &keys);
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Duration::from_secs(3600))
        .unwrap();
    let pid = cluster.servers[1].info("process_id");
    Server::signal(pid, "STOP");
    let page = || {
        let some: Vec<Option<i64>> = cache.get_many(&rest)?;
        assert_eq!(some, vec![Some(1); rest.len()], "the others answer");
        assert_eq!(cache.asynchronous().stats().errors, lost.len() as u64);
        let none: Vec<Option<i64>> = cache.get_many(&lost)?;
        assert_eq!(none, vec![None; lost.len()]);
        Server::signal(pid, "CONT");
        // If they were remembered as absent, the page would not ask for them.
        eventually("recovery", || cache.get(&lost[0]).unwrap() == Some(1));
        Ok::<_, onetrip::Error>(())
    };
    cache.preload(&keys, page).unwrap();
    eventually("recovery", || {
        let all: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        all == vec![Some(1); keys.len()]
    });
}

#[test]
fn hung_node_costs_one_timeout() {
    let cluster = Cluster::start();
    let cache = builder(&cluster).on_error(OnError::Raise);
    let cache = cache.build().unwrap().blocking();
    let (lost, rest) = split(&cluster, 2, &keys(30));
    for key in rest.iter().chain(&lost) {
        cache.set(key, &1).unwrap();
    }
    let pid = cluster.servers[2].info("process_id");
    Server::signal(pid, "STOP");
    let errors = lost.iter().map(|key| cache.get::<i64>(key).unwrap_err());
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    assert!(errors[0].contains("did not answer in time"), "{errors:?}");
    for error in &errors[1..] {
        assert!(error.contains("is not asked"), "{error}");
    }
    let all: Vec<Option<i64>> = cache.get_many(&rest).unwrap();
    assert_eq!(all, vec![Some(1); rest.len()]);
    Server::signal(pid, "CONT");
}

#[test]
fn pending_deletes_reach_the_node_that_missed_them() {
    let cluster = Cluster::start();
    let (cache, direct) = (lenient(&cluster), strict(&cluster));
    let keys = keys(12);
    let (lost, rest) = split(&cluster, 0, &keys);
    let write = || {
        direct
            .set_many(keys.iter().map(|key| (key, 1)), Duration::from_secs(3600))
            .unwrap();
    };
    let recovers = |deletes: &dyn Fn()| {
        // A node may still receive earlier deletes.
        eventually("the first answer", || {
            write();
            cache.get_many::<i64, _>(&keys).unwrap() == vec![Some(1); keys.len()]
        });
        let pid = cluster.servers[0].info("process_id");
        Server::signal(pid, "STOP");
        deletes();
        Server::signal(pid, "CONT");
        let mut seen = Vec::new();
        eventually("delivery", || {
            seen.extend(cache.get_many::<i64, _>(&lost).unwrap());
            direct.get_many::<i64, _>(&lost).unwrap() == vec![None; lost.len()]
        });
        assert_eq!(
            seen.into_iter().flatten().next(),
            None,
            "a deleted value came back"
        );
    };
    recovers(&|| assert_eq!(cache.delete_many(&keys).unwrap(), rest.len()));
    recovers(&|| {
        cache.clear().unwrap();
        // The other nodes got the delete, so it is not repeated.
        direct.set(&rest[0], &2).unwrap();
    });
    assert_eq!(direct.get(&rest[0]).unwrap(), Some(2));
}

#[test]
fn closed_idle_connections_cause_no_error() {
    let cluster = Cluster::lend();
    let (cache, keys) = (strict(&cluster), keys(30));
    let close_all = || {
        for server in &cluster.servers {
            let _: u64 = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
    };
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Duration::from_secs(3600))
        .unwrap();
    close_all();
    let all: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
    assert_eq!(all, vec![Some(1); 30]);
    close_all();
    assert_eq!(cache.clear().unwrap(), 30);
}

#[test]
fn replica_takes_over() {
    let cluster = Cluster::with_replica();
    let cache = lenient(&cluster);
    let (held, _) = split(&cluster, 0, &keys(12));
    for key in &held {
        cache.set(key, "old").unwrap();
    }
    let _: u64 = cluster.servers[0].ask(&["WAIT", "1", "10000"]);
    let pid = cluster.servers[0].info("process_id");
    Server::signal(pid, "KILL");
    cache.delete(&held[0]).unwrap();
    let mut round = 0_i64;
    eventually("the failover", || {
        // There is no other writer: a read returns the last value written, or misses.
        assert_eq!(cache.get::<String>(&held[0]).unwrap(), None);
        if let Some(old) = cache.get::<String>(&held[1]).unwrap() {
            assert_eq!(old, "old");
        }
        round += 1;
        cache.set(&held[2], &round).unwrap();
        cache.get::<i64>(&held[2]).unwrap_or(None) == Some(round)
    });
    assert_eq!(cache.get(&held[1]).unwrap(), Some("old".to_owned()));
    let gone: u64 = cluster.servers[3].ask(&["EXISTS", &held[0]]);
    assert_eq!(gone, 0);
}

#[test]
fn cluster_without_an_answering_node_is_a_miss() {
    let url = "redis+cluster://127.0.0.1:1,127.0.0.1:2";
    let cache = onetrip::Cache::builder(url).build().unwrap().blocking();
    assert_eq!(cache.get::<i64>("a").unwrap(), None);
    let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
    let error = cache
        .build()
        .unwrap()
        .blocking()
        .get::<i64>("a")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[test]
fn server_without_cluster_support_is_named() {
    let server = Server::start();
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());
    let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
    let error = cache
        .build()
        .unwrap()
        .blocking()
        .get::<i64>("a")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("cluster support disabled"),
        "{error}"
    );
}

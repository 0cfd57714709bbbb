//! Law 6: when the store is back it is used again by itself, and has heard of every delete.

use std::time::Duration;

use crate::memcached::Memcached;
use crate::proxy::Fault;
use crate::stand::{Stand, TRIP_TIMEOUT, eventually, memcached, redis};

on_every_server!(
    it_works_again_after_every_fault,
    a_connection_that_the_server_closed_is_not_noticed,
    a_delay_is_only_a_delay,
    a_delete_that_was_not_delivered_is_kept,
    a_delete_that_timed_out_is_kept,
    what_was_deleted_is_absent_until_it_is_delivered,
);

const ENDINGS: [Fault; 5] = [
    Fault::Refuse,
    Fault::Hang,
    Fault::Cut(0),
    Fault::Reset(3),
    Fault::Garbage,
];

fn it_works_again_after_every_fault(stand: &Stand) {
    let cache = stand.cache();
    for fault in ENDINGS {
        cache.set("key", &5).unwrap();
        eventually("the first value", || {
            cache.set("key", &5).unwrap();
            cache.get("key").unwrap() == Some(5)
        });
        stand.fail(fault);
        let seen: Option<u8> = cache.get("key").unwrap();
        assert_eq!(seen, None, "{fault:?}");
        stand.fail(Fault::None);
        eventually("recovery", || cache.get("key").unwrap() == Some(5));
    }
}

fn a_connection_that_the_server_closed_is_not_noticed(stand: &Stand) {
    let cache = stand.cache();
    cache.set("key", &5).unwrap();
    for _ in 0..20 {
        stand.proxy.close_all();
        assert_eq!(cache.get("key").unwrap(), Some(5));
    }
    assert_eq!(cache.asynchronous().stats().errors, 0);
}

fn a_delay_is_only_a_delay(stand: &Stand) {
    let cache = stand.cache();
    cache.set("key", &5).unwrap();
    stand.fail(Fault::Delay(Duration::from_millis(20)));
    assert_eq!(cache.get("key").unwrap(), Some(5));
}

fn undelivered(stand: &Stand, fault: Fault) {
    let (cache, direct) = (stand.cache(), stand.direct());
    cache.set("old", "stale").unwrap();
    cache.set("other", "fresh").unwrap();
    stand.fail(fault);
    assert!(!cache.delete("old").unwrap(), "nothing is known of it");
    assert_eq!(direct.get("old").unwrap(), Some("stale".to_owned()));
    stand.fail(Fault::None);
    // Any trip delivers it: this one reads something else.
    eventually("recovery", || {
        cache.get("other").unwrap() == Some("fresh".to_owned())
    });
    assert_eq!(direct.get::<String>("old").unwrap(), None);
}

fn a_delete_that_was_not_delivered_is_kept(stand: &Stand) {
    undelivered(stand, Fault::Refuse);
}

fn a_delete_that_timed_out_is_kept(stand: &Stand) {
    undelivered(stand, Fault::Hang);
}

fn what_was_deleted_is_absent_until_it_is_delivered(stand: &Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    cache.set("old", "stale").unwrap();
    stand.fail(Fault::Refuse);
    cache.delete("old").unwrap();
    stand.fail(Fault::None);
    let mut seen = Vec::new();
    eventually("delivery", || {
        seen.push(cache.get::<String>("old").unwrap());
        direct.get::<String>("old").unwrap().is_none()
    });
    assert_eq!(seen.into_iter().flatten().next(), None);
}

#[test]
fn a_redis_that_was_restarted_is_empty_and_works() {
    restarted(redis());
}

#[test]
fn a_memcached_that_was_restarted_is_empty_and_works() {
    restarted(memcached());
}

fn restarted(mut stand: Stand) {
    let cache = stand.patient();
    cache.set("key", &5).unwrap();
    stand.restart();
    assert_eq!(cache.get::<u8>("key").unwrap(), None);
    cache.set("key", &6).unwrap();
    assert_eq!(cache.get("key").unwrap(), Some(6));
}

#[test]
fn a_delete_is_owed_to_the_one_of_two_servers_that_missed_it() {
    let (stand, other) = (memcached(), Memcached::start(&[]));
    let ports = (stand.proxy.port(), other.port());
    let url = format!("memcached://127.0.0.1:{},127.0.0.1:{}", ports.0, ports.1);
    let cache = onetrip::Cache::builder(url)
        .trip_timeout(TRIP_TIMEOUT)
        .connect_timeout(TRIP_TIMEOUT);
    let cache = cache.build().unwrap().blocking();
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    let never = onetrip::Timeout::Never;
    cache
        .set_many(keys.iter().map(|key| (key, 1)), never)
        .unwrap();
    let behind = |key: &&String| stand.memcached().life(key).is_some();
    let (missed, heard): (Vec<_>, Vec<_>) = keys.iter().partition(behind);
    assert!(
        missed.len() > 5 && heard.len() > 5,
        "{} are behind",
        missed.len()
    );

    stand.fail(Fault::Refuse);
    assert_eq!(cache.delete_many(&keys).unwrap(), heard.len());
    assert!(heard.iter().all(|key| other.life(key).is_none()));
    assert!(missed.iter().all(behind), "nobody told the server");

    stand.fail(Fault::None);
    eventually("delivery", || {
        let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        assert!(
            values.iter().all(Option::is_none),
            "what was deleted is absent"
        );
        !missed.iter().any(behind)
    });
}

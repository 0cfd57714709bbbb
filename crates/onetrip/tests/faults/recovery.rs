//! Law 6: when the store is back it is used again by itself, and has heard of every delete.

use std::time::Duration;

use onetrip::Ttl;

use crate::log;
use crate::proxy::Fault;
use crate::stand::{Stand, memcached, redis};

on_every_server!(
    the_first_request_works_after_every_fault,
    a_connection_that_the_server_closed_is_not_noticed,
    a_delay_is_only_a_delay,
    a_delete_that_was_not_delivered_is_kept,
    a_delete_that_was_given_up_is_kept,
    what_was_deleted_is_absent_until_it_is_delivered,
    a_server_that_was_restarted_is_empty_and_works,
);

const ENDINGS: [Fault; 5] = [
    Fault::Refuse,
    Fault::Hang,
    Fault::Cut(0),
    Fault::Reset(3),
    Fault::Garbage,
];

fn the_first_request_works_after_every_fault(stand: Stand) {
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    for fault in ENDINGS {
        stand.fail(fault);
        // Until the breaker is open.
        for _ in 0..5 {
            let seen: Option<u8> = cache.get(&key).unwrap();
            assert_eq!(seen, None, "{fault:?}");
        }
        stand.recover();
        assert_eq!(cache.get(&key).unwrap(), Some(5), "after {fault:?}");
    }
}

fn a_connection_that_the_server_closed_is_not_noticed(stand: Stand) {
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    for _ in 0..20 {
        stand.proxy.close_all();
        assert_eq!(cache.get(&key).unwrap(), Some(5));
    }
    assert_eq!(cache.asynchronous().stats().errors, 0);
}

fn a_delay_is_only_a_delay(stand: Stand) {
    let (cache, key) = (stand.patient(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    stand.fail(Fault::Delay(Duration::from_millis(20)));
    assert_eq!(cache.get(&key).unwrap(), Some(5));
}

fn a_delete_that_was_not_delivered_is_kept(stand: Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    let [old, other] = ["old", "other"].map(|name| stand.key(name));
    for fault in [Fault::Refuse, Fault::Hang, Fault::Garbage] {
        direct.set(&old, "stale").unwrap();
        direct.set(&other, "fresh").unwrap();
        assert_eq!(cache.get(&old).unwrap(), Some("stale".to_owned()));
        stand.fail(fault);
        assert!(!cache.delete(&old).unwrap(), "nothing is known of it");
        if fault != Fault::Garbage {
            assert_eq!(direct.get(&old).unwrap(), Some("stale".to_owned()));
        }
        stand.recover();
        direct.set(&old, "stale").unwrap();
        // Any trip delivers it: this one reads something else.
        assert_eq!(cache.get(&other).unwrap(), Some("fresh".to_owned()));
        assert_eq!(direct.get::<String>(&old).unwrap(), None, "{fault:?}");
        // And it is delivered once.
        direct.set(&old, "new").unwrap();
        assert_eq!(cache.get(&old).unwrap(), Some("new".to_owned()));
    }
}

/// A task that is dropped in the middle of its delete.
fn a_delete_that_was_given_up_is_kept(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [old, other] = ["old", "other"].map(|name| stand.key(name));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let shared = cache.asynchronous().clone();
    runtime.block_on(shared.set(&old, "stale")).unwrap();
    direct.set(&other, "fresh").unwrap();
    stand.fail(Fault::Hang);
    let before = stand.proxy.requests();
    let task = runtime.spawn({
        let (cache, old) = (shared.clone(), old.clone());
        async move { cache.delete(old).await }
    });
    crate::eventually("the delete is sent", || stand.proxy.requests() > before);
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    // The server never heard of it.
    stand.proxy.close_all();
    assert_eq!(direct.get(&old).unwrap(), Some("stale".to_owned()));
    assert_eq!(cache.get(&other).unwrap(), Some("fresh".to_owned()));
    assert_eq!(direct.get::<String>(&old).unwrap(), None);
}

fn what_was_deleted_is_absent_until_it_is_delivered(stand: Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    let old = stand.key("old");
    cache.set(&old, "stale").unwrap();
    stand.fail(Fault::Refuse);
    cache.delete(&old).unwrap();
    for _ in 0..5 {
        assert_eq!(cache.get::<String>(&old).unwrap(), None);
    }
    stand.recover();
    assert_eq!(cache.get::<String>(&old).unwrap(), None);
    assert_eq!(direct.get::<String>(&old).unwrap(), None, "delivered");
}

fn a_server_that_was_restarted_is_empty_and_works(mut stand: Stand) {
    let (cache, key) = (stand.patient(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    stand.restart();
    assert_eq!(cache.get::<u8>(&key).unwrap(), None);
    cache.set(&key, &6).unwrap();
    assert_eq!(cache.get(&key).unwrap(), Some(6));
}

/// The most deletes that are owed.
const MOST: usize = 10_000;

#[test]
fn too_many_deletes_are_lost_and_that_is_said() {
    log::keep();
    for stand in [redis(), memcached()] {
        let (cache, direct) = (stand.cache(), stand.direct());
        let keys: Vec<String> = (0..MOST + 20)
            .map(|number| format!("key:{number}"))
            .collect();
        let values = || keys.iter().map(|key| (key, 1));
        direct.set_many(values(), Ttl::Never).unwrap();
        assert_eq!(cache.get(&keys[0]).unwrap(), Some(1));
        let port = stand.proxy.port().to_string();
        let said = || log::lines(&port, "those that follow are lost").len();
        stand.fail(Fault::Refuse);
        cache.delete_many(&keys[..MOST]).unwrap();
        // Again and again is owed once.
        cache.delete_many(&keys[..MOST]).unwrap();
        assert_eq!(said(), 0);
        for key in &keys[MOST..] {
            cache.delete(key).unwrap();
        }
        assert_eq!(said(), 1, "loudly, and once");
        stand.recover();
        // As patient as such a trip takes on a busy machine.
        crate::eventually("delivery", || {
            stand.recover();
            cache.get::<i64>("other").unwrap();
            direct.get::<i64>(&keys[0]).unwrap().is_none()
        });
        let left: Vec<Option<i64>> = direct.get_many(&keys).unwrap();
        assert_eq!(left.iter().flatten().count(), 20, "the lost ones");
        assert_eq!(left[..MOST], vec![None; MOST]);
    }
}

#[test]
fn a_delete_is_owed_to_the_one_of_two_servers_that_missed_it() {
    let stand = crate::stand::memcached_two();
    let cache = stand.cache();
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Ttl::Never)
        .unwrap();
    let direct = stand.direct();
    let behind = |key: &&String| direct.get::<i64>(key).unwrap().is_some();
    let (missed, heard): (Vec<_>, Vec<_>) = keys.iter().partition(behind);
    assert!(
        missed.len() > 5 && heard.len() > 5,
        "{} are behind",
        missed.len()
    );
    stand.fail(Fault::Refuse);
    assert_eq!(cache.delete_many(&keys).unwrap(), heard.len());
    assert!(missed.iter().all(behind), "nobody told the server");
    stand.recover();
    let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
    assert_eq!(values, [None; 40], "what was deleted is absent");
    assert!(!missed.iter().any(behind));
}

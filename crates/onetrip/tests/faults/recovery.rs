//! Law 6: a recovered store is used again without help, and has received every delete.

use std::time::Duration;

use onetrip::Ttl;

use crate::log;
use crate::proxy::Fault;
use crate::stand::{Stand, memcached, redis};

on_every_server!(
    first_request_works_after_every_fault,
    closed_idle_connection_causes_no_error,
    delay_causes_no_error,
    undelivered_delete_is_pending,
    cancelled_delete_is_pending,
    key_of_a_pending_delete_is_absent,
    restarted_server_is_empty_and_works,
);

const ENDINGS: [Fault; 5] = [
    Fault::Refuse,
    Fault::Hang,
    Fault::Cut(0),
    Fault::Reset(3),
    Fault::Garbage,
];

fn first_request_works_after_every_fault(stand: Stand) {
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    for fault in ENDINGS {
        stand.fail(fault);
        // Until the breaker opens.
        for _ in 0..5 {
            let seen: Option<u8> = cache.get(&key).unwrap();
            assert_eq!(seen, None, "{fault:?}");
        }
        stand.recover();
        assert_eq!(cache.get(&key).unwrap(), Some(5), "after {fault:?}");
    }
}

fn closed_idle_connection_causes_no_error(stand: Stand) {
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    for _ in 0..20 {
        stand.proxy.close_all();
        assert_eq!(cache.get(&key).unwrap(), Some(5));
    }
    assert_eq!(cache.asynchronous().stats().errors, 0);
}

fn delay_causes_no_error(stand: Stand) {
    let (cache, key) = (stand.patient(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    stand.fail(Fault::Delay(Duration::from_millis(20)));
    assert_eq!(cache.get(&key).unwrap(), Some(5));
}

fn undelivered_delete_is_pending(stand: Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    let [old, other] = ["old", "other"].map(|name| stand.key(name));
    for fault in [Fault::Refuse, Fault::Hang, Fault::Garbage] {
        direct.set(&old, "stale").unwrap();
        direct.set(&other, "fresh").unwrap();
        assert_eq!(cache.get(&old).unwrap(), Some("stale".to_owned()));
        stand.fail(fault);
        assert!(!cache.delete(&old).unwrap(), "the result is unknown");
        if fault != Fault::Garbage {
            assert_eq!(direct.get(&old).unwrap(), Some("stale".to_owned()));
        }
        stand.recover();
        direct.set(&old, "stale").unwrap();
        // Any trip delivers it: this one reads another key.
        assert_eq!(cache.get(&other).unwrap(), Some("fresh".to_owned()));
        assert_eq!(direct.get::<String>(&old).unwrap(), None, "{fault:?}");
        // The delete is delivered only once.
        direct.set(&old, "new").unwrap();
        assert_eq!(cache.get(&old).unwrap(), Some("new".to_owned()));
    }
}

/// Drops a task in the middle of its delete.
fn cancelled_delete_is_pending(stand: Stand) {
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
    // The server never received it.
    stand.proxy.close_all();
    assert_eq!(direct.get(&old).unwrap(), Some("stale".to_owned()));
    assert_eq!(cache.get(&other).unwrap(), Some("fresh".to_owned()));
    assert_eq!(direct.get::<String>(&old).unwrap(), None);
}

fn key_of_a_pending_delete_is_absent(stand: Stand) {
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

fn restarted_server_is_empty_and_works(mut stand: Stand) {
    let (cache, key) = (stand.patient(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    stand.restart();
    assert_eq!(cache.get::<u8>(&key).unwrap(), None);
    cache.set(&key, &6).unwrap();
    assert_eq!(cache.get(&key).unwrap(), Some(6));
}

/// The most pending deletes.
const MOST: usize = 10_000;

#[test]
fn too_many_pending_deletes_are_dropped_and_logged() {
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
        let logged = || log::lines(&port, "further ones are lost").len();
        stand.fail(Fault::Refuse);
        cache.delete_many(&keys[..MOST]).unwrap();
        // Repeated deletes of a key count once.
        cache.delete_many(&keys[..MOST]).unwrap();
        assert_eq!(logged(), 0);
        for key in &keys[MOST..] {
            cache.delete(key).unwrap();
        }
        assert_eq!(logged(), 1, "logged once, as an error");
        stand.recover();
        // On a busy machine such a trip takes long.
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
fn delete_is_pending_for_the_server_that_missed_it() {
    let stand = crate::stand::memcached_two();
    let cache = stand.cache();
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Ttl::Never)
        .unwrap();
    let direct = stand.direct();
    let behind = |key: &&String| direct.get::<i64>(key).unwrap().is_some();
    let (missed, received): (Vec<_>, Vec<_>) = keys.iter().partition(behind);
    assert!(
        missed.len() > 5 && received.len() > 5,
        "{} are behind",
        missed.len()
    );
    stand.fail(Fault::Refuse);
    assert_eq!(cache.delete_many(&keys).unwrap(), received.len());
    assert!(missed.iter().all(behind), "the server still holds it");
    stand.recover();
    let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
    assert_eq!(values, [None; 40], "deleted keys are absent");
    assert!(!missed.iter().any(behind));
}

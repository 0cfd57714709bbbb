//! Law 6: a page does not wait for a store that fails, but once.

use onetrip::{Error, ErrorKind};

use crate::log;
use crate::proxy::Fault;
use crate::stand::Stand;

on_every_server!(
    a_page_of_fifty_reads_waits_for_one_timeout,
    a_server_that_hangs_from_the_start_costs_one_timeout,
    a_port_that_refuses_is_asked_a_few_times,
    while_it_is_open_one_trip_at_a_time_tries,
    the_other_servers_are_asked_meanwhile,
    every_change_is_logged_once,
);

/// Reads fifty keys, one after the other. The reads that failed.
fn page(cache: &onetrip::blocking::Cache, keys: &[String]) -> Vec<Error> {
    let reads = keys.iter().map(|key| cache.get::<String>(key));
    reads.filter_map(Result::err).collect()
}

/// Those that a server was waited for; the others were answered at once.
fn waited(errors: &[Error]) -> Vec<&Error> {
    let is_told = |error: &&Error| !error.to_string().contains("is not asked");
    errors.iter().filter(is_told).collect()
}

fn a_page_of_fifty_reads_waits_for_one_timeout(stand: Stand) {
    let (cache, keys) = (stand.raising(), stand.keys(50));
    cache.set(&keys[0], "connected").unwrap();
    stand.fail(Fault::Hang);
    let before = stand.proxy.requests();
    let errors = page(&cache, &keys);
    assert_eq!(errors.len(), 50);
    assert_eq!(waited(&errors).len(), 1, "one timeout was waited for");
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::Timeout)
    );
    assert_eq!(stand.proxy.requests() - before, 1, "one trip was tried");

    stand.recover();
    cache.set(&keys[0], "connected").unwrap();
    stand.fail(Fault::Hang);
    let lenient = stand.cache();
    assert_eq!(page(&lenient, &keys).len(), 0, "they are misses");
    assert_eq!(lenient.asynchronous().stats().errors, 50);
}

fn a_server_that_hangs_from_the_start_costs_one_timeout(stand: Stand) {
    let keys = stand.keys(50);
    stand.fail(Fault::Hang);
    let errors = page(&stand.raising(), &keys);
    assert_eq!(errors.len(), 50);
    assert_eq!(waited(&errors).len(), 1, "one timeout was waited for");
}

fn a_port_that_refuses_is_asked_a_few_times(stand: Stand) {
    let (cache, keys) = (stand.raising(), stand.keys(50));
    cache.set(&keys[0], "connected").unwrap();
    stand.fail(Fault::Refuse);
    let errors = page(&cache, &keys);
    assert_eq!(errors.len(), 50);
    assert_eq!(waited(&errors).len(), 3);
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::Unavailable)
    );
}

fn while_it_is_open_one_trip_at_a_time_tries(stand: Stand) {
    let (cache, key) = (stand.raising(), stand.key("key"));
    stand.fail(Fault::Hang);
    page(&cache, std::slice::from_ref(&key));
    for _ in 0..2 {
        stand.recover();
        stand.fail(Fault::Hang);
        let before = stand.proxy.requests();
        let errors = std::thread::scope(|threads| {
            let read = || cache.get::<String>(&key).unwrap_err();
            let readers: Vec<_> = (0..8).map(|_| threads.spawn(read)).collect();
            let readers = readers.into_iter();
            readers
                .map(|reader| reader.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(waited(&errors).len(), 1, "{errors:?}");
        assert!(stand.proxy.requests() - before <= 1);
    }
}

fn the_other_servers_are_asked_meanwhile(stand: Stand) {
    let Some(elsewhere) = stand.key_elsewhere() else {
        return;
    };
    let (cache, key) = (stand.raising(), stand.key("key"));
    cache.set(elsewhere, &5).unwrap();
    stand.fail(Fault::Hang);
    let together = stand.cache().get_many(&[&key, elsewhere]).unwrap();
    assert_eq!(together, [None, Some(5)]);
    page(&cache, &[key]);
    assert_eq!(cache.get(elsewhere).unwrap(), Some(5));
}

fn every_change_is_logged_once(stand: Stand) {
    log::keep();
    let (cache, keys) = (stand.cache(), stand.keys(50));
    let marker = stand.marker();
    for (fault, why) in [
        (Fault::Hang, "did not answer in time"),
        (Fault::Refuse, "cannot be reached"),
    ] {
        cache.set(&keys[0], &1).unwrap();
        let before = log::lines(&marker, "").len();
        stand.fail(fault);
        page(&cache, &keys);
        // Tried again, and once more for nothing.
        stand.recover();
        stand.fail(fault);
        page(&cache, &keys);
        stand.recover();
        assert_eq!(cache.get(&keys[0]).unwrap(), Some(1));
        page(&cache, &keys[1..]);
        let lines: Vec<String> = log::lines(&marker, "").split_off(before);
        let changes: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("is not asked for") || line.contains("answers again"))
            .collect();
        let [opened, closed] = changes[..] else {
            panic!("{lines:?}");
        };
        assert!(opened.contains(why), "{opened}");
        assert!(
            opened.contains("and then by one trip at a time"),
            "{opened}"
        );
        assert!(closed.contains("answers again"), "{closed}");
        // Failures before it opened are told, those behind it are not.
        let told = lines.len() - 2;
        assert!(told < 3, "{lines:?}");
    }
}

/// Connections that lead nowhere any more may all have lost their way at once: one timeout tells of
/// all that were idle then.
#[test]
fn after_a_silence_no_connection_from_before_is_used() {
    let stand = crate::stand::redis();
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    // So many at once, each with a connection.
    let together = || {
        stand.fail(Fault::Delay(std::time::Duration::from_millis(200)));
        let barrier = std::sync::Barrier::new(6);
        std::thread::scope(|threads| {
            for _ in 0..6 {
                threads.spawn(|| {
                    barrier.wait();
                    assert_eq!(cache.get(&key).unwrap(), Some(5));
                });
            }
        });
    };
    together();
    stand.fail(Fault::Hang);
    page(&cache, std::slice::from_ref(&key));
    stand.recover();
    assert_eq!(cache.get(&key).unwrap(), Some(5));
    let before = stand.proxy.connections();
    together();
    // All but the one that has just been used.
    assert!(stand.proxy.connections() > before + 1);
}

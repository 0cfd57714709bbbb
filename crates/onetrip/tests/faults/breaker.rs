//! Law 6: a page waits for a failing store at most once.

use onetrip::{Error, ErrorKind};

use crate::log;
use crate::proxy::Fault;
use crate::stand::Stand;

on_every_server!(
    page_of_fifty_reads_waits_for_one_timeout,
    server_hung_from_the_start_costs_one_timeout,
    refusing_port_is_tried_a_few_times,
    open_breaker_lets_one_trip_at_a_time_try,
    open_breaker_spares_the_other_servers,
    each_breaker_change_is_logged_once,
);

/// Reads fifty keys, one after the other. Returns the errors.
fn page(cache: &onetrip::blocking::Cache, keys: &[String]) -> Vec<Error> {
    let reads = keys.iter().map(|key| cache.get::<String>(key));
    reads.filter_map(Result::err).collect()
}

/// Returns the errors of reads that waited for a server; the others failed at once.
fn waited(errors: &[Error]) -> Vec<&Error> {
    let has_waited = |error: &&Error| !error.to_string().contains("is not asked");
    errors.iter().filter(has_waited).collect()
}

fn page_of_fifty_reads_waits_for_one_timeout(stand: Stand) {
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

fn server_hung_from_the_start_costs_one_timeout(stand: Stand) {
    let keys = stand.keys(50);
    stand.fail(Fault::Hang);
    let errors = page(&stand.raising(), &keys);
    assert_eq!(errors.len(), 50);
    assert_eq!(waited(&errors).len(), 1, "one timeout was waited for");
}

fn refusing_port_is_tried_a_few_times(stand: Stand) {
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

fn open_breaker_lets_one_trip_at_a_time_try(stand: Stand) {
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

fn open_breaker_spares_the_other_servers(stand: Stand) {
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

fn each_breaker_change_is_logged_once(stand: Stand) {
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
        // The next try fails.
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
        // Failures are logged before it opens, not after.
        let failures = lines.len() - 2;
        assert!(failures < 3, "{lines:?}");
    }
}

/// Idle connections may all be dead at once, so one timeout closes all that were idle then.
#[test]
fn timeout_closes_all_older_idle_connections() {
    let stand = crate::stand::redis();
    let (cache, key) = (stand.cache(), stand.key("key"));
    cache.set(&key, &5).unwrap();
    // Concurrent reads, each with its own connection.
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
    // All but the one that was just used.
    assert!(stand.proxy.connections() > before + 1);
}

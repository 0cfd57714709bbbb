//! Law 6: a page does not wait for a store that fails, but once.

use onetrip::{ErrorKind, OnError};

use crate::log;
use crate::proxy::Fault;
use crate::stand::{Stand, eventually};

on_every_server!(
    a_page_of_fifty_reads_waits_for_one_timeout,
    a_server_that_hangs_from_the_start_costs_one_timeout,
    a_port_that_refuses_is_asked_a_few_times,
    the_error_says_that_the_store_is_not_asked,
    every_change_is_logged_once,
);

fn keys() -> Vec<String> {
    (0..50).map(|number| format!("key:{number}")).collect()
}

/// Reads fifty keys, one after the other.
fn page(cache: &onetrip::blocking::Cache) {
    for key in keys() {
        assert_eq!(cache.get::<String>(key).unwrap(), None);
    }
}

fn a_page_of_fifty_reads_waits_for_one_timeout(stand: &Stand) {
    let cache = stand.cache();
    cache.set("warm", "connected").unwrap();
    stand.fail(Fault::Hang);
    let before = stand.proxy.requests();
    page(&cache);
    assert_eq!(stand.proxy.requests() - before, 1, "one trip was tried");
    assert_eq!(cache.asynchronous().stats().errors, 50);
}

fn a_server_that_hangs_from_the_start_costs_one_timeout(stand: &Stand) {
    stand.fail(Fault::Hang);
    let before = stand.proxy.requests();
    page(&stand.cache());
    assert!(stand.proxy.requests() - before <= 1, "one trip was tried");
}

fn a_port_that_refuses_is_asked_a_few_times(stand: &Stand) {
    log::keep();
    stand.fail(Fault::Refuse);
    let cache = stand.cache();
    page(&cache);
    let label = cache.asynchronous().label().to_owned();
    assert_eq!(log::lines(&label, "is not asked for").len(), 1);
}

fn the_error_says_that_the_store_is_not_asked(stand: &Stand) {
    let cache = stand
        .builder()
        .on_error(OnError::Raise)
        .build()
        .unwrap()
        .blocking();
    stand.fail(Fault::Hang);
    assert_eq!(
        cache.get::<u8>("key").unwrap_err().kind(),
        ErrorKind::Timeout
    );
    let error = cache.get::<u8>("key").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("is not asked"), "{error}");
}

fn every_change_is_logged_once(stand: &Stand) {
    log::keep();
    let cache = stand.cache();
    let label = cache.asynchronous().label().to_owned();
    cache.set("key", &1).unwrap();
    stand.fail(Fault::Hang);
    page(&cache);
    page(&cache);
    let opened = log::lines(&label, "is not asked for");
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert!(opened[0].contains("did not answer in time"), "{opened:?}");
    stand.fail(Fault::None);
    eventually("recovery", || cache.get("key").unwrap() == Some(1));
    page(&cache);
    assert_eq!(log::lines(&label, "answers again").len(), 1);
}

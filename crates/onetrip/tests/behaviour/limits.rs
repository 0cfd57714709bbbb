//! Commands that a server refuses: lacking permission, as a replica, or when full.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{ErrorKind, OnError};

use crate::support::{Blob, Server, eventually};

fn open(url: String, on_error: OnError) -> Cache {
    let cache = onetrip::Cache::builder(url).on_error(on_error);
    cache.build().unwrap().blocking()
}

#[test]
fn read_only_user_gets_a_clear_error() {
    let server = Server::start();
    let rules = [
        "ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get", "+mget",
    ];
    let _: () = server.ask(&rules);
    open(server.url(), OnError::Raise).set("a", &1).unwrap();
    let url = format!("redis://reader:secret@127.0.0.1:{}", server.port());
    let cache = open(url.clone(), OnError::Raise);
    assert_eq!(cache.get("a").unwrap(), Some(1));
    for refused in [cache.set("a", &2), cache.delete("a").map(drop)] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("permit"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let lenient = open(url, OnError::Miss);
    lenient.set("a", &2).unwrap();
    assert_eq!(lenient.get("a").unwrap(), Some(1));
    assert_eq!(lenient.asynchronous().stats().errors, 1);
}

#[test]
fn replica_reads_and_refuses_writes() {
    let primary = Server::start();
    open(primary.url(), OnError::Raise).set("a", &1).unwrap();
    let port = primary.port().to_string();
    let replica = Server::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    let cache = open(replica.url(), OnError::Raise);
    eventually("replication", || cache.get("a").ok() == Some(Some(1)));
    for refused in [
        cache.set("a", &2),
        cache.delete("a").map(drop),
        cache.incr("a", 1).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("replica"), "{error}");
    }
    let lenient = open(replica.url(), OnError::Miss);
    lenient.scope(|| lenient.set("a", &2)).unwrap();
    assert_eq!(lenient.get("a").unwrap(), Some(1));
    assert_eq!(lenient.asynchronous().stats().errors, 1);
}

/// A server that holds `a` and has no room for more.
fn full() -> Server {
    let server = Server::start();
    let cache = open(server.url(), OnError::Raise);
    cache.set("a", "old").unwrap();
    cache.set("n", &1).unwrap();
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "100kb"]);
    server
}

#[test]
fn full_server_is_an_error_and_keeps_no_outdated_entry() {
    let server = full();
    let cache = open(server.url(), OnError::Raise);
    assert_eq!(cache.get("a").unwrap(), Some("old".to_owned()));
    let error = cache.set("a", "new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    assert_eq!(cache.get::<String>("a").unwrap(), None);
    let error = cache.incr("n", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(cache.get("n").unwrap(), Some(1));
    let error = cache.add("b", &1, Duration::from_secs(60)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(cache.delete("n").unwrap(), "deletes make room");
}

#[test]
fn post_to_a_full_server_leaves_no_outdated_entry() {
    let server = full();
    let cache = open(server.url(), OnError::Miss);
    let page = || {
        cache.set("a", &Blob(vec![0; 1000]))?;
        cache.set("b", &Blob(vec![0; 1000]))
    };
    cache.scope(page).unwrap();
    assert_eq!(cache.get::<String>("a").unwrap(), None);
    assert_eq!(cache.asynchronous().stats().errors, 2);
    let exists: u64 = server.ask(&["EXISTS", "a"]);
    assert_eq!(exists, 0);
}

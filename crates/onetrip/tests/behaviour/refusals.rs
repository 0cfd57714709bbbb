//! Law 6 for a Redis that answers but refuses: a refused delete becomes a pending delete, and until
//! it succeeds its key is unknown.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, ErrorKind, OnError};

use crate::support::{Cluster, Server, eventually};

/// Longer than the pause after a refusal.
const LATER: Duration = Duration::from_secs(5);

/// A user with few permissions, through a cache whose clock the test advances.
struct Restricted<'a> {
    servers: &'a [Server],
    builder: Builder,
    clock: Clock,
}

impl<'a> Restricted<'a> {
    fn new(url: &str, servers: &'a [Server]) -> Self {
        let clock = Clock::manual();
        let url = url.replace("://", "://alice:secret@");
        let restricted = Self {
            servers,
            builder: onetrip::Cache::builder(url).clock(clock.clone()),
            clock,
        };
        restricted.rule(&["on", ">secret", "~*", "+@all"]);
        restricted
    }

    fn rule(&self, rules: &[&str]) {
        for server in self.servers {
            let _: () = server.ask(&[&["ACL", "SETUSER", "alice"], rules].concat());
        }
    }

    fn cache(&self) -> Cache {
        self.builder.clone().build().unwrap().blocking()
    }
}

fn direct(url: &str) -> Cache {
    let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
    cache.build().unwrap().blocking()
}

fn each(test: impl Fn(&str, &[Server])) {
    let server = [Server::start()];
    test(&server[0].url(), &server);
    let cluster = Cluster::lend();
    test(&cluster.url(), &cluster.servers);
}

#[test]
fn forbidden_delete_is_pending() {
    each(|url, servers| {
        let (alice, direct) = (Restricted::new(url, servers), direct(url));
        let cache = alice.cache();
        for key in ["old", "renewed", "other"] {
            direct.set(key, key).unwrap();
        }
        alice.rule(&["-unlink"]);
        assert!(!cache.delete("old").unwrap());
        assert_eq!(cache.delete_many(&["renewed"]).unwrap(), 0);
        let get = |key: &str| cache.get::<String>(key).unwrap();
        assert_eq!(get("old"), None, "its delete is pending");
        assert!(!cache.touch("old", LATER).unwrap());
        assert_eq!(get("other"), Some("other".into()), "nobody deleted it");
        cache.set("renewed", "again").unwrap();
        assert_eq!(
            get("renewed"),
            Some("again".into()),
            "it was written after the delete"
        );
        assert_eq!(direct.get("old").unwrap(), Some("old".to_owned()));
        // Tried again and refused again.
        alice.clock.advance(LATER);
        assert_eq!(get("other"), Some("other".into()));
        assert_eq!(get("old"), None);

        alice.rule(&["+unlink"]);
        alice.clock.advance(LATER);
        assert_eq!(get("old"), None);
        assert_eq!(direct.get::<String>("old").unwrap(), None, "delivered");
        assert_eq!(
            get("renewed"),
            Some("again".into()),
            "nothing is pending any more"
        );
        direct.set("old", "new").unwrap();
        assert_eq!(get("old"), Some("new".into()));
    });
}

#[test]
fn key_of_a_pending_delete_is_an_error_with_on_error_raise() {
    each(|url, servers| {
        let alice = Restricted::new(url, servers);
        direct(url).set("old", &1).unwrap();
        alice.rule(&["-unlink"]);
        let cache = alice.builder.clone().on_error(OnError::Raise);
        let cache = cache.build().unwrap().blocking();
        for error in [
            cache.delete("old").unwrap_err(),
            cache.get::<i64>("old").unwrap_err(),
            cache.incr("old", 1).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains("see its ACL"), "{error}");
        }
        cache.set("old", &5).unwrap();
        assert_eq!(cache.get("old").unwrap(), Some(5));
    });
}

#[test]
fn forbidden_clear_is_pending() {
    for missing in ["scan", "unlink"] {
        each(|url, servers| {
            let (alice, direct) = (Restricted::new(url, servers), direct(url));
            let cache = alice.cache();
            direct
                .set_many((0..20).map(|n| (n.to_string(), n)), LATER)
                .unwrap();
            alice.rule(&[&format!("-{missing}")]);
            for _ in 0..5 {
                assert_eq!(cache.clear().unwrap(), 0);
            }
            let page = || {
                let keys: Vec<String> = (0..20).map(|n: i32| n.to_string()).collect();
                cache.get_many::<i32, _>(&keys).unwrap()
            };
            assert_eq!(page(), [None; 20]);
            alice.clock.advance(LATER);
            assert_eq!(page(), [None; 20]);
            assert_eq!(direct.get("1").unwrap(), Some(1));

            alice.rule(&[&format!("+{missing}")]);
            // The nodes of a cluster get the clear one after the other.
            for _ in servers {
                alice.clock.advance(LATER);
                assert_eq!(page(), [None; 20]);
            }
            assert_eq!(direct.get::<i32>("1").unwrap(), None, "delivered");
            cache.set("1", &5).unwrap();
            assert_eq!(page()[1], Some(5), "nothing is pending any more");
        });
    }
}

#[test]
fn delete_refused_by_a_replica_is_delivered_after_promotion() {
    let primary = Server::start();
    let port = primary.port().to_string();
    let replica = Server::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    for key in ["old", "other"] {
        direct(&primary.url()).set(key, key).unwrap();
    }
    let clock = Clock::manual();
    let cache = onetrip::Cache::builder(replica.url()).clock(clock.clone());
    let cache = cache.build().unwrap().blocking();
    eventually("replication", || {
        cache.get::<String>("other").unwrap().is_some()
    });
    assert!(!cache.delete("old").unwrap());
    assert_eq!(cache.get::<String>("old").unwrap(), None);
    assert_eq!(replica.ask::<u64>(&["EXISTS", "old"]), 1);
    let _: () = replica.ask(&["REPLICAOF", "NO", "ONE"]);
    clock.advance(LATER);
    assert_eq!(cache.get("other").unwrap(), Some("other".to_owned()));
    assert_eq!(replica.ask::<u64>(&["EXISTS", "old"]), 0);
}

#[test]
fn full_server_accepts_deletes() {
    each(|url, servers| {
        let cache = direct(url);
        cache.set("old", "value").unwrap();
        for server in servers {
            let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        }
        let error = cache.set("new", &1).unwrap_err();
        assert!(error.to_string().contains("is full"), "{error}");
        assert_eq!(cache.get("old").unwrap(), Some("value".to_owned()));
        assert!(cache.delete("old").unwrap());
        assert_eq!(cache.get::<String>("old").unwrap(), None);
        for server in servers {
            let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        }
    });
}

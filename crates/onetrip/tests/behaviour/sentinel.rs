//! Redis Sentinel: the sentinels name the primary.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{ErrorKind, OnError};

use crate::support::{Server, Watched, eventually};

fn cache(watched: &Watched) -> Cache {
    let cache = onetrip::Cache::builder(watched.url());
    cache.build().unwrap().blocking()
}

/// Reads and writes during `failover`: a read returns only the last value written.
fn goes_on(watched: &Watched, failover: impl FnOnce()) {
    watched.wait_until_ready();
    let (cache, direct) = (cache(watched), &watched.replica);
    cache.set("kept", "kept").unwrap();
    cache.set("deleted", "stale").unwrap();
    let _: u64 = watched.primary.ask(&["WAIT", "1", "10000"]);
    failover();
    cache.delete("deleted").unwrap();
    let mut round = 0_i64;
    eventually("the failover", || {
        assert_eq!(cache.get::<String>("deleted").unwrap(), None);
        if let Some(kept) = cache.get::<String>("kept").unwrap() {
            assert_eq!(kept, "kept");
        }
        round += 1;
        cache.set("round", &round).unwrap();
        if let Some(seen) = cache.get::<i64>("round").unwrap() {
            assert!(seen <= round, "{seen} was not written yet");
        }
        // A sentinel closes the connections of a server that it promotes, including this one.
        let info: Result<String, _> = direct.try_ask(&["INFO", "replication"]);
        info.is_ok_and(|info| info.contains("role:master"))
            && cache.get::<i64>("round").unwrap() == Some(round)
    });
    assert_eq!(cache.get("kept").unwrap(), Some("kept".to_owned()));
    eventually("an answer of the new primary", || {
        let there = |name| direct.try_ask::<u64>(&["EXISTS", name]);
        match (there("deleted"), there("round")) {
            (Ok(deleted), Ok(round)) => {
                assert_eq!((deleted, round), (0, 1));
                true
            }
            _ => false,
        }
    });
}

#[test]
fn requested_failover_is_followed() {
    let watched = Watched::start();
    goes_on(&watched, || {
        let _: () = watched.sentinels[0].ask(&["SENTINEL", "FAILOVER", "notes"]);
    });
}

#[test]
fn dead_primary_is_replaced() {
    let watched = Watched::start();
    let pid = watched.primary.info("process_id");
    goes_on(&watched, || Server::signal(pid, "KILL"));
}

#[test]
fn demoted_primary_is_left_at_the_first_write() {
    let watched = Watched::with(60_000, "");
    watched.wait_until_ready();
    let cache = onetrip::Cache::builder(watched.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap().blocking();
    cache.set("a", &1).unwrap();
    // Without telling the sentinels, and with the connection left open.
    let port = watched.replica.port().to_string();
    let _: () = watched.replica.ask(&["REPLICAOF", "NO", "ONE"]);
    let _: () = watched.primary.ask(&["REPLICAOF", "127.0.0.1", &port]);
    let error = cache.set("a", &2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("says that it is none"),
        "{error}"
    );
    watched.name(&watched.replica);
    eventually("the new primary", || cache.set("a", &3).is_ok());
    assert_eq!(watched.replica.ask::<u64>(&["EXISTS", "a"]), 1);
    assert_eq!(cache.get("a").unwrap(), Some(3));
}

#[test]
fn first_connection_to_a_new_primary_moves_the_others() {
    let watched = Watched::with(60_000, "");
    let cache = onetrip::Cache::builder(watched.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    runtime.block_on(cache.set("a", &1)).unwrap();
    // As in a network partition: both servers consider themselves primary.
    let _: () = watched.replica.ask(&["REPLICAOF", "NO", "ONE"]);
    watched.name(&watched.replica);
    cache.blocking().set("a", &2).unwrap();
    assert_eq!(runtime.block_on(cache.get("a")).unwrap(), Some(2));
    let old: u64 = watched.primary.ask(&["EXISTS", "a"]);
    assert_eq!(old, 1, "the outdated value is still there");
}

#[test]
fn hung_or_dead_sentinel_is_skipped() {
    let watched = Watched::with(60_000, "");
    let pid = watched.sentinels[0].info("process_id");
    Server::signal(pid, "STOP");
    let pid_of_another = watched.sentinels[1].info("process_id");
    Server::signal(pid_of_another, "KILL");
    let cache = onetrip::Cache::builder(watched.url())
        .connect_timeout(Duration::from_secs(4))
        .on_error(OnError::Raise);
    let cache = cache.build().unwrap().blocking();
    cache.set("a", &1).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(1));
}

#[test]
fn unknown_service_is_named() {
    let url = Watched::shared().url().replace("/notes/", "/nots/");
    let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
    let error = cache
        .build()
        .unwrap()
        .blocking()
        .get::<i64>("a")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("is the service named right"),
        "{error}"
    );
}

#[test]
fn sentinels_and_servers_have_separate_passwords() {
    let watched = Watched::with(60_000, "requirepass watch");
    let rules = [
        "ACL", "SETUSER", "alice", "on", ">secret", "~*", "+@all", "-role",
    ];
    let _: () = watched.primary.ask(&rules);
    let url = watched.url().replace("//", "//alice:secret@");
    let with = |option: &str| {
        let cache = onetrip::Cache::builder(format!("{url}{option}")).on_error(OnError::Raise);
        cache.build().unwrap().blocking()
    };
    let cache = with("?sentinel_password=watch");
    cache.set("a", &1).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(1));
    for option in ["", "?sentinel_password=wrong"] {
        let error = with(option).get::<i64>("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

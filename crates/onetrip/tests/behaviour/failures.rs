//! Law 6: a failing store is a miss, or an error under `OnError::Raise`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::internals::Context;
use onetrip::trip::{Op, Trip};
use onetrip::{Builder, ErrorKind, OnError, Result, Ttl};

use crate::support::Server;

/// Runs every operation, some of them also in a page, and returns the results.
fn everything(cache: &Cache) -> Vec<(&'static str, Result<String>)> {
    fn shown<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let keys = ["a", "b"];
    let hour = Duration::from_secs(60 * 60);
    vec![
        ("None", shown(cache.get::<i64>("a"))),
        ("[None, None]", shown(cache.get_many::<i64, _>(&keys))),
        ("false", shown(cache.contains("a"))),
        ("()", shown(cache.set("a", &1))),
        ("()", shown(cache.set_for("a", &1, Duration::ZERO))),
        ("()", shown(cache.set_many([("a", 1), ("b", 2)], hour))),
        ("false", shown(cache.add("a", &1, Ttl::Default))),
        ("None", shown(cache.incr("a", 1))),
        ("false", shown(cache.touch("a", hour))),
        ("0", shown(cache.touch_many(&keys, hour))),
        ("false", shown(cache.delete("a"))),
        ("0", shown(cache.delete_many(&keys))),
        ("0", shown(cache.clear())),
        ("5", shown(cache.get_or_insert_with("a", hour, || 5))),
        ("6", shown(cache.preload(keys, || Ok(6)))),
        ("()", shown(cache.scope(|| cache.set("a", &1)))),
    ]
}

fn refusing() -> Builder {
    // The port of tcpmux: listening needs a privilege, and nobody uses it.
    onetrip::Cache::builder("redis://127.0.0.1:1/0")
}

#[test]
fn refused_connection_is_a_miss() {
    let cache = refusing().build().unwrap().blocking();
    for (expected, answer) in everything(&cache) {
        assert_eq!(answer.unwrap(), expected);
    }
    let stats = cache.asynchronous().stats();
    assert_eq!(stats.hits, 0);
    assert_eq!(stats.errors, 23, "one for each failed operation");
}

#[test]
fn refused_connection_is_an_error_with_on_error_raise() {
    let cache = refusing().on_error(OnError::Raise).build().unwrap();
    for (would, answer) in everything(&cache.blocking()) {
        let error = answer.expect_err(would);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.kind().is_store_failure());
        assert!(error.to_string().contains(cache.label()), "{error}");
        assert!(
            error.to_string().contains("is the server running"),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn failed_preload_makes_no_key_absent() {
    let server = Server::start();
    let cache = onetrip::Cache::open(server.url()).unwrap().blocking();
    cache.set("a", &1).unwrap();
    // The server refuses one trip and serves the next.
    let allow = |keys| -> () { server.ask(&["ACL", "SETUSER", "default", "resetkeys", keys]) };
    allow("~none");
    let page = || {
        allow("~*");
        cache.get::<i64>("a")
    };
    let answer = cache.preload(["a", "b"], page).unwrap();
    assert_eq!(cache.asynchronous().stats().errors, 2);
    assert_eq!(answer, Some(1), "unknown is not absent");
}

#[test]
fn user_and_password_are_sent_to_the_server() {
    let server = Server::start();
    let rules = ["ACL", "SETUSER", "alice", "on", ">p@ss/w:rd", "~*", "+@all"];
    let _: () = server.ask(&rules);
    let with = |login: &str, database: u8| {
        let url = format!("redis://{login}@127.0.0.1:{}/{database}", server.port());
        let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
        cache.build().unwrap().blocking()
    };
    let cache = with("alice:p%40ss%2Fw%3Ard", 2);
    cache.set("a", &1).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(1));
    let elsewhere = with("alice:p%40ss%2Fw%3Ard", 3);
    assert_eq!(elsewhere.get::<i64>("a").unwrap(), None, "another database");
    let error = with("alice:wrong", 2).get::<i64>("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

/// The server's error repeats the command, since it does not know it.
#[test]
fn password_is_not_in_errors() {
    let server = Server::start_with(&["--save", "", "--rename-command", "AUTH", ""]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let cache = onetrip::Cache::builder(url).on_error(OnError::Raise);
    let error = cache.build().unwrap().blocking().get::<i64>("a");
    let error = error.unwrap_err();
    assert!(error.to_string().contains("AUTH"), "{error}");
    let source = std::error::Error::source(&error).unwrap();
    for shown in [error.to_string(), source.to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// A full server that executes an increment and closes the connection. The next command finds the
/// connection closed; that must not repeat the increment.
#[test]
fn answered_command_is_not_repeated_when_the_next_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let added = Arc::new(AtomicU32::new(0));
    let adding = Arc::clone(&added);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (mut asked, mut closes) = ([0; 4096], false);
            while let Ok(length @ 1..) = client.read(&mut asked)
                && !closes
            {
                let asked = String::from_utf8_lossy(&asked[..length]);
                let mut answer = String::new();
                for word in asked.split("\r\n") {
                    answer += match word {
                        "SETINFO" => "+OK\r\n",
                        "GET" => "$-1\r\n",
                        "SET" => "-OOM command not allowed\r\n",
                        "UNLINK" => ":0\r\n",
                        "EVAL" => {
                            closes = true;
                            adding.fetch_add(1, Ordering::SeqCst);
                            "$1\r\n1\r\n"
                        }
                        _ => "",
                    };
                }
                let _ = client.write_all(answer.as_bytes());
                if closes {
                    let _ = client.shutdown(std::net::Shutdown::Both);
                }
            }
        }
    });
    let cache = onetrip::Cache::open(url).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let page = async {
            cache.set("n", &5).await.unwrap();
            let _ = cache.incr("n", 1).await;
            Ok::<_, onetrip::Error>(())
        };
        cache.preload(["x"], page).await.unwrap();
    });
    assert_eq!(added.load(Ordering::SeqCst), 1);
}

#[test]
fn restarted_server_is_used_again() {
    let server = Server::start();
    let cache = onetrip::Cache::builder(server.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap().blocking();
    cache.set("a", &1).unwrap();
    // All connections are closed, as by a restart. Idempotent commands are sent again.
    let _: u64 = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(cache.get("a").unwrap(), Some(1));
}

/// A connection is checked before use: nothing was sent, so nothing is repeated.
#[test]
fn increment_works_on_a_closed_idle_connection() {
    let server = Server::start();
    let cache = onetrip::Cache::builder(server.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap();
    let close = || {
        let _: u64 = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    };
    let blocking = cache.blocking();
    blocking.set("a", &1).unwrap();
    close();
    assert_eq!(blocking.incr("a", 1).unwrap(), Some(2));
    close();
    assert!(blocking.add("b", &1, Ttl::Default).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        assert_eq!(cache.incr("a", 1).await.unwrap(), Some(3));
        close();
        assert_eq!(cache.incr("a", 1).await.unwrap(), Some(4));
        close();
        assert!(!cache.add("b", &1, Ttl::Default).await.unwrap());
    });
}

#[test]
fn too_large_entry_is_refused_and_removes_the_old_one() {
    let server = Server::start();
    let cache = onetrip::Cache::builder(server.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap();
    cache.blocking().set("a", "old").unwrap();
    // Neither touched nor sent, so it takes only address space.
    let entry = bytes::Bytes::from(vec![0; (512 << 20) + 1]);
    let name = bytes::Bytes::from("a");
    let write = |op: Op| {
        let get = Op::Get { name: name.clone() };
        let trip = Trip::from_iter([op, get]);
        let sent = cache.send_blocking(&Context::default(), &trip);
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TooLarge);
        cache.blocking().get::<String>("a").unwrap()
    };
    let add = Op::Add {
        name: name.clone(),
        entry: entry.clone(),
        ttl: None,
    };
    assert_eq!(write(add), Some("old".to_owned()));
    let set = Op::Set {
        name: name.clone(),
        entry,
        ttl: None,
    };
    assert_eq!(write(set), None, "the old entry is outdated");
}

#[test]
fn blocking_call_in_a_task_fails_with_advice() {
    let server = Server::start();
    let remote = onetrip::Cache::open(server.url()).unwrap();
    let slow = onetrip::Cache::open("memory://?latency=1us").unwrap();
    let local = onetrip::Cache::open("memory://").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        for cache in [remote, slow] {
            let error = cache.blocking().set("a", &1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("await"), "{error}");
            assert_eq!(cache.stats().trips, 0);
        }
        local.blocking().set("a", &1).unwrap();
        assert_eq!(local.blocking().get("a").unwrap(), Some(1));
    });
}

#[test]
fn cache_works_after_its_connections_were_closed() {
    let server = Server::start();
    let cache = onetrip::Cache::builder(server.url()).on_error(OnError::Raise);
    let cache = cache.build().unwrap();
    for _ in 0..3 {
        cache.blocking().set("a", &1).unwrap();
        assert_eq!(cache.blocking().get("a").unwrap(), Some(1));
        cache.close_idle();
    }
}

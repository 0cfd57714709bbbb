//! A server that breaks off: no wrong answers, and no connection is reused out of step.

use std::time::Duration;

use onetrip::{ErrorKind, Ttl};

use crate::recording::Recording;
use crate::replayer::Replayer;
use crate::stage::{Stage, recording};

/// The get_bulk of `a`, and the answer that its entry is 1.
const ONE: &str = r"
    > \xba\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01a
    < \xba\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff\xffa1
";

#[test]
fn truncated_reply_is_an_error() {
    let whole = recording("many");
    let length: usize = whole.answers().map(<[u8]>::len).sum();
    for cut in 0..length {
        let replayer = Replayer::cut(whole.clone(), cut);
        let cache = Stage::at(replayer.port()).cache();
        let values = [("a", "A"), ("b", "B"), ("c", ""), ("a", "A2")];
        let mut error = cache.set_many(values, Ttl::Default).err();
        if error.is_none() {
            let read = cache.get_many::<String, _>(&["c", "x", "a", "b", "a"]);
            error = read.err();
        }
        if error.is_none() {
            error = cache.get_many::<String, _>(&["x", "y"]).err();
        }
        let error = error.expect("an answer is missing");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "at {cut}: {error}");
    }
}

#[test]
fn closed_idle_connection_is_opened_again() {
    let text = format!("connection{ONE}hung up\nconnection{ONE}");
    let replayer = Replayer::of(Recording::parse(&text));
    let cache = Stage::at(replayer.port());
    let cache = cache.open(cache.builder(0));
    assert_eq!(cache.get("a").unwrap(), Some(1));
    assert_eq!(cache.get("a").unwrap(), Some(1));
    drop(cache);
    replayer.finish().unwrap();
}

#[test]
fn clear_works_on_a_closed_idle_connection() {
    let clear = r"
        > POST /rpc/match_prefix HTTP/1.1\r\n
        > Host: kyoto\r\n
        > Content-Type: text/tab-separated-values; colenc=B\r\n
        > Content-Length: 34\r\n
        > \r\n
        > REI=\tMA==\n
        > cHJlZml4\t\n
        > bWF4\tMTAwMDA=\n
        < HTTP/1.1 200 OK\r\n
        < Content-Length: 6\r\n
        < \r\n
        < num\t0\n
    ";
    let text = format!("connection{ONE}hung up\nconnection{clear}");
    let replayer = Replayer::of(Recording::parse(&text));
    let stage = Stage::at(replayer.port());
    let cache = stage.open(stage.builder(0));
    assert_eq!(cache.get("a").unwrap(), Some(1));
    assert_eq!(cache.clear().unwrap(), 0);
    drop(cache);
    replayer.finish().unwrap();
}

#[test]
fn dropped_trip_closes_its_connection() {
    // The first connection is asked and never answers. If it were reused, its answer to the first
    // request would pass for an answer to the second.
    let asked = ONE.lines().nth(1).unwrap();
    let text = format!("connection\n{asked}\nconnection{ONE}");
    let replayer = Replayer::of(Recording::parse(&text));
    let stage = Stage::at(replayer.port());
    let cache = stage.builder(0).build().unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let moment = Duration::from_millis(100);
        let dropped = tokio::time::timeout(moment, cache.get::<i64>("a")).await;
        assert!(dropped.is_err(), "nothing answers");
        assert_eq!(cache.get("a").await.unwrap(), Some(1));
    });
    replayer.finish().unwrap();
}

#[test]
fn invalid_reply_is_an_error_and_closes_the_connection() {
    let asked = ONE.lines().nth(1).unwrap();
    for nonsense in [
        r"< \xb8\x00\x00\x00\x01",
        r"< \xba\xff\xff\xff\xff",
        r"< \xba\x00\x00\x00\x01\x00\x00\xff\xff\xff\xff\x00\x00\x00\x01",
        r"< \xba\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff\xffb1",
        "< HTTP/1.1 200 OK",
    ] {
        let text = format!("connection\n{asked}\n{nonsense}\nconnection{ONE}");
        let replayer = Replayer::of(Recording::parse(&text));
        let stage = Stage::at(replayer.port());
        let cache = stage.open(stage.builder(0));
        let error = cache.get::<i64>("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("protocol"), "{error}");
        assert_eq!(cache.get("a").unwrap(), Some(1));
        drop(cache);
        replayer.finish().unwrap();
    }
}

#[test]
fn hung_server_costs_one_timeout_and_a_connection() {
    let asked = ONE.lines().nth(1).unwrap();
    let text = format!("connection\n{asked}\nconnection{ONE}");
    let replayer = Replayer::of(Recording::parse(&text));
    let stage = Stage::at(replayer.port());
    let clock = onetrip::Clock::manual();
    let patience = Duration::from_millis(100);
    let builder = stage.builder(0).trip_timeout(patience);
    let cache = stage.open(builder.clock(clock.clone()));
    let error = cache.get::<i64>("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // The breaker answers without asking the server, until its next try.
    assert_eq!(
        cache.get::<i64>("a").unwrap_err().kind(),
        ErrorKind::Timeout
    );
    clock.advance(Duration::from_secs(60));
    assert_eq!(cache.get("a").unwrap(), Some(1));
    drop(cache);
    replayer.finish().unwrap();
}

//! Specifics of Memcached: its limits on keys and times, unsigned numbers, and one dead server of
//! several.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, ErrorKind, OnError, Serializer, Ttl};

use crate::support::{Blob, Memcached, memcached_server};

fn raising(url: impl Into<String>) -> Builder {
    let patience = Duration::from_secs(20);
    onetrip::Cache::builder(url)
        .on_error(OnError::Raise)
        .connect_timeout(patience)
        .trip_timeout(patience)
}

fn open(builder: Builder) -> Cache {
    builder.build().unwrap().blocking()
}

#[test]
fn shortened_number_has_no_trailing_space() {
    let cache = raising(memcached_server().url()).prefix("shorter");
    let (cache, raw) = (open(cache.clone()), open(cache.serializer(Serializer::Raw)));
    cache.set("n", &1000).unwrap();
    for (delta, digits) in [
        (-1, "999"),
        (1, "1000"),
        (-1001, "-1"),
        (-9, "-10"),
        (10, "0"),
    ] {
        let number = cache.incr("n", delta).unwrap().unwrap();
        assert_eq!(number.to_string(), digits);
        let Blob(stored) = raw.get("n").unwrap().unwrap();
        assert_eq!(stored, digits.as_bytes());
    }
    // As other clients leave a number after a decrement.
    raw.set("n", &Blob(b"99 ".to_vec())).unwrap();
    assert_eq!(
        cache.incr("n", 1).unwrap_err().kind(),
        ErrorKind::NotANumber
    );
}

#[test]
fn concurrent_increments_are_all_counted() {
    let cache = open(raising(memcached_server().url()).prefix("at-once"));
    // From below zero to above, so that numbers are both replaced and added to in place.
    cache.set("n", &-100).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..60 {
                    cache.incr("n", 1).unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(cache.get("n").unwrap(), Some(140));
}

#[test]
fn operation_sees_the_increment_before_it() {
    use onetrip::trip::{Op, Reply, Stored, Trip};
    let cache = raising(memcached_server().url())
        .prefix("order")
        .build()
        .unwrap();
    let name = bytes::Bytes::from("order:n");
    let incr = |delta| Op::Incr {
        name: name.clone(),
        delta,
    };
    let get = || Op::Get { name: name.clone() };
    let set = Op::Set {
        name: name.clone(),
        entry: "5".into(),
        ttl: None,
    };
    let trip = Trip::from_iter([incr(1), set, incr(2), get(), incr(-8), get()]);
    let replies = cache
        .send_blocking(&onetrip::internals::Context::default(), &trip)
        .unwrap();
    let shown: Vec<String> = replies.iter().map(|reply| format!("{reply:?}")).collect();
    let entry =
        |digits: &'static str| format!("{:?}", Reply::Entry(Some(Stored::new(digits.into()))));
    let number = |number| format!("{:?}", Reply::Number(number));
    let expected = [
        number(None),
        format!("{:?}", Reply::Done),
        number(Some(7)),
        entry("7"),
        number(Some(-1)),
        entry("-1"),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn invalid_memcached_keys_are_hashed() {
    let server = memcached_server();
    let cache = open(raising(server.url()).serializer(Serializer::Raw));
    let names = [
        "hashed names".to_owned(),
        "hashed:\u{fc}".to_owned(),
        "hashed".repeat(42),
        "onetrip-sha256:hashed".to_owned(),
    ];
    for name in names {
        cache.set(&name, &Blob(b"here".to_vec())).unwrap();
        let key = format!(
            "onetrip-sha256:{}",
            onetrip::internals::digest(name.as_bytes())
        );
        let stored = server.ask(&format!("mg {key} v\r\nmn"), "MN").unwrap();
        assert_eq!(stored, ["VA 4", "here"], "{name}");
    }
    cache.set("hashed:not", &Blob(b"here".to_vec())).unwrap();
    assert!(server.life("hashed:not").is_some());
}

#[test]
fn entry_above_the_server_limit_is_refused_and_removes_the_old_one() {
    let server = Memcached::start(&["-I", "1m"]);
    let cache = open(raising(server.url()));
    let large = Blob(vec![0; 2 << 20]);
    cache.set_many([("a", 1), ("b", 2)], Ttl::Never).unwrap();
    let error = cache.set("a", &large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("-I"), "{error}");
    assert_eq!(
        cache.get::<i64>("a").unwrap(),
        None,
        "the old entry is outdated"
    );
    let error = cache.add("b", &large, Ttl::Never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    // Some server versions remove the old value for this too; none returns another value.
    let left: Option<i64> = cache.get("b").unwrap();
    assert!(left.is_none_or(|left| left == 2), "{left:?}");
    // Other keys in the same exchange are served.
    let lenient = open(onetrip::Cache::builder(server.url()));
    let small = Blob(vec![1]);
    let many = [("c", &small), ("a", &large), ("d", &small)];
    lenient.set_many(many, Ttl::Never).unwrap();
    let values: Vec<Option<Blob>> = cache.get_many(&["c", "a", "d"]).unwrap();
    assert_eq!(values, [Some(small.clone()), None, Some(small)]);
    assert_eq!(lenient.asynchronous().stats().errors, 1);
}

#[test]
fn full_server_refuses_writes() {
    let server = Memcached::start(&["-I", "1m", "-m", "8", "-M"]);
    let cache = open(raising(server.url()));
    let value = Blob(vec![0; 500_000]);
    let refused = (0..100).find_map(|number| cache.set(number.to_string(), &value).err());
    assert_eq!(refused.unwrap().kind(), ErrorKind::Refused);
    assert_eq!(cache.get("0").unwrap(), Some(value), "reads go on");
}

#[test]
fn dead_server_costs_only_its_own_keys() {
    let (alive, dead) = (Memcached::start(&[]), Memcached::start(&[]));
    let port = dead.port();
    let url = format!("memcached://127.0.0.1:{},127.0.0.1:{port}", alive.port());
    let cache = open(onetrip::Cache::builder(&url));
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Ttl::Never)
        .unwrap();
    let (here, there): (Vec<_>, Vec<_>) = keys.iter().partition(|key| alive.life(key).is_some());
    assert!(here.len() > 5 && there.len() > 5, "{} are here", here.len());
    assert!(there.iter().all(|key| dead.life(key).is_some()));

    drop(dead);
    let page = || {
        let stats = cache.asynchronous().stats();
        assert_eq!(stats.errors, there.len() as u64, "one for each unknown key");
        // The server is back, and somebody has written to it.
        let back = Memcached::start_on(port);
        open(raising(&url)).set(there[0], &2).unwrap();
        assert_eq!(cache.get(here[0]).unwrap(), Some(1));
        assert_eq!(
            cache.get(there[0]).unwrap(),
            Some(2),
            "unknown is not absent"
        );
        Ok::<_, onetrip::Error>(back)
    };
    let back = cache.preload(&keys, page).unwrap();

    drop(back);
    for _ in 0..5 {
        let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert_eq!(value.is_some(), here.contains(&key), "{key}");
        }
    }
    assert!(cache.delete(here[0]).unwrap());
    cache.asynchronous().reset_stats();
    assert!(!cache.delete(there[0]).unwrap());
    assert_eq!(cache.asynchronous().stats().errors, 1);
}

#[test]
fn clear_without_a_prefix_clears_the_servers() {
    let (first, second) = (Memcached::start(&[]), Memcached::start(&[]));
    let port = second.port();
    let url = format!("memcached://127.0.0.1:{},127.0.0.1:{port}", first.port());
    let bare = open(raising(&url));
    let prefixed = open(raising(&url).prefix("p"));
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    let fill = |cache: &Cache| {
        let all = keys.iter().map(|key| (key, 1));
        cache.set_many(all, Ttl::Never).unwrap();
    };
    let left = |cache: &Cache| {
        let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        values.into_iter().flatten().count()
    };
    fill(&bare);
    fill(&prefixed);
    let error = prefixed.clear().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!((left(&bare), left(&prefixed)), (40, 40));

    assert_eq!(bare.clear().unwrap(), 0, "the servers do not count");
    assert_eq!((left(&bare), left(&prefixed)), (0, 0));
    fill(&bare);
    assert_eq!(left(&bare), 40, "written in the same second");

    // A server that is down is cleared once it is back, before anything is read there.
    let there = keys.iter().find(|key| second.life(key).is_some()).unwrap();
    drop(second);
    assert_eq!(bare.clear().unwrap_err().kind(), ErrorKind::Unavailable);
    let _back = Memcached::start_on(port);
    open(raising(&url)).set(there, &2).unwrap();
    let read = loop {
        // Until the breaker lets a trip through.
        if let Ok(read) = bare.get::<i64>(there) {
            break read;
        }
    };
    assert_eq!(read, None);
}

#[test]
fn tasks_of_one_runtime_share_few_connections() {
    let server = Memcached::start(&[]);
    let cache = raising(server.url()).build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..300)
            .map(|number| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let key = format!("key:{number}");
                    cache.set(&key, &number).await.unwrap();
                    assert_eq!(cache.get(&key).await.unwrap(), Some(number));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let stats = server.ask("stats", "END").unwrap();
    let open = stats
        .iter()
        .find_map(|line| line.strip_prefix("STAT curr_connections "));
    // Some are internal, and one is this request's.
    let open: u32 = open.unwrap().parse().unwrap();
    assert!(open < 32 + 8, "{open}");
    drop(runtime);
}

/// After this answer the impostor closes the connection.
const BYE: &str = "bye";

/// A server that answers each batch by `answer`. It reports each batch with the number of its
/// connection, and `None` when a connection has ended.
fn impostor(
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (String, Receiver<Option<(usize, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("memcached://{}", listener.local_addr().unwrap());
    let (tell, batches) = channel();
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let mut stream: TcpStream = stream.unwrap();
            while let Some(batch) = read_batch(&mut stream) {
                let answer = answer(&batch);
                if tell.send(Some((number, batch))).is_err() {
                    return;
                }
                let bytes = answer.strip_suffix(BYE).unwrap_or(&answer);
                stream.write_all(bytes.as_bytes()).unwrap();
                if bytes.len() < answer.len() {
                    break;
                }
            }
            drop(stream);
            if tell.send(None).is_err() {
                return;
            }
        }
    });
    (url, batches)
}

fn read_batch(stream: &mut TcpStream) -> Option<String> {
    let (mut batch, mut some) = (Vec::new(), [0; 4096]);
    while !batch.ends_with(b"mn\r\n") {
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(length) => batch.extend_from_slice(&some[..length]),
        }
    }
    Some(String::from_utf8_lossy(&batch).into_owned())
}

/// Returns the token of the only command of a batch.
fn opaque(batch: &str) -> u64 {
    let (_, token) = batch.lines().next().unwrap().rsplit_once(" O").unwrap();
    token.parse().unwrap()
}

#[test]
fn answer_to_another_command_is_refused() {
    // Except for the token, these bytes would be a valid answer.
    let (url, batches) = impostor(|batch| format!("VA 1 O{}\r\n5\r\nMN\r\n", opaque(batch) + 1));
    let cache = open(raising(url));
    for number in 0..2 {
        let error = cache.get::<i64>("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("another command"), "{error}");
        let (connection, _) = batches.recv().unwrap().unwrap();
        assert_eq!(connection, number, "connections are not used again");
        assert!(batches.recv().unwrap().is_none(), "it was closed");
    }
}

#[test]
fn server_without_meta_commands_is_named() {
    let (url, _told) = impostor(|_| "ERROR\r\nERROR\r\n".to_owned());
    let error = open(raising(url)).get::<i64>("key").unwrap_err();
    assert!(error.to_string().contains("1.6"), "{error}");
}

#[test]
fn keys_of_a_server_share_one_exchange() {
    let (url, batches) = impostor(|batch| {
        let misses: String = batch
            .lines()
            .filter_map(|line| line.rsplit_once(" O"))
            .map(|(_, token)| format!("EN O{token}\r\n"))
            .collect();
        misses + "MN\r\n"
    });
    let cache = open(raising(url));
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    for _ in 0..2 {
        let values: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        assert_eq!(values, [None; 100]);
        let (connection, batch) = batches.recv().unwrap().unwrap();
        assert_eq!(connection, 0);
        assert_eq!(batch.lines().count(), 101);
        assert!(
            batch
                .lines()
                .take(100)
                .all(|line| line.starts_with("mg key:"))
        );
    }
    assert!(batches.try_recv().is_err());
}

#[test]
fn increment_is_not_sent_on_a_closed_connection() {
    // Closes each connection after the second batch, which is the second step of an increment.
    let (url, batches) = impostor(|batch| {
        let token = opaque(batch);
        if batch.contains(" t O") {
            format!("VA 1 c1 t-1 O{token}\r\n5\r\nMN\r\n")
        } else {
            format!("VA 1 O{token}\r\n6\r\nMN\r\n{BYE}")
        }
    });
    let cache = open(raising(url));
    for number in 0..5 {
        assert_eq!(cache.incr("key", 1).unwrap(), Some(6));
        for _ in 0..2 {
            assert_eq!(batches.recv().unwrap().unwrap().0, number);
        }
        assert!(
            batches.recv().unwrap().is_none(),
            "closed, while it was idle"
        );
    }
    assert_eq!(cache.asynchronous().stats().errors, 0);
}

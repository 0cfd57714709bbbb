//! The recorded scenarios, and what their answers must mean.

use std::time::Duration;

use onetrip::{ErrorKind, Ttl};

use crate::stage::{play, play_over, recording};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn many() {
    play("many", |stage| {
        let cache = stage.cache();
        let values = [("a", "A"), ("b", "B"), ("c", ""), ("a", "A2")];
        cache.set_many(values, Ttl::Default).unwrap();
        // Not in the order they were written, one repeated, one absent.
        let read: Vec<Option<String>> = cache.get_many(&["c", "x", "a", "b", "a"]).unwrap();
        assert_eq!(read, [text(""), None, text("A2"), text("B"), text("A2")]);
        let absent: Vec<Option<String>> = cache.get_many(&["x", "y"]).unwrap();
        assert_eq!(absent, [None, None]);
    });
    let exchanges = recording("many").0;
    let [connection] = exchanges.as_slice() else {
        panic!("one connection serves a thread");
    };
    assert_eq!(connection.len(), 2 * 3, "one exchange for each trip");
}

#[test]
fn page() {
    play("page", |stage| {
        let cache = stage.cache();
        cache.set("note", "hello").unwrap();
        let keys = ["note", "comments", "author"];
        let ((), seen) = cache.watch(|| {
            let page = || {
                assert_eq!(cache.get::<String>("note").unwrap(), text("hello"));
                assert_eq!(cache.get::<String>("comments").unwrap(), None);
                cache.set("comments", "none yet")
            };
            cache.preload(keys, page).unwrap();
        });
        assert_eq!(seen.trips(), 2, "one in and one out");
        let read: Vec<Option<String>> = cache.get_many(&keys).unwrap();
        assert_eq!(read, [text("hello"), text("none yet"), None]);
    });
}

#[test]
fn expiry() {
    play("expiry", |stage| {
        let cache = stage.cache();
        cache.set_for("hour", &1, HOUR).unwrap();
        cache
            .set_for("rounded up", &1, Duration::from_millis(3_599_001))
            .unwrap();
        cache.set_for("longest", &1, Duration::MAX).unwrap();
        cache.set_for("never", &1, Ttl::Never).unwrap();
        for key in ["hour", "rounded up", "longest", "never"] {
            assert_eq!(cache.get(key).unwrap(), Some(1));
        }
    });
    // As the server gives them, in seconds since 1970.
    let recording = recording("expiry");
    let answers = recording.answers().filter(|bytes| bytes[0] == 0xBA);
    let expires: Vec<i64> = answers
        .map(|bytes| i64::from_be_bytes(bytes[15..23].try_into().unwrap()))
        .collect();
    assert!(expires[0] > 1_700_000_000, "{expires:?}");
    assert!((0..=1).contains(&(expires[1] - expires[0])), "{expires:?}");
    assert_eq!(expires[2..], [(1 << 40) - 1; 2]);
}

#[test]
fn delete() {
    play("delete", |stage| {
        let cache = stage.cache();
        cache
            .set_many([("a", 1), ("b", 2), ("c", 3)], Ttl::Default)
            .unwrap();
        assert!(cache.delete("a").unwrap());
        assert!(!cache.delete("a").unwrap());
        assert_eq!(cache.delete_many(&["a", "b", "x", "c", "b"]).unwrap(), 2);
        assert_eq!(
            cache.get_many::<i64, _>(&["a", "b", "c"]).unwrap(),
            [None; 3]
        );
    });
}

#[test]
fn add() {
    play("add", |stage| {
        let cache = stage.cache();
        assert!(cache.add("lock", "mine", HOUR).unwrap());
        assert!(!cache.add("lock", "yours", HOUR).unwrap());
        assert!(cache.add("for ever", "mine", Ttl::Never).unwrap());
        assert!(
            !cache
                .add("for ever", "yours", Duration::from_nanos(1))
                .unwrap()
        );
        let read: Vec<Option<String>> = cache.get_many(&["lock", "for ever"]).unwrap();
        assert_eq!(read, [text("mine"), text("mine")]);
    });
}

#[test]
fn incr() {
    play("incr", |stage| {
        let cache = stage.cache();
        assert_eq!(cache.incr("missing", 1).unwrap(), None);
        cache.set_for("hits", &40, HOUR).unwrap();
        assert_eq!(cache.incr("hits", 2).unwrap(), Some(42));
        assert_eq!(cache.incr("hits", -50).unwrap(), Some(-8));
        cache.set_for("for ever", &0, Ttl::Never).unwrap();
        assert_eq!(cache.incr("for ever", i64::MIN).unwrap(), Some(i64::MIN));
        cache.set("top", &(i64::MAX - 1)).unwrap();
        assert_eq!(cache.incr("top", 1).unwrap(), Some(i64::MAX));
        cache.set("word", "12").unwrap();
        for (key, delta) in [("top", 1), ("for ever", -1), ("word", 1)] {
            let error = cache.incr(key, delta).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotANumber, "{error}");
        }
        let numbers: Vec<Option<i64>> = cache.get_many(&["hits", "for ever", "top"]).unwrap();
        assert_eq!(numbers, [Some(-8), Some(i64::MIN), Some(i64::MAX)]);
    });
}

#[test]
fn touch() {
    play("touch", |stage| {
        let cache = stage.cache();
        cache
            .set_many([("a", "\0A\u{FF}"), ("b", "B")], HOUR)
            .unwrap();
        assert!(cache.touch("a", Ttl::Never).unwrap());
        assert!(!cache.touch("x", Ttl::Never).unwrap());
        assert_eq!(
            cache.touch_many(&["a", "x", "b", "a"], 2 * HOUR).unwrap(),
            3
        );
        let read: Vec<Option<String>> = cache.get_many(&["a", "b"]).unwrap();
        assert_eq!(read, [text("\0A\u{FF}"), text("B")]);
    });
}

#[test]
fn clear() {
    play("clear", |stage| {
        let of = |prefix: &str| stage.open(stage.builder(0).prefix(prefix));
        let (cache, neighbour) = (of("a%"), of("a"));
        assert_eq!(cache.clear().unwrap(), 0);
        for key in ["1", "2\n", "\u{20AC}\t\0"] {
            cache.set(key, &1).unwrap();
        }
        neighbour.set("1", &1).unwrap();
        assert_eq!(cache.clear().unwrap(), 3);
        assert_eq!(cache.get::<i64>("1").unwrap(), None);
        assert_eq!(neighbour.get("1").unwrap(), Some(1));
        assert_eq!(of("").clear().unwrap(), 1, "all there is");
        assert_eq!(neighbour.get::<i64>("1").unwrap(), None);
    });
}

#[test]
fn keys() {
    play("keys", |stage| {
        let cache = stage.open(stage.builder(0));
        let long = "k".repeat(5000);
        let keys: [&[u8]; 5] = [
            b"",
            "\u{20AC}\u{1F511}".as_bytes(),
            b"\0\t\r\n %+",
            b"\xFF\xFE",
            long.as_bytes(),
        ];
        let numbered = keys.iter().zip(1..);
        cache.set_many(numbered.clone(), Ttl::Default).unwrap();
        let all: Vec<Option<i64>> = cache.get_many(&keys).unwrap();
        assert_eq!(all, [1, 2, 3, 4, 5].map(Some));
        for (key, number) in numbered {
            assert!(!cache.add(key, &0, Ttl::Default).unwrap());
            assert_eq!(cache.incr(key, 1).unwrap(), Some(number + 1));
            assert!(cache.touch(key, HOUR).unwrap());
        }
        // The server chooses another encoding for each of these keys.
        assert_eq!(cache.clear().unwrap(), 5);
    });
}

#[test]
fn large() {
    play("large", |stage| {
        let cache = stage.cache();
        let value = "a".repeat(64 << 20);
        cache.set("large", &value).unwrap();
        let read: Vec<Option<String>> = cache.get_many(&["x", "large"]).unwrap();
        assert!(read == [None, Some(value)]);
        assert!(cache.delete("large").unwrap());
    });
}

#[test]
fn databases() {
    play("databases", |stage| {
        let of = |database| stage.open(stage.builder(database));
        let (first, second, none) = (of(0), of(1), of(99));
        first.set("a", &1).unwrap();
        assert_eq!(second.get::<i64>("a").unwrap(), None);
        second.set("a", &2).unwrap();
        assert!(!second.add("a", &3, Ttl::Default).unwrap());
        assert_eq!(second.incr("a", 10).unwrap(), Some(12));
        assert_eq!(first.get("a").unwrap(), Some(1));
        assert_eq!(second.clear().unwrap(), 1);
        assert_eq!(first.get("a").unwrap(), Some(1));
        let error = none.get::<i64>("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("no database"), "{error}");
    });
}

#[test]
fn refused() {
    play_over("KT_READ_ONLY_URL", "refused", |stage| {
        let cache = stage.cache();
        let refused = |error: onetrip::Error| {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        };
        refused(cache.set("a", &1).unwrap_err());
        // The server has hung up; reads that are allowed still work.
        assert_eq!(cache.get::<i64>("a").unwrap(), None);
        refused(cache.delete("a").unwrap_err());
        refused(cache.add("a", &1, Ttl::Default).unwrap_err());
        assert_eq!(cache.incr("a", 1).unwrap(), None);
    });
    let recording = recording("refused");
    assert!(recording.answers().any(|bytes| bytes == [0xBF]));
    assert!(recording.0.len() > 1, "later trips use another connection");
}

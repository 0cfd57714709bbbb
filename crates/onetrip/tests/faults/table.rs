//! Writes the tables of docs/reliability.md: what a page sees of each fault, on each store.
//!
//! Every cell is observed here and compared with the document. If a difference is intended,
//! `UPDATE=1 cargo test -p onetrip --test faults table` updates the document.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, ErrorKind, OnError, Serializer, Ttl};

use crate::folder::Folder;
use crate::proxy;
use crate::stand::{self, Stand};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reliability.md");
const BEGIN: &str = "<!-- tables: observed by crates/onetrip/tests/faults/table.rs -->\n";
const END: &str = "<!-- end of tables -->\n";

/// The cell of a fault that a store cannot have.
const NONE: &str = "–";

/// Starts the servers of a store.
type Start = fn() -> Stand;

const SERVERS: [(&str, Start); 6] = [
    ("Redis", stand::redis),
    ("Redis Cluster", stand::redis_cluster),
    ("Sentinel", stand::redis_sentinel),
    ("Memcached", stand::memcached),
    ("two Memcached", stand::memcached_two),
    ("Kyoto Tycoon", stand::kyoto),
];

/// A row: a fault, and what a page saw of it on each store.
type Row = (String, Vec<String>);

#[test]
fn reliability_tables_match_what_pages_see() {
    let mut tables = String::from(BEGIN);
    let names: Vec<&str> = SERVERS.iter().map(|(name, _)| *name).collect();
    print(&mut tables, "the server", &names, &network());
    tables += "\n";
    let names = [&["memory", "disk"], &names[..]].concat();
    print(&mut tables, "the store", &names, &refusals());
    tables += END;
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the document has tables");
    let (_, tail) = rest.split_once(END).expect("the tables have an end");
    let wanted = format!("{head}{tables}{tail}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(DOCUMENT, wanted).unwrap();
        return;
    }
    assert!(
        text == wanted,
        "docs/reliability.md says otherwise than what was seen:\n\n{tables}\nIf that is right, \
         UPDATE=1 cargo test -p onetrip --test faults table"
    );
}

fn print(out: &mut String, first: &str, names: &[&str], rows: &[Row]) {
    writeln!(out, "| {first} | {} |", names.join(" | ")).unwrap();
    writeln!(out, "| --- |{}", " --- |".repeat(names.len())).unwrap();
    for (what, cells) in rows {
        writeln!(out, "| {what} | {} |", cells.join(" | ")).unwrap();
    }
}

/// Describes what fifty reads saw, one after the other.
fn reads(cache: &Cache, keys: &[String]) -> String {
    let (mut values, mut absent, mut late, mut failed, mut at_once) = (0, 0, 0, 0, 0);
    for key in keys {
        match cache.get::<String>(key) {
            Ok(Some(value)) => {
                assert_eq!(value, *key, "never a wrong value");
                values += 1;
            }
            Ok(None) => absent += 1,
            Err(error) if error.to_string().contains("is not asked") => at_once += 1,
            Err(error) if error.kind() == ErrorKind::Timeout => late += 1,
            Err(_) => failed += 1,
        }
    }
    let count = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let misses: Vec<String> = [
        count(late, "timeout", "timeouts"),
        count(failed, "failure", "failures"),
        count(at_once, "at once", "at once"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match (values, absent, misses.as_slice()) {
        (_, 0, []) => "value".to_owned(),
        (0, _, []) => "miss".to_owned(),
        (_, _, []) => "value or miss".to_owned(),
        (0, 0, _) => format!("miss: {}", misses.join(", ")),
        _ => panic!("{values} values, {absent} misses and {misses:?}"),
    }
}

fn fill(cache: &Cache, keys: &[String]) {
    let values = keys.iter().map(|key| (key, key));
    cache.set_many(values, Ttl::Never).unwrap();
}

/// Runs `look` on each store with a server. Most of it is waiting, so all run at once.
fn on_all<T: Send>(look: impl Fn(Start) -> T + Sync) -> Vec<T> {
    std::thread::scope(|threads| {
        let looks = SERVERS.map(|(_, start)| {
            threads.spawn({
                let look = &look;
                move || look(start)
            })
        });
        looks.map(|look| look.join().unwrap()).into()
    })
}

fn network() -> Vec<Row> {
    type Fault = fn(&mut Stand);
    let faults: [(&str, Fault); 8] = [
        ("refuses connections", |stand| {
            stand.fail(proxy::Fault::Refuse)
        }),
        ("takes requests and never answers", |stand| {
            stand.fail(proxy::Fault::Hang);
        }),
        ("answers late, but in time", |stand| {
            stand.fail(proxy::Fault::Delay(Duration::from_millis(20)));
        }),
        ("resets the connection in mid-reply", |stand| {
            stand.fail(proxy::Fault::Reset(3));
        }),
        ("cuts its reply short", |stand| {
            stand.fail(proxy::Fault::Cut(3))
        }),
        ("answers garbage", |stand| stand.fail(proxy::Fault::Garbage)),
        ("closed the idle connection", |stand| {
            stand.proxy.close_all()
        }),
        ("was restarted, and is empty", Stand::restart),
    ];
    let stores = on_all(|start| {
        let mut stand = start();
        let keys = stand.keys(50);
        faults.map(|(what, fail)| {
            let (cache, lenient) = (stand.raising(), stand.cache());
            fill(&stand.direct(), &keys);
            for cache in [&cache, &lenient] {
                assert_eq!(cache.get(&keys[0]).unwrap(), Some(keys[0].clone()));
            }
            fail(&mut stand);
            let seen = reads(&cache, &keys);
            // A page sees no failure.
            assert!(
                ["value", "miss"].contains(&&*reads(&lenient, &keys)),
                "{what}"
            );
            stand.recover();
            if what.starts_with("was restarted") {
                fill(&stand.direct(), &keys);
            }
            assert_eq!(reads(&cache, &keys), "value", "after it {what}");
            seen
        })
    });
    let rows = faults.iter().enumerate();
    rows.map(|(row, (what, _))| {
        let cells = stores.iter().map(|cells| cells[row].clone());
        ((*what).to_owned(), cells.collect())
    })
    .collect()
}

/// What a page saw of its read, after a write and after a delete.
type Acts = [String; 3];

fn acts(raising: &Cache, lenient: &Cache, keys: &[String]) -> Acts {
    let read = reads(raising, &keys[..40]);
    let (written, deleted) = (&keys[40], &keys[41]);
    lenient.set(written, "new").unwrap();
    let write = match lenient.get::<String>(written).unwrap() {
        Some(value) if value == "new" => "new value",
        Some(_) => "old value",
        None => "miss",
    };
    lenient.delete(deleted).unwrap();
    let gone = lenient.get::<String>(deleted).unwrap().is_none();
    let delete = if gone { "miss" } else { "old value" };
    [read, write.to_owned(), delete.to_owned()]
}

fn on_server(stand: &Stand, fail: Fail) -> Acts {
    let keys = stand.keys(50);
    fill(&stand.direct(), &keys);
    let (raising, lenient) = (stand.raising(), stand.cache());
    for cache in [&raising, &lenient] {
        assert_eq!(reads(cache, &keys[..1]), "value");
    }
    if !fail(stand) {
        return none();
    }
    acts(&raising, &lenient, &keys)
}

/// The same for a store in this process or on its disk.
fn at_home(url: &str, fail: impl Fn(&str)) -> Acts {
    let keys: Vec<String> = (0..50).map(key).collect();
    // Entries in memory last as long as one of their caches.
    let keeper = lenient(url);
    fill(&keeper, &keys);
    let _keeper = url.starts_with("memory").then_some(keeper);
    fail(url);
    let raising = onetrip::Cache::builder(url).on_error(OnError::Raise);
    acts(&raising.build().unwrap().blocking(), &lenient(url), &keys)
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

fn lenient(url: &str) -> Cache {
    onetrip::Cache::open(url).unwrap().blocking()
}

/// Writes more than there is room for, and keeps reading the page's keys.
fn overfill(url: &str) {
    let cache = lenient(url);
    let value = "x".repeat(5_000);
    for number in 0..500 {
        cache.set(format!("more:{number}"), &value).unwrap();
        for number in 0..50 {
            cache.get::<String>(key(number)).unwrap();
        }
    }
    let is_there = |number: &usize| cache.contains(format!("more:{number}")).unwrap();
    assert!((0..500).filter(is_there).count() < 300, "it is full");
}

/// Bytes, which serde would otherwise serialize as a list of numbers.
struct Garbage;

impl serde::Serialize for Garbage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(b"garbage")
    }
}

/// Writes invalid entries under the names of entries.
fn damage(builder: Builder, keys: &[String]) {
    let raw = builder.serializer(Serializer::Raw).on_error(OnError::Raise);
    let raw = raw.build().unwrap().blocking();
    for key in keys {
        raw.set(key, &Garbage).unwrap();
    }
}

const WRITER: &str = "ONETRIP_TEST_WRITER";

/// Runs the process that gets killed. Does nothing in the test program's own run.
#[test]
fn writer() {
    let Ok(url) = std::env::var(WRITER) else {
        return;
    };
    let cache = lenient(&url);
    for number in 0.. {
        cache
            .set(format!("more:{}", number % 100), &"x".repeat(3_000))
            .unwrap();
        println!("written");
    }
}

/// Starts another process that writes, and kills it while it does.
fn kill_a_writer(url: &str) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "table::writer"])
        .env(WRITER, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(writer.stdout.take().unwrap()).lines();
    let written = output
        .map_while(Result::ok)
        .filter(|line| line == "written");
    assert_eq!(written.take(100).count(), 100);
    writer.kill().unwrap();
    writer.wait().unwrap();
}

fn none() -> Acts {
    [NONE; 3].map(str::to_owned)
}

/// Causes a fault, if the store can have it.
type Fail = fn(&Stand) -> bool;

const ACTS: [&str; 3] = ["a read", "after a write", "after a delete"];

fn refusals() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what: &str, acts: usize, home: [Acts; 2], fail: Option<Fail>| {
        let stores = match fail {
            Some(fail) => on_all(|start| on_server(&start(), fail)),
            None => SERVERS.map(|_| none()).into(),
        };
        let stores: Vec<Acts> = home.into_iter().chain(stores).collect();
        for (act, name) in ACTS.iter().enumerate().take(acts) {
            let cells = stores.iter().map(|acts| acts[act].clone()).collect();
            rows.push((format!("{what}: {name}"), cells));
        }
    };
    let folders = [(); 4].map(|()| Folder::new());
    let [full, damaged, broken, killed] = folders.each_ref().map(Folder::url);

    let full = format!("{full}?size=1MiB");
    let full = ["memory://full?size=1MiB", &full].map(|url| {
        let [read, write, delete] = at_home(url, overfill);
        assert!(["value", "value or miss"].contains(&&*read), "{read}");
        // Which entries are evicted is not documented.
        ["value or miss".to_owned(), write, delete]
    });
    add(
        "is full",
        3,
        full,
        Some(|stand| stand.ask(&["CONFIG", "SET", "maxmemory", "1"])),
    );
    // Nobody can create a folder there, whatever their permissions.
    let nowhere = at_home("disk:///proc/onetrip", |_| {});
    add(
        "is a replica, or a folder that cannot be made",
        3,
        [none(), nowhere],
        Some(|stand| stand.has_replicas() && stand.ask(&["REPLICAOF", "127.0.0.1", "1"])),
    );
    add(
        "does not permit writing",
        3,
        [none(), none()],
        Some(|stand| stand.ask(&["ACL", "SETUSER", "default", "-@write"])),
    );
    let keys: Vec<String> = (0..50).map(key).collect();
    let damaged = ["memory://damaged", &damaged]
        .map(|url| at_home(url, |url| damage(onetrip::Cache::builder(url), &keys)));
    add(
        "holds damaged entries",
        1,
        damaged,
        Some(|stand| {
            damage(stand.direct_builder(), &stand.keys(50));
            true
        }),
    );
    let data = folders[2].path().join("data.mdb");
    let broken = at_home(&broken, |_| std::fs::write(&data, "garbage").unwrap());
    add("has a damaged file", 2, [none(), broken], None);
    let killed = at_home(&killed, kill_a_writer);
    add("has a writer that is killed", 2, [none(), killed], None);
    rows
}

//! Fixed jobs, whose instructions `tests/test_counts.py` counts: `onetrip-counts JOB TIMES`.
//!
//! A job is set up once and then done so many times. The test subtracts two such numbers, so that
//! what remains is the job alone. Without arguments it lists the jobs.

mod server;

use std::collections::BTreeMap;
use std::hint::black_box;

use onetrip::blocking::Cache;
use onetrip::internals::Keyspace;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Row = BTreeMap<String, String>;
type Job = fn(usize) -> Result<()>;

const JOBS: [(&str, Job); 7] = [
    ("hit in a scope", hit_in_a_scope),
    ("memory get, 1.5 kB", memory_get),
    ("memory set, 1.5 kB", memory_set),
    ("key and digest", key),
    ("encode 100 maps", encode),
    ("decode 100 maps", decode),
    ("preload of 50, Redis", preload),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = arguments.as_slice() else {
        for (name, _) in JOBS {
            println!("{name}");
        }
        return Ok(());
    };
    let job = JOBS.iter().find(|(known, _)| known == name);
    let (Some((_, job)), Ok(times)) = (job, times.parse()) else {
        eprintln!("onetrip-counts: there is no job {name:?}, or {times:?} is no number");
        std::process::exit(2);
    };
    job(times)
}

fn memory() -> Result<Cache> {
    Ok(onetrip::Cache::open("memory://")?.blocking())
}

fn text() -> String {
    "0123456789abcde".repeat(100)
}

fn rows() -> Vec<Row> {
    let row = |number: usize| {
        let parts = [("title", "a title"), ("tags", "a, b"), ("author", "me")];
        let named = parts.map(|(name, text)| (name.into(), format!("{text} {number}")));
        Row::from(named)
    };
    (0..100).map(row).collect()
}

fn hit_in_a_scope(times: usize) -> Result<()> {
    let cache = memory()?;
    cache.set("one", "a small value")?;
    cache.preload(["one"], || {
        (0..times).try_for_each(|_| found(cache.get::<String>(black_box("one"))))
    })
}

fn memory_get(times: usize) -> Result<()> {
    let cache = memory()?;
    cache.set("one", &text())?;
    (0..times).try_for_each(|_| found(cache.get::<String>(black_box("one"))))
}

fn memory_set(times: usize) -> Result<()> {
    let (cache, text) = (memory()?, text());
    for _ in 0..times {
        cache.set("one", black_box(&text))?;
    }
    Ok(())
}

fn key(times: usize) -> Result<()> {
    let keys = Keyspace::new("blog");
    for _ in 0..times {
        black_box(keys.name(black_box(b"note_markup:5")));
        black_box(onetrip::internals::digest(black_box(
            b"the arguments of a call",
        )));
    }
    Ok(())
}

fn encode(times: usize) -> Result<()> {
    let (cache, rows) = (memory()?, rows());
    for _ in 0..times {
        cache.set("rows", black_box(&rows))?;
    }
    Ok(())
}

fn decode(times: usize) -> Result<()> {
    let cache = memory()?;
    cache.set("rows", &rows())?;
    (0..times).try_for_each(|_| found(cache.get::<Vec<Row>>(black_box("rows"))))
}

fn preload(times: usize) -> Result<()> {
    let cache = onetrip::Cache::open(server::start())?.blocking();
    let keys: Vec<String> = (0..50).map(|number| format!("page:{number}")).collect();
    for key in &keys {
        cache.set(
            key,
            "a value of some length, which fits into one packet with the others",
        )?;
    }
    let page = || found(cache.get::<String>("page:49"));
    (0..times).try_for_each(|_| cache.preload(&keys, page))
}

/// An answer is there; a job that finds nothing would be a quick one.
fn found<T>(answer: onetrip::Result<Option<T>>) -> Result<()> {
    match black_box(answer)? {
        Some(_) => Ok(()),
        None => Err("the job found nothing".into()),
    }
}

//! A store of your own: a map with times to live.
//!
//! `cargo run --example store`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onetrip::store::{Exchange, Store};
use onetrip::trip::{Op, Reply, Stored, Trip};
use onetrip::{Builder, Error, ErrorKind};

/// Entries in a map. Grows without bound: a real store would evict.
#[derive(Debug, Default)]
struct Map(Mutex<HashMap<Bytes, Entry>>);

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    end: Option<Instant>,
}

impl Entry {
    fn new(bytes: &Bytes, ttl: Option<Duration>) -> Self {
        Self {
            bytes: bytes.clone(),
            end: end(ttl),
        }
    }

    /// Returns the bytes, and how long they have left to live: a scope holds them no longer.
    fn stored(&self) -> Stored {
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        Stored::new(self.bytes.clone()).with_left(self.end.map(left))
    }
}

fn end(ttl: Option<Duration>) -> Option<Instant> {
    // The longest spans overflow: such an entry never ends.
    ttl.and_then(|ttl| Instant::now().checked_add(ttl))
}

/// Carries out one operation.
fn answer(entries: &mut HashMap<Bytes, Entry>, op: &Op) -> Reply {
    // An expired entry is absent, whatever the operation.
    if let Some(Some(end)) = entries.get(op.name()).map(|entry| entry.end)
        && end <= Instant::now()
    {
        entries.remove(op.name());
    }
    match op {
        Op::Get { name } => Reply::Entry(entries.get(name).map(Entry::stored)),
        Op::Set { name, entry, ttl } => {
            entries.insert(name.clone(), Entry::new(entry, *ttl));
            Reply::Done
        }
        Op::Add { name, entry, ttl } => {
            let is_absent = !entries.contains_key(name);
            if is_absent {
                entries.insert(name.clone(), Entry::new(entry, *ttl));
            }
            Reply::Flag(is_absent)
        }
        Op::Delete { name } => Reply::Flag(entries.remove(name).is_some()),
        Op::Incr { name, delta } => match entries.get_mut(name) {
            None => Reply::Number(None),
            Some(entry) => match sum(&entry.bytes, *delta) {
                Some(sum) => {
                    entry.bytes = sum.to_string().into();
                    Reply::Number(Some(sum))
                }
                None => Reply::Failed(Error::new(
                    ErrorKind::NotANumber,
                    format!("{name:?} holds no integer that {delta} can be added to"),
                )),
            },
        },
        Op::Touch { name, ttl } => {
            let entry = entries.get_mut(name);
            Reply::Flag(entry.map(|entry| entry.end = end(*ttl)).is_some())
        }
        Op::Clear { prefix } => {
            let before = entries.len();
            entries.retain(|name, _| !name.starts_with(prefix));
            Reply::Count((before - entries.len()) as u64)
        }
        // An operation of a later version.
        other => Reply::Failed(Error::new(
            ErrorKind::Unsupported,
            format!("a map has no {}", other.word()),
        )),
    }
}

/// Integers are decimal digits in the store, so that it can add to them.
fn sum(entry: &Bytes, delta: i64) -> Option<i64> {
    let number: i64 = std::str::from_utf8(entry).ok()?.parse().ok()?;
    number.checked_add(delta)
}

impl Store for Map {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replies = trip.ops().iter().map(|op| answer(&mut entries, op));
        Exchange::Ready(replies.collect())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        "map://".into()
    }
}

fn main() -> onetrip::Result<()> {
    let store = Arc::new(Map::default());
    let cache = Builder::default().store(store).prefix("blog").build()?;
    let cache = cache.blocking();
    cache.set("note:5", "Milk")?;
    let note: Option<String> = cache.get("note:5")?;
    println!("{}: {note:?}", cache.asynchronous().label());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_keeps_the_laws_of_stores() {
        onetrip::store::conformance::run(|| Arc::new(Map::default())).unwrap();
    }

    #[test]
    fn main_runs() {
        main().unwrap();
    }
}

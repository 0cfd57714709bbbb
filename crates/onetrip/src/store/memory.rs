//! Entries in this process, bounded by bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::latency::Slow;
use super::{Exchange, Store, StoreOptions};
use crate::clock::{Clock, Moment};
use crate::entry;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, Stored, Trip};
use crate::url::{self, StoreUrl};

/// Bytes that a memory store holds unless its URL says `size`.
pub(crate) const DEFAULT_SIZE: u64 = 256 << 20;

/// What an entry weighs beside its name and bytes: the two handles, the expiry and its place in
/// the tables of quick_cache.
const OVERHEAD: u64 = 160;

/// The share of a shard that its read-again entries may take, and so the most that one may.
const HOT: f64 = 0.97;

const OPTIONS: &[&str] = &["size", "latency"];

/// An entry and when it ends.
#[derive(Clone, Debug)]
struct Held {
    entry: Bytes,
    expires: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Bytes, Held> for Weight {
    fn weight(&self, name: &Bytes, held: &Held) -> u64 {
        weigh(name, &held.entry)
    }
}

fn weigh(name: &Bytes, entry: &Bytes) -> u64 {
    name.len() as u64 + entry.len() as u64 + OVERHEAD
}

/// A bounded map from names to entries.
///
/// When it is full it evicts what is read least (quick_cache's CLOCK-Pro). An expired entry is
/// never answered; it goes when it is next looked at, or when room is needed.
#[derive(Debug)]
struct Memory {
    entries: Cache<Bytes, Held, Weight>,
    clock: Clock,
    size: u64,
    /// The most that one entry may weigh.
    most: u64,
    label: Arc<str>,
}

/// Opens the store that a `memory:` URL names: one of its own, or the one that all caches of this
/// process share under a name.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let mut url = url.clone();
    let size = url.take_as("size", url::size)?;
    let latency = url.take_as("latency", url::span)?;
    url.finish(OPTIONS)?;
    if !matches!(url.path().as_str(), "" | "/") {
        return Err(Error::configuration(format!(
            "{} has a path, which a memory store does not; name a shared one as in memory://name",
            url.label()
        )));
    }
    let memory = match url.host() {
        None => Arc::new(Memory::new(
            size.unwrap_or(DEFAULT_SIZE),
            options.clock.clone(),
            "memory://",
        )),
        Some(name) => shared(&name, size, &options.clock)?,
    };
    Ok(match latency {
        None | Some(Duration::ZERO) => memory,
        Some(latency) => Arc::new(Slow::new(memory, latency)),
    })
}

/// The store of this process that is called `name`.
fn shared(name: &str, size: Option<u64>, clock: &Clock) -> Result<Arc<Memory>> {
    static SHARED: OnceLock<Mutex<HashMap<String, Weak<Memory>>>> = OnceLock::new();
    let mut shared = SHARED
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    shared.retain(|_, memory| memory.strong_count() > 0);
    if let Some(memory) = shared.get(name).and_then(Weak::upgrade) {
        return match size {
            Some(size) if size != memory.size => Err(Error::configuration(format!(
                "memory://{name} is open already with size={}; give all its caches the same size, or give it to one alone",
                memory.size
            ))),
            _ => Ok(memory),
        };
    }
    let label = format!("memory://{name}");
    let memory = Arc::new(Memory::new(
        size.unwrap_or(DEFAULT_SIZE),
        clock.clone(),
        &label,
    ));
    shared.insert(name.to_owned(), Arc::downgrade(&memory));
    Ok(memory)
}

impl Memory {
    fn new(size: u64, clock: Clock, label: &str) -> Self {
        // Shards halve the largest entry that fits, so there are few, and one where room is scarce.
        let shards = if size < 16 << 20 { 1 } else { 8 };
        let items = usize::try_from(size / 2048)
            .unwrap_or(usize::MAX)
            .clamp(64, 1 << 20);
        let mut builder = OptionsBuilder::new();
        let builder = builder
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity(size)
            .hot_allocation(HOT);
        let entries = match builder.build() {
            Ok(options) => Cache::with_options(
                options,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // Only a builder without these two sizes fails, and they are set above.
            Err(_) => Cache::with(
                items,
                size,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        };
        Self {
            most: (entries.shard_capacity() as f64 * HOT) as u64,
            entries,
            clock,
            size,
            label: label.into(),
        }
    }

    fn answer(&self, op: &Op, now: Moment) -> Reply {
        match op {
            Op::Get { name } => Reply::Entry(self.get(name, now)),
            Op::Set { name, entry, ttl } => self.set(name, entry, *ttl, now),
            Op::Add { name, entry, ttl } => self.add(name, entry, *ttl, now),
            Op::Delete { name } => Reply::Flag(
                self.entries
                    .remove(name)
                    .is_some_and(|(_, held)| held.lives(now)),
            ),
            Op::Incr { name, delta } => self.incr(name, *delta, now),
            Op::Touch { name, ttl } => Reply::Flag(
                self.alter(name, now, |held| {
                    held.expires = ttl.map(|ttl| now.after(ttl))
                })
                .is_some(),
            ),
            Op::Clear { prefix } => Reply::Count(self.clear(prefix, now)),
        }
    }

    fn get(&self, name: &Bytes, now: Moment) -> Option<Stored> {
        let held = self.entries.get(name)?;
        if held.lives(now) {
            let left = held.expires.map(|expires| expires.since(now));
            return Some(Stored::new(held.entry).with_left(left));
        }
        self.entries.remove_if(name, |held| !held.lives(now));
        None
    }

    fn set(&self, name: &Bytes, entry: &Bytes, ttl: Option<Duration>, now: Moment) -> Reply {
        if let Some(refusal) = self.refuse(name, entry) {
            // What is there is out of date all the same.
            self.entries.remove(name);
            return refusal;
        }
        self.entries
            .insert(name.clone(), Held::new(entry, ttl, now));
        Reply::Done
    }

    fn add(&self, name: &Bytes, entry: &Bytes, ttl: Option<Duration>, now: Moment) -> Reply {
        if let Some(refusal) = self.refuse(name, entry) {
            return refusal;
        }
        let held = Held::new(entry, ttl, now);
        // A value under the key's lock, or the right to be the first to put one there.
        let found = self.entries.entry(name, None, |_, present| {
            let free = !present.lives(now);
            if free {
                *present = held.clone();
            }
            EntryAction::<bool>::Retain(free)
        });
        Reply::Flag(match found {
            EntryResult::Retained(added) => added,
            EntryResult::Vacant(guard) => guard.insert(held).is_ok(),
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => false,
        })
    }

    fn incr(&self, name: &Bytes, delta: i64, now: Moment) -> Reply {
        let sum = self.alter(name, now, |held| {
            let sum = entry::integer(&held.entry)
                .ok_or("does not hold an integer")?
                .checked_add(delta)
                .ok_or("would leave the range of 64 bits")?;
            held.entry = Bytes::from(sum.to_string());
            Ok(sum)
        });
        match sum {
            None => Reply::Number(None),
            Some(Ok(sum)) => Reply::Number(Some(sum)),
            Some(Err(why)) => Reply::Failed(super::not_a_number(name, why)),
        }
    }

    /// Changes a living entry in place, under its lock.
    fn alter<T>(
        &self,
        name: &Bytes,
        now: Moment,
        change: impl FnOnce(&mut Held) -> T,
    ) -> Option<T> {
        let found = self.entries.entry(name, None, |_, held| {
            if held.lives(now) {
                EntryAction::Retain(change(held))
            } else {
                EntryAction::Remove
            }
        });
        match found {
            EntryResult::Retained(changed) => Some(changed),
            _ => None,
        }
    }

    fn clear(&self, prefix: &Bytes, now: Moment) -> u64 {
        let removed = std::cell::Cell::new(0);
        self.entries.retain(|name, held| {
            let stays = !name.starts_with(prefix);
            removed.set(removed.get() + u64::from(!stays && held.lives(now)));
            stays
        });
        removed.get()
    }

    fn refuse(&self, name: &Bytes, entry: &Bytes) -> Option<Reply> {
        let (weight, most) = (weigh(name, entry), self.most);
        (weight > most).then(|| {
            Reply::Failed(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the entry of {:?} takes {weight} bytes and {} holds none above {most}; give the store a larger size= or cache less at once",
                    crate::key::display(name),
                    self.label
                ),
            ))
        })
    }
}

impl Held {
    fn new(entry: &Bytes, ttl: Option<Duration>, now: Moment) -> Self {
        Self {
            entry: entry.clone(),
            expires: ttl.map(|ttl| now.after(ttl)),
        }
    }

    fn lives(&self, now: Moment) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Store for Memory {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        let now = self.clock.now();
        let replies: Replies = trip.ops().iter().map(|op| self.answer(op, now)).collect();
        Exchange::Ready(replies)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

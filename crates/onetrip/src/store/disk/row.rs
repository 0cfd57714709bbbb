//! How entries lie in the file: one tree, with three kinds of rows.
//!
//! ```text
//! 'e' name                 -> header, entry
//! 'l' start, digest        -> header, name, entry    names beyond what LMDB takes for a key
//! 'q' place                -> key of the row above   in the order in which names came
//! 'x' time, place          -> nothing                in the order in which they expire
//! ```
//!
//! Numbers in keys are big-endian, so that they sort. An entry keeps its place while it is
//! written over, and the row of its expiry stays where it is while the entry only lives longer:
//! the header says under which time that row is, and eviction puts it right when it gets there.
//! Writing over an entry therefore touches one row.

use std::io::{self, Write};
use std::time::Duration;

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

/// The key of a row. Most fit without allocation.
pub(super) type Key = SmallVec<[u8; 96]>;

/// The expiry of what does not expire.
pub(super) const NEVER: u64 = u64::MAX;

const ENTRY: u8 = b'e';
const LONG: u8 = b'l';
const QUEUE: u8 = b'q';
const EXPIRY: u8 = b'x';

/// LMDB's longest key.
const LONGEST_KEY: usize = 511;
const DIGEST: usize = 32;
const NUMBER: usize = size_of::<u64>();

/// The longest name that is a key as it is.
const LONGEST_NAME: usize = LONGEST_KEY - 1;

/// How much of a longer name its key begins with.
const START: usize = LONGEST_KEY - 1 - DIGEST;

/// What stands in front of an entry. Times are microseconds of the wall clock, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its place in the queue.
    pub(super) place: u64,
    /// When it ends, or [`NEVER`].
    pub(super) expires: u64,
    /// The time of its row among the expiries, never later than `expires`; [`NEVER`] if it has
    /// none.
    pub(super) listed: u64,
}

impl Header {
    pub(super) const SIZE: usize = 3 * NUMBER + size_of::<u32>();

    pub(super) fn lives(&self, now: u64) -> bool {
        now < self.expires
    }

    /// Returns how long a living entry has left; `None` if it does not expire.
    pub(super) fn left(&self, now: u64) -> Option<Duration> {
        (self.expires != NEVER).then(|| Duration::from_micros(self.expires.saturating_sub(now)))
    }

    /// Writes the header, in front of a name of `name` bytes.
    pub(super) fn write(&self, name: u32, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.place.to_le_bytes())?;
        to.write_all(&self.expires.to_le_bytes())?;
        to.write_all(&self.listed.to_le_bytes())?;
        to.write_all(&name.to_le_bytes())
    }
}

/// A row of an entry, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) header: Header,
    /// The name, where the key is only its digest; else empty.
    pub(super) name: &'a [u8],
    pub(super) entry: &'a [u8],
}

impl<'a> Row<'a> {
    /// What `value` holds; `None` if it is no record.
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let (place, rest) = value.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (listed, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let name = usize::try_from(u32::from_le_bytes(*name)).ok()?;
        let (name, entry) = rest.split_at_checked(name)?;
        let header = Header {
            place: u64::from_le_bytes(*place),
            expires: u64::from_le_bytes(*expires),
            listed: u64::from_le_bytes(*listed),
        };
        Some(Self {
            header,
            name,
            entry,
        })
    }

    /// Whether it is the entry of `name`, and not of another with the same digest.
    pub(super) fn is_of(&self, name: &[u8]) -> bool {
        self.name == kept(name)
    }
}

/// The part of `name` that is kept in the value: all of it, where the key is only a digest.
pub(super) fn kept(name: &[u8]) -> &[u8] {
    if name.len() > LONGEST_NAME { name } else { &[] }
}

/// The key of the entry of `name`.
pub(super) fn entry_key(name: &[u8]) -> Key {
    let mut key = Key::new();
    match name.get(..START) {
        Some(start) if name.len() > LONGEST_NAME => {
            key.push(LONG);
            key.extend_from_slice(start);
            key.extend_from_slice(&Sha256::digest(name));
        }
        _ => {
            key.push(ENTRY);
            key.extend_from_slice(name);
        }
    }
    key
}

/// What the keys of entries begin with whose names begin with `prefix`. Where the second is cut
/// short, the name kept in the value decides.
pub(super) fn entries_under(prefix: &[u8]) -> [Key; 2] {
    let short = prefix.get(..LONGEST_NAME).unwrap_or(prefix);
    let long = prefix.get(..START).unwrap_or(prefix);
    [(ENTRY, short), (LONG, long)].map(|(kind, start)| {
        let mut key = Key::new();
        key.push(kind);
        key.extend_from_slice(start);
        key
    })
}

/// The name of the entry at `key`.
pub(super) fn name_of<'a>(key: &'a [u8], record: &Row<'a>) -> &'a [u8] {
    match key.split_first() {
        Some((&ENTRY, name)) => name,
        _ => record.name,
    }
}

/// The key of `place` in the queue.
pub(super) fn queue_key(place: u64) -> Key {
    let mut key = Key::new();
    key.push(QUEUE);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// The first key behind the queue.
pub(super) const BEHIND_QUEUE: &[u8] = &[QUEUE + 1];

/// The place that a key of the queue is of; `None` if it is another key.
pub(super) fn place(key: &[u8]) -> Option<u64> {
    let (&kind, place) = key.split_first()?;
    (kind == QUEUE)
        .then(|| place.try_into().ok().map(u64::from_be_bytes))
        .flatten()
}

/// The key of the expiry of what has this `place`.
pub(super) fn expiry_key(expires: u64, place: u64) -> Key {
    let mut key = Key::new();
    key.push(EXPIRY);
    key.extend_from_slice(&expires.to_be_bytes());
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// The first key of the expiries.
pub(super) const EXPIRIES: &[u8] = &[EXPIRY];

/// The time and the place that a key of an expiry is of; `None` if it is another key.
pub(super) fn expiry(key: &[u8]) -> Option<(u64, u64)> {
    let (&kind, rest) = key.split_first()?;
    let (time, place) = rest.split_first_chunk()?;
    (kind == EXPIRY)
        .then(|| place.try_into().ok().map(u64::from_be_bytes))
        .flatten()
        .map(|place| (u64::from_be_bytes(*time), place))
}

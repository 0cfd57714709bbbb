//! What each operation does to the rows of the file, within one transaction.

use std::io::Write;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use heed::{RoTxn, RwTxn};

use super::environment::Tree;
use super::evict::Room;
use super::row::{self, Header, Key, NEVER, Row};
use crate::entry;
use crate::error::{Error, ErrorKind};
use crate::key;
use crate::trip::{Op, Reply, Stored};

/// How many entries a clear finds before it removes them: what it holds in memory meanwhile.
const SWEEP: usize = 1024;

/// The entries of one file, at one moment.
#[derive(Debug)]
pub(super) struct Entries<'e> {
    pub(super) tree: Tree,
    pub(super) room: &'e Room,
    /// The wall clock, in microseconds since 1970.
    pub(super) now: u64,
    pub(super) label: &'e str,
}

impl Entries<'_> {
    /// Reads the living entry of `name`. Nothing is written, not even that it was read.
    pub(super) fn get(&self, txn: &RoTxn<'_>, name: &[u8]) -> heed::Result<Option<Stored>> {
        let key = row::entry_key(name);
        let Some(record) = self.living(txn, &key, name)? else {
            return Ok(None);
        };
        let stored = Stored::new(Bytes::copy_from_slice(record.entry));
        self.room.used(&key);
        Ok(Some(stored.with_left(record.header.left(self.now))))
    }

    /// Carries out any operation.
    pub(super) fn answer(&self, txn: &mut RwTxn<'_>, op: &Op) -> heed::Result<Reply> {
        Ok(match op {
            Op::Get { name } => Reply::Entry(self.get(txn, name)?),
            Op::Set { name, entry, ttl } => match self.refuse(name, entry) {
                Some(refusal) => {
                    // What is there is out of date all the same.
                    self.delete(txn, name)?;
                    refusal
                }
                None => {
                    self.write(txn, name, entry, self.end(*ttl))?;
                    Reply::Done
                }
            },
            Op::Add { name, entry, ttl } => {
                let key = row::entry_key(name);
                if self.living(txn, &key, name)?.is_some() {
                    Reply::Flag(false)
                } else if let Some(refusal) = self.refuse(name, entry) {
                    refusal
                } else {
                    self.write(txn, name, entry, self.end(*ttl))?;
                    Reply::Flag(true)
                }
            }
            Op::Delete { name } => Reply::Flag(self.delete(txn, name)?),
            Op::Incr { name, delta } => self.incr(txn, name, *delta)?,
            Op::Touch { name, ttl } => {
                let key = row::entry_key(name);
                let entry = self.living(txn, &key, name)?;
                match entry.map(|record| record.entry.to_vec()) {
                    None => Reply::Flag(false),
                    Some(entry) => {
                        self.write(txn, name, &entry, self.end(*ttl))?;
                        Reply::Flag(true)
                    }
                }
            }
            Op::Clear { prefix } => Reply::Count(self.clear(txn, prefix)?),
        })
    }

    fn end(&self, ttl: Option<Duration>) -> u64 {
        let micros = |ttl: std::time::Duration| u64::try_from(ttl.as_micros()).unwrap_or(NEVER);
        ttl.map_or(NEVER, |ttl| self.now.saturating_add(micros(ttl)))
    }

    fn living<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        key: &Key,
        name: &[u8],
    ) -> heed::Result<Option<Row<'t>>> {
        let record = self.tree.get(txn, key)?.and_then(Row::read);
        Ok(record.filter(|record| record.is_of(name) && record.header.lives(self.now)))
    }

    /// Writes an entry over whatever is there.
    fn write(
        &self,
        txn: &mut RwTxn<'_>,
        name: &[u8],
        entry: &[u8],
        expires: u64,
    ) -> heed::Result<()> {
        let key = row::entry_key(name);
        self.room
            .make(self.tree, txn, weigh(name, entry), self.now)?;
        let present = self.tree.get(txn, &key)?.and_then(Row::read);
        let present = present.map(|record| record.header);
        let place = match present {
            Some(header) => header.place,
            None => self.next_place(txn)?,
        };
        let mut header = Header {
            place,
            expires,
            listed: present.map_or(NEVER, |header| header.listed),
        };
        if expires < header.listed {
            if header.listed != NEVER {
                let row = row::expiry_key(header.listed, place);
                self.tree.delete(txn, &row)?;
            }
            self.tree.put(txn, &row::expiry_key(expires, place), &[])?;
            header.listed = expires;
        }
        put(self.tree, txn, &key, header, row::kept(name), entry)?;
        if present.is_some() {
            self.room.used(&key);
            Ok(())
        } else {
            self.tree.put(txn, &row::queue_key(place), &key)
        }
    }

    /// The place behind all others.
    fn next_place(&self, txn: &RoTxn<'_>) -> heed::Result<u64> {
        let last = self.tree.get_lower_than(txn, row::BEHIND_QUEUE)?;
        let last = last.and_then(|(key, _)| row::place(key));
        Ok(last.map_or(0, |place| place.saturating_add(1)))
    }

    /// Removes the entry of `name`. Whether it lived.
    fn delete(&self, txn: &mut RwTxn<'_>, name: &[u8]) -> heed::Result<bool> {
        let key = row::entry_key(name);
        let record = self.tree.get(txn, &key)?.and_then(Row::read);
        let Some(header) = record
            .filter(|record| record.is_of(name))
            .map(|record| record.header)
        else {
            return Ok(false);
        };
        remove(self.tree, txn, &key, header)?;
        Ok(header.lives(self.now))
    }

    fn incr(&self, txn: &mut RwTxn<'_>, name: &Bytes, delta: i64) -> heed::Result<Reply> {
        let key = row::entry_key(name);
        let Some(record) = self.living(txn, &key, name)? else {
            return Ok(Reply::Number(None));
        };
        let expires = record.header.expires;
        let sum = entry::integer(record.entry)
            .ok_or("does not hold an integer")
            .and_then(|number| {
                let sum = number.checked_add(delta);
                sum.ok_or("would leave the range of 64 bits")
            });
        Ok(match sum {
            Err(why) => Reply::Failed(super::super::not_a_number(name, why)),
            Ok(sum) => {
                self.write(txn, name, sum.to_string().as_bytes(), expires)?;
                Reply::Number(Some(sum))
            }
        })
    }

    fn clear(&self, txn: &mut RwTxn<'_>, prefix: &[u8]) -> heed::Result<u64> {
        let mut cleared = 0;
        for start in row::entries_under(prefix) {
            let mut from = Bound::Included(start.clone());
            loop {
                let (found, last) = self.find(txn, prefix, &start, from.as_ref())?;
                for (key, header) in &found {
                    remove(self.tree, txn, key, *header)?;
                    cleared += u64::from(header.lives(self.now));
                }
                match last {
                    Some(last) => from = Bound::Excluded(last),
                    None => break,
                }
            }
        }
        Ok(cleared)
    }

    /// Some entries whose names begin with `prefix`, among the rows that begin with `start`; and
    /// the last row that was looked at, unless it was the last of all.
    #[expect(clippy::type_complexity, reason = "used once, two lines above")]
    fn find(
        &self,
        txn: &RoTxn<'_>,
        prefix: &[u8],
        start: &Key,
        from: Bound<&Key>,
    ) -> heed::Result<(Vec<(Key, Header)>, Option<Key>)> {
        let mut found = Vec::new();
        let range = (from.map(|key| &key[..]), Bound::Unbounded);
        for row in self.tree.range(txn, &range)? {
            let (key, value) = row?;
            if !key.starts_with(start) {
                break;
            }
            if let Some(record) = Row::read(value)
                && row::name_of(key, &record).starts_with(prefix)
            {
                found.push((Key::from_slice(key), record.header));
            }
            if found.len() == SWEEP {
                return Ok((found, Some(Key::from_slice(key))));
            }
        }
        Ok((found, None))
    }

    fn refuse(&self, name: &[u8], entry: &[u8]) -> Option<Reply> {
        let (weight, most) = (weigh(name, entry), self.room.largest());
        (weight > most).then(|| {
            Reply::Failed(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the entry of {:?} takes {weight} bytes and {} holds none above {most}; give the store a larger size= or cache less at once",
                    key::display(name),
                    self.label
                ),
            ))
        })
    }
}

/// The bytes of the row of an entry.
fn weigh(name: &[u8], entry: &[u8]) -> usize {
    row::entry_key(name).len() + Header::SIZE + row::kept(name).len() + entry.len()
}

/// Writes the row of an entry, straight into its page.
pub(super) fn put(
    tree: Tree,
    txn: &mut RwTxn<'_>,
    key: &Key,
    header: Header,
    name: &[u8],
    entry: &[u8],
) -> heed::Result<()> {
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let size = Header::SIZE + name.len() + entry.len();
    tree.put_reserved(txn, key, size, |space| {
        header.write(length, space)?;
        space.write_all(name)?;
        space.write_all(entry)
    })
}

/// Removes an entry and its rows in the queue and among the expiries.
pub(super) fn remove(
    tree: Tree,
    txn: &mut RwTxn<'_>,
    key: &[u8],
    header: Header,
) -> heed::Result<()> {
    tree.delete(txn, key)?;
    tree.delete(txn, &row::queue_key(header.place))?;
    if header.listed != NEVER {
        tree.delete(txn, &row::expiry_key(header.listed, header.place))?;
    }
    Ok(())
}

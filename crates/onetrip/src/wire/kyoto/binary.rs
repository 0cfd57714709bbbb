//! The binary protocol: many records in one request. Numbers are big-endian.
//!
//! ```text
//! get_bulk     BA, flags u32, count u32, then for each: db u16, length u32, name
//!     answers  BA, count u32, then for each: db u16, lengths u32 u32, expiry i64, name, value
//! set_bulk     B8, flags u32, count u32, then for each: db u16, lengths u32 u32, expiry i64, name, value
//!     answers  B8, count u32
//! remove_bulk  B9, flags u32, count u32, then for each: db u16, length u32, name
//!     answers  B9, count u32
//! ```
//!
//! The only flag asks for no answer, and is not used. BF alone may answer any request: it failed.
//! The server silently skips databases that do not exist.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use super::{Input, MAX_DATA, ServerReply, Stop};

const GET_BULK: u8 = 0xBA;
pub(super) const SET_BULK: u8 = 0xB8;
pub(super) const REMOVE_BULK: u8 = 0xB9;
const ERROR: u8 = 0xBF;

/// Expiry of a request for a record that never expires, as the server's own clients write it.
pub(crate) const NEVER: i64 = i64::MAX;

/// Expiry from which on an answered record never expires: it has 40 bits.
pub(crate) const NEVER_SEEN: i64 = (1 << 40) - 1;

/// Size of a request's header: kind, flags, number of records.
const HEAD: usize = 1 + 4 + 4;

/// Size of a name's header: database and length.
const NAME_HEAD: usize = 2 + 4;

/// Size of a record's header: database, two lengths, expiry.
const RECORD_HEAD: usize = 2 + 4 + 4 + 8;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BulkRecord {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
    /// Expiry in seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) db: u16,
}

/// A partly read answer to get_bulk.
#[derive(Debug)]
pub(super) struct Partial {
    count: usize,
    records: Vec<BulkRecord>,
}

/// A record to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Expiry in seconds from now.
    pub(crate) expires: i64,
}

/// Asks for the records called `names`.
pub(crate) fn get_bulk<'a>(
    out: &mut Vec<u8>,
    db: u16,
    names: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) {
    names_bulk(out, GET_BULK, db, names);
}

/// Asks to remove the records called `names`.
pub(crate) fn remove_bulk<'a>(
    out: &mut Vec<u8>,
    db: u16,
    names: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) {
    names_bulk(out, REMOVE_BULK, db, names);
}

fn names_bulk<'a>(
    out: &mut Vec<u8>,
    magic: u8,
    db: u16,
    names: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) {
    let sizes = names.clone().map(|name| NAME_HEAD + name.len());
    out.reserve(HEAD + sizes.sum::<usize>());
    head(out, magic, names.len());
    for name in names {
        out.extend_from_slice(&db.to_be_bytes());
        out.extend_from_slice(&size(name.len()));
        out.extend_from_slice(name);
    }
}

/// Asks to write `records` over whatever was there.
pub(crate) fn set_bulk<'a>(
    out: &mut Vec<u8>,
    db: u16,
    records: impl ExactSizeIterator<Item = NewRecord<'a>> + Clone,
) {
    let sizes = records
        .clone()
        .map(|record| RECORD_HEAD + record.name.len() + record.value.len());
    out.reserve(HEAD + sizes.sum::<usize>());
    head(out, SET_BULK, records.len());
    for record in records {
        out.extend_from_slice(&db.to_be_bytes());
        out.extend_from_slice(&size(record.name.len()));
        out.extend_from_slice(&size(record.value.len()));
        out.extend_from_slice(&record.expires.to_be_bytes());
        out.extend_from_slice(record.name);
        out.extend_from_slice(record.value);
    }
}

fn head(out: &mut Vec<u8>, magic: u8, count: usize) {
    out.push(magic);
    out.extend(0_u32.to_be_bytes());
    out.extend(size(count));
}

/// Encodes a size. None is above [`MAX_DATA`]: callers check.
fn size(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads the answer to a set_bulk or a remove_bulk of `asked` records.
pub(super) fn count(input: &mut Input<'_>, magic: u8, asked: usize) -> Result<ServerReply, Stop> {
    if !begins(input, magic)? {
        return Ok(ServerReply::Refused);
    }
    Ok(ServerReply::Count(number(input, asked)?))
}

/// Reads the answer to a get_bulk of `asked` names, from where the last call stopped.
pub(super) fn records(
    input: &mut Input<'_>,
    asked: usize,
    partial: &mut Option<Partial>,
) -> Result<ServerReply, Stop> {
    let mut so_far = match partial.take() {
        Some(partial) => partial,
        None => {
            let mut ahead = Input::new(input.buffer, input.at);
            if !begins(&mut ahead, GET_BULK)? {
                input.at = ahead.at;
                return Ok(ServerReply::Refused);
            }
            let count = number(&mut ahead, asked)?;
            input.at = ahead.at;
            Partial {
                count,
                records: Vec::with_capacity(count),
            }
        }
    };
    while so_far.records.len() < so_far.count {
        match record(&mut Input::new(input.buffer, input.at)) {
            Ok(record) => {
                input.at = record.value.end;
                so_far.records.push(record);
            }
            Err(stop) => {
                *partial = Some(so_far);
                return Err(stop);
            }
        }
    }
    Ok(ServerReply::Records(so_far.records))
}

fn record(input: &mut Input<'_>) -> Result<BulkRecord, Stop> {
    let db = u16::from_be_bytes(input.array()?);
    let (name, value) = (length(input)?, length(input)?);
    let expires = i64::from_be_bytes(input.array()?);
    // Both together, so that the number of missing bytes is exact.
    let both = input.take(name + value)?;
    Ok(BulkRecord {
        name: both.start..both.start + name,
        value: both.start + name..both.end,
        expires,
        db,
    })
}

/// Returns whether an answer begins as expected; `false` if it reports a failure.
fn begins(input: &mut Input<'_>, magic: u8) -> Result<bool, Stop> {
    match input.array()? {
        [first] if first == magic => Ok(true),
        [ERROR] => Ok(false),
        _ => Err(Stop::Nonsense("the answer to another request")),
    }
}

/// Reads a number of records, at most `asked`. A negative one counts as too many.
fn number(input: &mut Input<'_>, asked: usize) -> Result<usize, Stop> {
    let number = u32::from_be_bytes(input.array()?);
    usize::try_from(number)
        .ok()
        .filter(|number| *number <= asked)
        .ok_or(Stop::Nonsense("more records than were asked for"))
}

/// Reads a length. A negative one counts as too long.
fn length(input: &mut Input<'_>) -> Result<usize, Stop> {
    let length = u32::from_be_bytes(input.array()?);
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_DATA)
        .ok_or(Stop::Nonsense("a record over 256 MiB"))
}

/// The record of one name: its value and its expiry. `None` if there is none.
pub(crate) type Held = Option<(Bytes, i64)>;

/// Returns what `records`, read from `buffer`, hold for each of `names`, in the order of the names.
/// A name given twice is answered twice.
///
/// # Errors
///
/// [`Stop::Nonsense`] if there is a record that was not asked for.
pub(crate) fn matched<'a>(
    db: u16,
    names: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    buffer: &Bytes,
    records: Vec<BulkRecord>,
) -> Result<Vec<Held>, Stop> {
    let name_of = |record: &BulkRecord| buffer.get(record.name.clone()).unwrap_or_default();
    let held = |record: BulkRecord| (buffer.slice(record.value), record.expires);
    if records.iter().any(|record| record.db != db) {
        return Err(Stop::Nonsense("a record of another database"));
    }
    // The server answers in the order of the names, though nothing guarantees it.
    let mut rest = records.into_iter().peekable();
    let mut answers: Vec<Held> = names
        .clone()
        .map(|name| rest.next_if(|record| name_of(record) == name).map(held))
        .collect();
    if rest.peek().is_none() {
        return Ok(answers);
    }
    let mut others: HashMap<&[u8], Vec<BulkRecord>> = HashMap::new();
    for record in rest {
        others.entry(name_of(&record)).or_default().push(record);
    }
    for (name, answer) in names.zip(&mut answers) {
        if answer.is_none() {
            *answer = others.get_mut(name).and_then(Vec::pop).map(held);
        }
    }
    if others.values().all(Vec::is_empty) {
        Ok(answers)
    } else {
        Err(Stop::Nonsense("a record that was not asked for"))
    }
}

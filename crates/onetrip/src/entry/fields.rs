//! What an entry tells beside its value: fields, each of which may be missing.
//!
//! ```text
//! length of the list      1 to 4 bytes
//! for each field, in ascending order of the ids:
//!     id                  1 byte
//!     length              1 to 4 bytes
//!     value
//! ```
//!
//! Readers skip a field whose id they do not know, unless it is 128 or more: then they refuse the
//! entry. Lengths have seven bits in each byte, the lowest first; the high bit says that another
//! byte follows (LEB128).

use std::time::Duration;

use bytes::Bytes;

use super::BadEntry;

const END: u8 = 1;
const MADE: u8 = 2;
const FRESH_UNTIL: u8 = 3;
const COST: u8 = 4;
const TAGS: u8 = 128;

/// From this id on, readers refuse what they do not know: it changes what the entry means.
const REFUSED: u8 = 128;

/// Bytes of a number, the lowest first.
const NUMBER: usize = 8;

/// The facts that an entry tells beside its value. A missing one takes no byte.
///
/// Times are spans since 1970 began (UTC), in whole milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fields {
    /// When the value ends. The store removes it then; this tells those who hold it meanwhile.
    pub end: Option<Duration>,
    /// When the value was made.
    pub made: Option<Duration>,
    /// Until when the value is fresh. From then until its end it is stale.
    pub fresh_until: Option<Duration>,
    /// How long it took to make the value, in whole microseconds.
    pub cost: Option<Duration>,
    /// The tags that the entry stands under.
    pub tags: Vec<Tag>,
}

/// A tag, at the version that it had before the value was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The name of the tag.
    pub name: Bytes,
    /// A random number. An entry whose tag has another version by now is a miss.
    pub version: u64,
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        let times = [self.end, self.made, self.fresh_until, self.cost];
        times.iter().all(Option::is_none) && self.tags.is_empty()
    }

    fn numbers(&self) -> [(u8, Option<u64>); 4] {
        [
            (END, self.end.map(millis)),
            (MADE, self.made.map(millis)),
            (FRESH_UNTIL, self.fresh_until.map(millis)),
            (COST, self.cost.map(micros)),
        ]
    }

    /// Appends the list of fields, its length in front.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let numbers = self.numbers();
        let given = numbers.iter().filter(|(_, number)| number.is_some());
        let tags: usize = self.tags.iter().map(Tag::size).sum();
        let with_tags = match tags {
            0 => 0,
            tags => 1 + length_size(tags) + tags,
        };
        write_length(out, given.count() * (2 + NUMBER) + with_tags);
        for (id, number) in numbers {
            if let Some(number) = number {
                out.push(id);
                write_length(out, NUMBER);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        if tags > 0 {
            out.push(TAGS);
            write_length(out, tags);
            for tag in &self.tags {
                write_length(out, tag.name.len());
                out.extend_from_slice(&tag.name);
                out.extend_from_slice(&tag.version.to_le_bytes());
            }
        }
    }

    /// Reads a list that was [checked](check). `name` makes the name of a tag.
    pub(super) fn read(list: &[u8], name: impl Fn(&[u8]) -> Bytes) -> Self {
        let mut fields = Self::default();
        let mut rest = list;
        while let Ok(Some((id, value))) = next(&mut rest) {
            match id {
                END => fields.end = number(value).map(Duration::from_millis),
                MADE => fields.made = number(value).map(Duration::from_millis),
                FRESH_UNTIL => fields.fresh_until = number(value).map(Duration::from_millis),
                COST => fields.cost = number(value).map(Duration::from_micros),
                TAGS => {
                    let mut tags = value;
                    while let Ok(Some((tag, version))) = next_tag(&mut tags) {
                        fields.tags.push(Tag {
                            name: name(tag),
                            version,
                        });
                    }
                }
                _ => {}
            }
        }
        fields
    }
}

impl Tag {
    fn size(&self) -> usize {
        length_size(self.name.len()) + self.name.len() + NUMBER
    }
}

/// Splits what is behind the seal into the list of fields and the payload.
pub(super) fn split(body: &[u8]) -> Result<(&[u8], &[u8]), BadEntry> {
    let mut rest = body;
    let length = length(&mut rest)?;
    rest.split_at_checked(length).ok_or(BadEntry::CutShort)
}

/// Refuses a list that is not as it has to be. What it tells is not read.
pub(super) fn check(list: &[u8]) -> Result<(), BadEntry> {
    let mut rest = list;
    let mut last = 0;
    while let Some((id, value)) = next(&mut rest)? {
        // In ascending order, so each once at most.
        if id <= last {
            return Err(BadEntry::Foreign);
        }
        last = id;
        match id {
            END | MADE | FRESH_UNTIL | COST if value.len() != NUMBER => {
                return Err(BadEntry::Foreign);
            }
            TAGS => {
                let mut tags = value;
                while next_tag(&mut tags)?.is_some() {}
            }
            id if id >= REFUSED => return Err(BadEntry::Foreign),
            _ => {}
        }
    }
    Ok(())
}

/// Returns when the value ends, from a list that was [checked](check).
pub(super) fn end(list: &[u8]) -> Option<Duration> {
    // It has the lowest id.
    match next(&mut &*list) {
        Ok(Some((END, value))) => number(value).map(Duration::from_millis),
        _ => None,
    }
}

/// Takes the next field off `rest`.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, BadEntry> {
    let Some((id, behind)) = rest.split_first() else {
        return Ok(None);
    };
    *rest = behind;
    let length = length(rest)?;
    Ok(Some((*id, take(rest, length)?)))
}

/// Takes the next tag off `rest`.
fn next_tag<'a>(rest: &mut &'a [u8]) -> Result<Option<(&'a [u8], u64)>, BadEntry> {
    if rest.is_empty() {
        return Ok(None);
    }
    let length = length(rest)?;
    let name = take(rest, length)?;
    let version = number(take(rest, NUMBER)?).ok_or(BadEntry::CutShort)?;
    Ok(Some((name, version)))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadEntry> {
    let (taken, behind) = rest.split_at_checked(length).ok_or(BadEntry::CutShort)?;
    *rest = behind;
    Ok(taken)
}

fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// Takes a length off `rest`.
fn length(rest: &mut &[u8]) -> Result<usize, BadEntry> {
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, behind) = rest.split_first().ok_or(BadEntry::CutShort)?;
        *rest = behind;
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(BadEntry::Foreign)
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7F {
        out.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn length_size(length: usize) -> usize {
    let mut size = 1;
    let mut rest = length >> 7;
    while rest > 0 {
        size += 1;
        rest >>= 7;
    }
    size
}

// Not by `as_millis` and `as_micros`, since arithmetic of 128 bits is slow.
fn millis(span: Duration) -> u64 {
    let millis = span.as_secs().saturating_mul(1000);
    millis.saturating_add(u64::from(span.subsec_millis()))
}

fn micros(span: Duration) -> u64 {
    let micros = span.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(u64::from(span.subsec_micros()))
}

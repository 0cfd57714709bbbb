//! The bytes of one cached value: a small versioned header and the encoded value.
//!
//! ```text
//! 0    magic, 0xC1: no MessagePack, no UTF-8 and no number begins so
//! 1    version, 2
//! 2    kind of the payload (low four bits), compression (high four bits)
//! 3    flags: bit 0 set when signed, bit 1 when it tells fields; the others are clear
//! 4…   seal: XXH3 (8 bytes), or HMAC-SHA256 (32 bytes) when signed
//! …    the fields, if there are any: when its value ends, and more
//! …    payload
//! ```
//!
//! The seal covers the entry's name, so that a value that was answered to the wrong question is
//! noticed as surely as one that was damaged. An integer of 64 bits alone has no header: it is
//! its decimal digits, because stores add to numbers in that form. `docs/format.md` has the rules
//! in full, and test vectors.

mod fields;
mod seal;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

pub use self::fields::{Fields, Tag};
use self::seal::{CHECKSUM, SIGNATURE, Signer, checksum};
use crate::compress::{self, Compression};

const MAGIC: u8 = 0xC1;
const VERSION: u8 = 2;
const SIGNED: u8 = 1;
/// Whether it tells fields.
const FIELDS: u8 = 2;
/// Magic, version, content and flags.
const PREAMBLE: usize = 4;

/// What the payload of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Bytes, as they are.
    Bytes,
    /// A string, in UTF-8.
    Str,
    /// A value in MessagePack with the extension types of [`codec::tag`](crate::codec::tag).
    Native,
    /// A Python object, pickled. Opened only where a signature vouches for it.
    Pickle,
    /// An integer of 64 bits, in decimal digits.
    Integer,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Bytes => 0,
            Self::Str => 1,
            Self::Native => 2,
            Self::Pickle => 3,
            Self::Integer => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Bytes,
            1 => Self::Str,
            2 => Self::Native,
            3 => Self::Pickle,
            _ => return None,
        })
    }
}

/// An opened entry: its payload, verified and expanded, and what that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What the payload is.
    pub kind: Kind,
    /// The encoded value.
    pub payload: Bytes,
}

/// Why an entry cannot be opened. To a reader it is a miss, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadEntry {
    /// It is not an entry, or of a version that is not known here.
    Foreign,
    /// It is shorter than its header says.
    CutShort,
    /// Its seal does not fit: damaged, signed with another secret, or of another name.
    Broken,
    /// It is signed and no secret is known here, or is not signed and must be.
    Unsigned,
    /// It is pickled, in a cache that was not told to unpickle.
    Pickled,
    /// Its payload cannot be expanded, would expand to more than is allowed, or needs a codec that
    /// is not built in.
    Inflated,
    /// Its payload is not what the header says, or not of the type asked for.
    Undecodable,
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "not an entry of this version of onetrip",
            Self::CutShort => "cut short",
            Self::Broken => "damaged, signed with another secret, or stored under another key",
            Self::Unsigned => "signed where no secret is set, or not signed where one is",
            Self::Pickled => "pickled, and this cache does not unpickle",
            Self::Inflated => "compressed wrongly, to more than may be expanded, or by a codec that is not built in",
            Self::Undecodable => "not decodable as what was asked for",
        })
    }
}

impl std::error::Error for BadEntry {}

/// Whether the payload of an entry with a header would have to be expanded.
pub(crate) fn is_compressed(entry: &[u8]) -> bool {
    matches!(entry, [MAGIC, VERSION, content, ..] if content >> 4 != 0)
}

/// The name of an entry, in the two parts that its cache knows it by.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The prefix of the keyspace, colon included.
    pub prefix: &'a [u8],
    /// The key.
    pub key: &'a [u8],
}

/// Returns the list of fields of an entry that was [opened](Sealer::open); empty if there is none.
fn fields_of(entry: &[u8]) -> &[u8] {
    let Some(&[MAGIC, VERSION, _, flags]) = entry.first_chunk() else {
        return &[];
    };
    if flags & FIELDS == 0 {
        return &[];
    }
    let header = match flags & SIGNED {
        0 => PREAMBLE + CHECKSUM,
        _ => PREAMBLE + SIGNATURE,
    };
    let list = entry.get(header..).map(fields::split);
    list.and_then(Result::ok)
        .map(|(list, _)| list)
        .unwrap_or_default()
}

/// Returns the payload of a draft that tells fields.
fn payload_of(draft: &[u8], header: usize) -> &[u8] {
    let body = draft.get(header..).unwrap_or_default();
    fields::split(body).map_or(body, |(_, payload)| payload)
}

/// Makes entries and opens them, as the options of one cache say.
#[derive(Clone)]
pub struct Sealer {
    signer: Option<Signer>,
    compression: Option<Compression>,
    compression_min: usize,
    bare: bool,
    pickles: bool,
}

/// Without its secrets.
impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("signs", &self.signer.is_some())
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// A sealer that signs if there are `secrets`, and compresses payloads of `compression_min`
    /// bytes or more.
    #[must_use]
    pub fn new(
        secrets: &[Vec<u8>],
        compression: Option<Compression>,
        compression_min: usize,
    ) -> Self {
        Self {
            signer: Signer::new(secrets),
            compression,
            compression_min,
            bare: false,
            pickles: false,
        }
    }

    /// The same, for a cache that was told to pickle; no other opens what is pickled.
    #[must_use]
    pub fn with_pickle(self) -> Self {
        Self {
            pickles: true,
            ..self
        }
    }

    /// A sealer of entries without a header: the payload is all there is.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            signer: None,
            compression: None,
            compression_min: 0,
            bare: true,
            pickles: false,
        }
    }

    /// Whether entries have no header.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Returns an empty entry that has room for its header and tells `fields`, for an encoder to
    /// append the payload to. Give it to [`seal`](Self::seal).
    ///
    /// An entry without a header tells nothing.
    #[must_use]
    pub fn draft(&self, fields: &Fields) -> Vec<u8> {
        let mut draft = vec![0; self.header()];
        if !self.bare && !fields.is_empty() {
            if let Some(flags) = draft.get_mut(PREAMBLE - 1) {
                *flags = FIELDS;
            }
            fields.write(&mut draft);
        }
        draft
    }

    fn header(&self) -> usize {
        match (&self.signer, self.bare) {
            (_, true) => 0,
            (Some(_), _) => PREAMBLE + SIGNATURE,
            (None, _) => PREAMBLE + CHECKSUM,
        }
    }

    /// Completes a [`draft`](Self::draft) into the entry that is stored as `name`. An integer, which
    /// has no header, tells no fields.
    #[must_use]
    pub fn seal(&self, name: Name<'_>, kind: Kind, mut draft: Vec<u8>) -> Bytes {
        if self.bare {
            return Bytes::from(draft);
        }
        let header = self.header();
        let fields = draft.get(PREAMBLE - 1).copied().unwrap_or_default() & FIELDS;
        let begin = match fields {
            0 => header,
            _ => draft.len() - payload_of(&draft, header).len(),
        };
        if kind == Kind::Integer {
            return Bytes::from(draft).slice(begin..);
        }
        let mut compression = 0;
        if let Some(with) = self.compression {
            let payload = draft.get(begin..).unwrap_or_default();
            if payload.len() >= self.compression_min
                && let Some(smaller) = compress::shrink(with, payload)
            {
                draft.truncate(begin);
                draft.extend_from_slice(&smaller);
                compression = with.code();
            }
        }
        let signed = if self.signer.is_some() { SIGNED } else { 0 };
        let content = kind.code() | compression << 4;
        let preamble = [MAGIC, VERSION, content, signed | fields];
        let (head, body) = draft.split_at_mut(header);
        let (front, seal) = head.split_at_mut(PREAMBLE);
        front.copy_from_slice(&preamble);
        match &self.signer {
            Some(signer) => {
                if let Some(signature) = signer.sign(name, &preamble, body) {
                    seal.copy_from_slice(&signature);
                }
            }
            None => seal.copy_from_slice(&checksum(name, preamble, body)),
        }
        Bytes::from(draft)
    }

    /// Returns what `entry` tells beside its value. It must have been [opened](Self::open).
    #[must_use]
    pub fn fields(&self, entry: &Bytes) -> Fields {
        if self.bare {
            return Fields::default();
        }
        Fields::read(fields_of(entry), |name| entry.slice_ref(name))
    }

    /// Returns when the value of `entry` ends, as [`fields`](Self::fields) tells it.
    pub(crate) fn end(&self, entry: &[u8]) -> Option<Duration> {
        if self.bare {
            return None;
        }
        fields::end(fields_of(entry))
    }

    /// Opens what was stored as `name`. Whether the payload is what its kind says, UTF-8 for
    /// one, is left to whoever decodes it.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it, so that it can be counted; the reader sees a miss.
    pub fn open(&self, name: Name<'_>, entry: &Bytes) -> Result<Content, BadEntry> {
        if self.bare {
            return Ok(Content {
                kind: Kind::Bytes,
                payload: entry.clone(),
            });
        }
        if integer(entry).is_some() {
            return Ok(Content {
                kind: Kind::Integer,
                payload: entry.clone(),
            });
        }
        let Some(&[MAGIC, VERSION, content, flags]) = entry.first_chunk() else {
            return Err(match entry.first() {
                Some(&MAGIC) if entry.len() < PREAMBLE => BadEntry::CutShort,
                _ => BadEntry::Foreign,
            });
        };
        if flags & !(SIGNED | FIELDS) != 0 {
            return Err(BadEntry::Foreign);
        }
        if (flags & SIGNED != 0) != self.signer.is_some() {
            return Err(BadEntry::Unsigned);
        }
        let preamble = [MAGIC, VERSION, content, flags];
        let rest = entry.get(PREAMBLE..).unwrap_or_default();
        let header = self.header();
        let (seal, body) = rest
            .split_at_checked(header - PREAMBLE)
            .ok_or(BadEntry::CutShort)?;
        let sound = match &self.signer {
            Some(signer) => signer.vouches(name, &preamble, body, seal),
            None => seal == checksum(name, preamble, body),
        };
        if !sound {
            return Err(BadEntry::Broken);
        }
        let kind = Kind::from_code(content & 0x0F).ok_or(BadEntry::Foreign)?;
        if kind == Kind::Pickle {
            if self.signer.is_none() {
                return Err(BadEntry::Unsigned);
            }
            if !self.pickles {
                return Err(BadEntry::Pickled);
            }
        }
        let payload = match flags & FIELDS {
            0 => body,
            _ => {
                let (list, payload) = fields::split(body)?;
                fields::check(list)?;
                payload
            }
        };
        let payload = match content >> 4 {
            0 => entry.slice(entry.len() - payload.len()..),
            code => {
                let compression = Compression::from_code(code).ok_or(BadEntry::Foreign)?;
                let plain = compress::expand(compression, payload).ok_or(BadEntry::Inflated)?;
                Bytes::from(plain)
            }
        };
        Ok(Content { kind, payload })
    }
}

/// The number that an entry without a header is: decimal digits as a store writes them, with no
/// sign but a minus and no leading zero.
#[must_use]
pub fn integer(entry: &[u8]) -> Option<i64> {
    let digits = entry.strip_prefix(b"-").unwrap_or(entry);
    let canonical = match digits {
        [] => false,
        [b'0'] => digits.len() == entry.len(),
        [b'0', ..] => false,
        digits => digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(entry).ok()?.parse().ok()
}

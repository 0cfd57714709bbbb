//! How the keys of a cache are named in its store.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The part of a store that belongs to one cache: every key is named `prefix:key` in it.
///
/// A key is any string of bytes, the empty one included; what a store cannot take (Memcached's
/// 250 bytes, say) is for that store to translate.
#[derive(Clone, Debug)]
pub struct Keyspace {
    prefix: Bytes,
}

impl Keyspace {
    /// The keys under `prefix`; an empty prefix names keys as they are.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let prefix = match prefix {
            "" => Bytes::new(),
            prefix => Bytes::from(format!("{prefix}:")),
        };
        Self { prefix }
    }

    /// The prefix as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        let prefix = self.prefix.strip_suffix(b":").unwrap_or_default();
        std::str::from_utf8(prefix).unwrap_or_default()
    }

    /// What every name in this keyspace begins with.
    #[must_use]
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The names of `keys`, in one piece of memory.
    pub(crate) fn names<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
    ) -> impl Iterator<Item = Bytes> {
        let lengths = keys.clone().map(|key| self.prefix.len() + key.len());
        let mut all = BytesMut::with_capacity(lengths.sum());
        keys.map(move |key| {
            all.extend_from_slice(&self.prefix);
            all.extend_from_slice(key);
            all.split().freeze()
        })
    }

    /// The key that is named `name`.
    pub(crate) fn key(&self, mut name: Bytes) -> Bytes {
        name.advance(self.prefix.len().min(name.len()));
        name
    }

    /// The name of `key` in the store.
    #[must_use]
    pub fn name(&self, key: &[u8]) -> Bytes {
        if self.prefix.is_empty() {
            return Bytes::copy_from_slice(key);
        }
        let mut name = Vec::with_capacity(self.prefix.len() + key.len());
        name.extend_from_slice(&self.prefix);
        name.extend_from_slice(key);
        Bytes::from(name)
    }
}

/// What the prefix of a cache is followed by in the names of its records: what workers tell each
/// other of pages, which is not among its keys.
const RECORDS: &str = "@onetrip";

impl Keyspace {
    /// The part of the store beside this one that holds the records of its cache.
    pub(crate) fn records(&self) -> Self {
        Self::new(&format!("{}{RECORDS}", self.text()))
    }
}

/// Whether a name may be that of a record. A server may permit a user the keys of a cache and
/// refuse its records, so no command asks for both.
#[cfg(feature = "redis")]
pub(crate) fn is_record(name: &[u8]) -> bool {
    // Followed by the colon of its prefix. Few names have an @ at all.
    let mark = RECORDS.as_bytes();
    name.contains(&b'@')
        && name
            .windows(mark.len() + 1)
            .any(|window| window.strip_prefix(mark) == Some(b":"))
}

/// A key as a person reads it: UTF-8 where it is, escapes where it is not, cut at 100 characters.
#[must_use]
pub(crate) fn display(key: &[u8]) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(key);
    let mut shown: String = text.escape_debug().take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// A digest of what a key is made of, as 32 hexadecimal digits: the same in every process, and
/// never the same for two different forms (the first half of SHA-256).
#[must_use]
pub fn digest(form: &[u8]) -> String {
    let digest = Sha256::digest(form);
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_keys() {
        for prefix in ["", "blog", "a@b"] {
            let keys = Keyspace::new(prefix);
            assert!(is_record(&keys.records().name(b"page:home")), "{prefix}");
            assert!(
                !is_record(&keys.name(b"user:me@onetrip.example")),
                "{prefix}"
            );
            assert!(!is_record(&keys.name(b"")), "{prefix}");
        }
    }
}

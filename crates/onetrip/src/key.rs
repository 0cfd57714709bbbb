//! The names of a cache's keys in its store.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The part of a store that belongs to one cache: each key is stored as `prefix:key`.
///
/// A key is any string of bytes, also the empty one. A store with stricter rules, such as the 250
/// bytes of Memcached, translates the names that break them.
#[derive(Clone, Debug)]
pub struct Keyspace {
    prefix: Bytes,
}

impl Keyspace {
    /// Returns the keyspace of `prefix`. With an empty prefix, names are the keys themselves.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let prefix = match prefix {
            "" => Bytes::new(),
            prefix => Bytes::from(format!("{prefix}:")),
        };
        Self { prefix }
    }

    /// Returns the prefix as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        let prefix = self.prefix.strip_suffix(b":").unwrap_or_default();
        std::str::from_utf8(prefix).unwrap_or_default()
    }

    /// Returns the bytes that every name in this keyspace begins with.
    #[must_use]
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// Returns the names of `keys`, in one allocation.
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

    /// Returns the key with this name.
    pub(crate) fn key(&self, mut name: Bytes) -> Bytes {
        name.advance(self.prefix.len().min(name.len()));
        name
    }

    /// Returns the name of `key` in the store.
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

/// Follows a cache's prefix in the names of its records. Workers exchange what they know of pages
/// in records, which are not keys of the cache.
const RECORDS: &str = "@onetrip";

impl Keyspace {
    /// Returns the keyspace of the records of this cache.
    pub(crate) fn records(&self) -> Self {
        Self::new(&format!("{}{RECORDS}", self.text()))
    }
}

/// Returns whether `name` may name a record. A server may allow a user the keys of a cache and
/// refuse its records, so no command asks for both.
#[cfg(feature = "redis")]
pub(crate) fn is_record(name: &[u8]) -> bool {
    // Checks for @ first: few names have one. The colon ends the prefix of the records.
    let mark = RECORDS.as_bytes();
    name.contains(&b'@')
        && name
            .windows(mark.len() + 1)
            .any(|window| window.strip_prefix(mark) == Some(b":"))
}

/// Returns a key in readable form: invalid UTF-8 is replaced, control characters are escaped, and
/// at most 100 characters are shown.
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

/// Returns the digest of a key's canonical `form` as 32 hexadecimal digits: the first half of its
/// SHA-256. It is the same in every process, and differs for different forms.
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

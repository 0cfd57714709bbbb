//! Names as keys that Memcached takes.

use std::borrow::Cow;

use crate::key;
use crate::wire::memcached::MAX_KEY;

/// What a hashed name begins with. A name that begins so itself is hashed as well, so that no two
/// names have the same key.
const HASHED: &str = "onetrip-sha256:";

/// The key of an entry's name: the name itself where it is 1 to 250 visible ASCII characters, and
/// `onetrip-sha256:` with the first 32 hexadecimal digits of its SHA-256 where it is not.
pub(super) fn key(name: &[u8]) -> Cow<'_, [u8]> {
    let fits = (1..=MAX_KEY).contains(&name.len())
        && name.iter().all(u8::is_ascii_graphic)
        && !name.starts_with(HASHED.as_bytes());
    if fits {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("{HASHED}{}", key::digest(name)).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_itself() {
        let longest = vec![b'k'; 250];
        for name in [&b"a"[..], b"blog:note:5", b"!~", &longest] {
            assert_eq!(key(name), name);
        }
    }

    #[test]
    fn what_does_not_fit_is_hashed_the_same_for_ever() {
        let hashed = "onetrip-sha256:e3b0c44298fc1c149afbf4c8996fb924";
        assert_eq!(key(b""), hashed.as_bytes());
        let too_long = vec![b'k'; 251];
        let mut keys = vec![key(b""), key(hashed.as_bytes())];
        for name in [
            &b" "[..],
            b"a b",
            b"a\r\nmn",
            b"\0",
            b"\x7f",
            b"\xff",
            &too_long,
        ] {
            keys.push(key(name));
        }
        for key in &keys {
            assert!(key.starts_with(HASHED.as_bytes()) && key.len() == 47);
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 9);
    }
}

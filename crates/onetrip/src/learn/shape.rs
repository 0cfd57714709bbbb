//! The look of a key: its hash, its shape, and whether it holds a secret.
//!
//! The *shape* of a key has placeholders for numbers and random pieces: `throttle:17` and
//! `throttle:18` have one shape. A *random piece* is a run of at least 16 letters and digits that
//! no person would write: a token, a digest, a UUID.

use super::digest;
use super::template::{Piece, Template};
use super::usage::Usage;

/// Fewest letters and digits of a random piece.
const LONG: usize = 16;

/// Most letters and digits, on average, between two changes of class (lower case, upper case,
/// digits) in random text. Hexadecimal digits change twice in four; words hardly ever.
const DENSE: usize = 6;

/// Returns a number for a key, the same in every process (FNV-1a).
pub(super) fn hash(key: &[u8]) -> u64 {
    let mut hash = Hash::new(key.len() as u64);
    hash.feed(key);
    hash.0
}

/// Returns a number for the shape of a key; `None` if the key is its own shape.
pub(super) fn shape(key: &[u8]) -> Option<u64> {
    if is_bare_digest(key) {
        return None;
    }
    // No key has this length, so a shape collides with a key only by chance.
    let mut hash = Hash::new(u64::MAX);
    let (mut at, mut replaced) = (0, false);
    while let Some(byte) = key.get(at) {
        let starts = byte.is_ascii_alphanumeric()
            && !at
                .checked_sub(1)
                .and_then(|before| key.get(before))
                .is_some_and(u8::is_ascii_alphanumeric);
        let rest = key.get(at..).unwrap_or_default();
        if let Some(length) = starts.then(|| random(rest)).flatten() {
            hash.feed(b"\xff*");
            (at, replaced) = (at + length, true);
        } else if byte.is_ascii_digit() {
            hash.feed(b"\xff#");
            at += rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            replaced = true;
        } else {
            hash.feed(&[*byte]);
            at += 1;
        }
    }
    replaced.then_some(hash.0)
}

struct Hash(u64);

impl Hash {
    fn new(seed: u64) -> Self {
        Self(0xCBF2_9CE4_8422_2325 ^ seed)
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// Returns whether a key names a session, in any case: `django.contrib.sessions.cache…`.
pub(super) fn is_session(key: &[u8]) -> bool {
    const WORD: &[u8] = b"session";
    key.windows(WORD.len())
        .any(|part| part.eq_ignore_ascii_case(WORD))
}

/// Returns whether a key is only a SHA-1 digest, possibly after a version as Django writes it.
///
/// django-cachalot names tables and queries like this, for all visitors alike. Tokens stand after
/// the name of what they open.
pub(super) fn is_bare_digest(key: &[u8]) -> bool {
    let Some((version, digest)) = key
        .len()
        .checked_sub(40)
        .and_then(|at| key.split_at_checked(at))
    else {
        return false;
    };
    digest.iter().all(|byte| is_hex(*byte)) && (version.is_empty() || is_version(version))
}

/// Returns whether `text` ends like `:1:` and has no random piece before that.
fn is_version(text: &[u8]) -> bool {
    let Some(prefix) = text.strip_suffix(b":") else {
        return false;
    };
    let digits = prefix.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let digits = digits.count();
    let prefix = prefix.get(..prefix.len() - digits).unwrap_or_default();
    digits > 0 && prefix.ends_with(b":") && !has_random(prefix)
}

/// Returns whether knowing a key may give access to something: it names a session, or has a random
/// piece that is no argument.
pub(super) fn is_secret(key: &[u8], template: &Template) -> bool {
    is_session(key) || (!is_bare_digest(key) && is_unexplained(template))
}

/// Returns whether workers must not share a key. Pieces may be shared even if they look secret:
/// their names are digests of what they are made of, which give access to nothing.
pub(super) fn is_private(key: &[u8], usage: &Usage) -> bool {
    let is_digest = || {
        digest::find(key).is_some_and(|found| {
            found.end == key.len() && !has_random(key.get(..found.start).unwrap_or_default())
        })
    };
    usage.secret && !(!usage.kinds.is_state() && !is_session(key) && is_digest())
}

/// Returns whether the fixed text of a template may give access to something.
pub(super) fn is_secret_template(template: &Template) -> bool {
    let names_session = template.pieces().iter().any(|piece| match piece {
        Piece::Text(text) => is_session(text),
        Piece::Arg(name) => is_session(name.as_bytes()),
        Piece::Digest { .. } => false,
    });
    let is_bare = match template.pieces() {
        [Piece::Text(text)] => is_bare_digest(text),
        _ => false,
    };
    names_session || (!is_bare && is_unexplained(template))
}

/// Returns whether workers must not share a template.
pub(super) fn is_private_template(template: &Template, usage: &Usage) -> bool {
    match template.pieces() {
        [Piece::Text(key)] => is_private(key, usage),
        _ => usage.secret,
    }
}

fn is_unexplained(template: &Template) -> bool {
    template
        .pieces()
        .iter()
        .any(|piece| matches!(piece, Piece::Text(text) if has_random(text)))
}

/// Returns whether `text` contains a random piece.
pub(super) fn has_random(text: &[u8]) -> bool {
    if text.len() < LONG {
        return false;
    }
    let mut rest = text;
    while let Some(at) = rest.iter().position(u8::is_ascii_alphanumeric) {
        rest = rest.get(at..).unwrap_or_default();
        if random(rest).is_some() {
            return true;
        }
        let word = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        rest = rest.get(word..).unwrap_or_default();
    }
    false
}

/// Returns the length of the random piece that `text` begins with, if any.
///
/// URL-safe base64 and UUIDs contain hyphens and underscores, and so do words: only dense runs are
/// joined.
/// alone are taken together.
fn random(text: &[u8]) -> Option<usize> {
    if is_uuid(text) {
        return Some(36);
    }
    let (mut length, mut letters) = (0, 0);
    while letters < LONG && length < 4 * LONG {
        let rest = text.get(length..).unwrap_or_default();
        let (run, changes) = run(rest);
        // Three letters show nothing; they join what is around them.
        if run == 0 || (run > 3 && changes * DENSE < run) {
            break;
        }
        letters += if changes == 0 { 0 } else { run };
        length += run;
        match text.get(length) {
            Some(b'-' | b'_') => length += 1,
            _ => break,
        }
    }
    // Everything that follows without a break belongs to it.
    let more = text.get(length..).unwrap_or_default().iter();
    let more = more.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    (letters >= LONG).then(|| length + more.count())
}

/// Returns how many letters and digits `text` begins with, and how often their class changes. A
/// capital at the head of a word is one change.
fn run(text: &[u8]) -> (usize, usize) {
    let class = |byte: &u8| match byte {
        b'0'..=b'9' => 0_u8,
        b'a'..=b'z' => 1,
        _ => 2,
    };
    let run = text.iter().take_while(|byte| byte.is_ascii_alphanumeric());
    let (mut count, mut changes, mut last) = (0, 0, None);
    for next in run.map(class) {
        count += 1;
        changes += usize::from(last.is_some_and(|last| last != next && (last, next) != (2, 1)));
        last = Some(next);
    }
    (count, changes)
}

fn is_uuid(text: &[u8]) -> bool {
    let hyphens = [8, 13, 18, 23];
    text.get(..36).is_some_and(|uuid| {
        uuid.iter().enumerate().all(|(at, byte)| {
            if hyphens.contains(&at) {
                *byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        })
    })
}

/// Returns whether this is a hexadecimal digit as digests are written.
pub(super) fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::{Page, Use};

    #[test]
    fn tokens_differ_from_words_and_numbers() {
        for token in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "auth:550e8400-e29b-41d4-a716-446655440000",
            "t:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "k2j8x0q9z7w5v3u1",
            "reset:Zm9vYmFyYmF6cXV4MTIz",
            "x:dGhpcy-2a_lzIGEgdG9r-ZW4x",
        ] {
            assert!(has_random(token.as_bytes()), "{token}");
        }
        for word in [
            "",
            "note_comments_section",
            "django-contrib-messages",
            "migration0042applied",
            "getUserNotificationSettings",
            "tweet:1234567890123456789",
            "user-12-notes-34-page-2-of-7",
            "2024-05-17T12:30:00.000000",
            "configuration.template.cache",
            "a1",
        ] {
            assert!(!has_random(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn keys_that_differ_in_numbers_and_tokens_share_a_shape() {
        let same = |one: &str, other: &str| shape(one.as_bytes()) == shape(other.as_bytes());
        assert!(same("throttle:17", "throttle:18123"));
        assert!(same("v1:10.0.0.7", "v2:192.168.0.1"));
        assert!(same(
            "t:550e8400-e29b-41d4-a716-446655440000:x",
            "t:650e8400-e29b-41d4-a716-446655440001:x"
        ));
        assert!(same(
            "t:9f86d081884c7d659a2feaa0c55ad015",
            "t:2c26b46b68ffc68ff99b453c1d304134"
        ));
        assert!(!same("throttle:17", "counter:17"));
        assert!(!same("a:1:b", "a:1:c"));
        assert_eq!(shape(b"menu"), None);
        assert_ne!(shape(b"a:1"), Some(hash(b"a:1")));
    }

    #[test]
    fn cachalot_table_has_its_own_shape() {
        let table = b":1:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        assert!(is_bare_digest(table) && shape(table).is_none());
        assert!(is_bare_digest(&table[3..]));
        for other in [
            &b"token:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"[..],
            b"2fd4e1c67a2d28fced849ee1bb76e739",
            b":x:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
            b"1:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        ] {
            assert!(!is_bare_digest(other));
        }
    }

    #[test]
    fn explained_random_piece_is_no_secret() {
        let token = "550e8400-e29b-41d4-a716-446655440000";
        let key = format!("note:{token}");
        let page = Page::new("r").arg("id", token);
        let secret = |key: &str, page: &Page| {
            let template = Template::plain(key.as_bytes(), page);
            (
                is_secret(key.as_bytes(), &template),
                is_secret_template(&template),
            )
        };
        assert_eq!(secret(&key, &page), (false, false));
        assert_eq!(secret(&key, &Page::new("r")), (true, true));
        assert_eq!(secret("my_SESSION:5", &page), (true, true));
        assert_eq!(secret("note:5", &page), (false, false));
    }

    #[test]
    fn digests_of_pieces_are_shared_and_tokens_are_not() {
        let private = |key: &str, piece| {
            let used = Use {
                piece,
                reads: u16::from(!piece),
                ..Use::default()
            };
            let template = Template::plain(key.as_bytes(), &Page::new("r"));
            let secret = is_secret(key.as_bytes(), &template);
            is_private(key.as_bytes(), &Usage::first(&used, secret))
        };
        let digest = "9f86d081884c7d659a2feaa0c55ad015";
        assert!(!private(&format!("app.views.menu:{digest}"), true));
        assert!(!private(&format!(":1:template.cache.menu.{digest}"), true));
        assert!(private(&format!("app.views.menu:{digest}"), false));
        assert!(private(&format!("token:{digest}"), true));
        assert!(private(&format!("app.session.menu:{digest}"), true));
    }
}

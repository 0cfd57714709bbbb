//! Keys that contain a digest of a page's arguments.
//!
//! Django names a fragment by the MD5 of what it varies on, and our cached functions put a digest
//! of their arguments in the key. The page's arguments suffice to make the digest: a few
//! combinations are tried once for each new key, and the one that fits becomes part of its
//! template.

use std::ops::Range;

use md5::{Digest as _, Md5};

use super::page::{Arg, Page};
use super::shape::is_hex;

/// Digits of the digests that are recognised.
const DIGITS: usize = 32;

/// Most digests tried for one key, and for all new keys of one visit.
const MAX_HASHES: usize = 64;
pub(super) const MAX_VISIT_HASHES: usize = 2048;

/// Most arguments of a digest.
pub(super) const MAX_ARGS: usize = 3;

/// How a digest is made from arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// MD5 of each value followed by a colon: Django's fragments up to 6.0.
    Colons,
    /// MD5 of each value as a netstring: Django's fragments from 6.1 on.
    Netstrings,
    /// Ours, of named arguments that are texts.
    Texts,
    /// Ours, of named arguments, as integers where the text is an integer.
    Integers,
}

impl How {
    /// All of them, indexed by their number in records.
    pub(super) const ALL: [Self; 4] = [Self::Colons, Self::Netstrings, Self::Texts, Self::Integers];

    /// Returns the digest of arguments, given as names and values.
    pub(super) fn digest<'a>(self, args: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        match self {
            Self::Colons => fragment(args, |hasher, value| {
                hasher.update(value);
                hasher.update(b":");
            }),
            Self::Netstrings => fragment(args, |hasher, value| {
                hasher.update(value.len().to_string());
                hasher.update(b":");
                hasher.update(value);
                hasher.update(b",");
            }),
            Self::Texts => call(args, |_| None),
            Self::Integers => call(args, integer),
        }
    }
}

fn fragment<'a>(
    args: impl Iterator<Item = (&'a str, &'a str)>,
    update: impl Fn(&mut Md5, &[u8]),
) -> String {
    let mut hasher = Md5::new();
    for (_, value) in args {
        update(&mut hasher, value.as_bytes());
    }
    hex(&hasher.finalize())
}

/// Returns hexadecimal digits. Written by hand: it runs for each digest of each prediction.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(digit).collect()
}

/// Computes the binding's digest of a call.
fn call<'a>(
    args: impl Iterator<Item = (&'a str, &'a str)>,
    integer: impl Fn(&str) -> Option<i64>,
) -> String {
    let mut form = Vec::new();
    // Writing to a vector cannot fail.
    let written: Result<(), _> = args.into_iter().try_for_each(|(name, value)| {
        rmp::encode::write_str(&mut form, name)?;
        match integer(value) {
            Some(number) => rmp::encode::write_sint(&mut form, number).map(drop),
            None => rmp::encode::write_str(&mut form, value),
        }
    });
    debug_assert!(written.is_ok());
    crate::key::digest(&form)
}

/// Parses an integer, if this is its canonical text.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (!digits.starts_with('0') || text == "0");
    is_canonical.then(|| text.parse().ok()).flatten()
}

/// A digest found in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    hows: Range<usize>,
}

/// Finds a digest in a key, if it has one such as Django's fragments or our functions have.
pub(super) fn find(key: &[u8]) -> Option<Found> {
    let mut end = key.len();
    while end >= DIGITS {
        let head = key.get(..end)?;
        let word = head
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        let start = end - word;
        let before = key.get(..start)?;
        if word == DIGITS && key.get(start..end)?.iter().all(|byte| is_hex(*byte)) {
            let hows = hows(before)?;
            return Some(Found { start, end, hows });
        }
        end = start.checked_sub(1)?;
    }
    None
}

/// Returns the ways in which a digest after this text may be made.
fn hows(before: &[u8]) -> Option<Range<usize>> {
    const FRAGMENT: &[u8] = b"template.cache.";
    let is_fragment =
        before.ends_with(b".") && before.windows(FRAGMENT.len()).any(|part| part == FRAGMENT);
    if is_fragment {
        return Some(0..2);
    }
    // A module and a name within it.
    let is_call = before
        .strip_suffix(b":")
        .is_some_and(|name| name.contains(&b'.'));
    is_call.then_some(2..4)
}

impl Found {
    /// Finds how the digest is made from arguments of `page`: none, or up to three in any order.
    /// Subtracts the digests tried from `left`.
    pub(super) fn explain(
        &self,
        key: &[u8],
        page: &Page,
        left: &mut usize,
    ) -> Option<(How, Vec<Arg>)> {
        let digest = key.get(self.start..self.end)?;
        let args = page.shared_args();
        let most = MAX_HASHES.min(*left);
        let mut made = 0;
        let mut tried = |chosen: &[usize]| -> Option<Option<How>> {
            let values = || {
                let chosen = chosen.iter().filter_map(|nth| args.get(*nth));
                chosen.map(|(name, value)| (&**name, &**value))
            };
            for how in How::ALL.get(self.hows.clone())? {
                let differs =
                    *how != How::Integers || values().any(|(_, value)| integer(value).is_some());
                if !differs {
                    continue;
                }
                if made >= most {
                    return None;
                }
                made += 1;
                if how.digest(values()).as_bytes() == digest {
                    return Some(Some(*how));
                }
            }
            Some(None)
        };
        let found = combinations(args.len()).find_map(|chosen| match tried(&chosen) {
            None => Some(None),
            Some(None) => None,
            Some(Some(how)) => Some(Some((how, chosen))),
        });
        *left -= made;
        let (how, chosen) = found??;
        let chosen = chosen.iter().filter_map(|nth| args.get(*nth));
        Some((how, chosen.map(|(name, _)| Arg::clone(name)).collect()))
    }
}

/// Returns every choice of up to three out of `count`, in every order, shortest first.
fn combinations(count: usize) -> impl Iterator<Item = Vec<usize>> {
    let one = move || (0..count).map(|a| vec![a]);
    let with = move |chosen: Vec<usize>| {
        let others: Vec<_> = (0..count).filter(|next| !chosen.contains(next)).collect();
        let all = others.into_iter();
        all.map(move |next| [chosen.as_slice(), &[next]].concat())
    };
    std::iter::once(Vec::new())
        .chain(one())
        .chain(one().flat_map(with))
        .chain(one().flat_map(with).flat_map(with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::template::Template;

    fn page(args: &[(&str, &str)]) -> Page {
        args.iter().fold(Page::new("route"), |page, (name, value)| {
            page.arg(*name, *value)
        })
    }

    fn template(key: &str, page: &Page) -> Template {
        Template::of(key.as_bytes(), page, &mut MAX_VISIT_HASHES.clone())
    }

    /// Keys that Python makes, with Django 5.2 and 6.1 and this package, from `note_id=5`,
    /// `lang="de"` and `user=7`, as numbers and as texts.
    const KEYS: &[(&str, &str)] = &[
        (
            "template.cache.note.016ce7cd3f0850d6c33696df9f9440d5",
            "template.cache.note.{digest(note_id)}",
        ),
        (
            ":1:template.cache.note.ec3f2d6f4a3a053c76ffd2aef1edd2e2",
            ":1:template.cache.note.{digest(note_id)}",
        ),
        (
            "blog:2:template.cache.note.5641c9c65a10411b9b022703d9f4f18b",
            "blog:2:template.cache.note.{digest(lang, note_id)}",
        ),
        (
            "template.cache.note.b145c3767e4f873dac6e3ce572faff8f",
            "template.cache.note.{digest(note_id, lang)}",
        ),
        (
            "template.cache.note.3e2575430a50fe7fe22ec65eef5bed8d",
            "template.cache.note.{digest(user, note_id, lang)}",
        ),
        (
            "template.cache.note.b36a74e035a2d116565f37522874c4d6",
            "template.cache.note.{digest(user, note_id, lang)}",
        ),
        (
            "template.cache.menu.d41d8cd98f00b204e9800998ecf8427e",
            "template.cache.menu.{digest()}",
        ),
        (
            "notes.views.menu:e3b0c44298fc1c149afbf4c8996fb924",
            "notes.views.menu:{digest()}",
        ),
        (
            "notes.views.note:20103cd325970e21c027c585027f209c",
            "notes.views.note:{digest(note_id)}",
        ),
        (
            "notes.views.note:d0478a0972a2fa6e69d0850b367fe126",
            "notes.views.note:{digest(note_id)}",
        ),
        (
            "notes.views.note:c7b2d8b6fe6f8c318a6873a9266d3745",
            "notes.views.note:{digest(lang, note_id)}",
        ),
        (
            "notes.views.note:9ae9c2c478b43ec4540220d97dadeff4",
            "notes.views.note:{digest(user, note_id, lang)}",
        ),
    ];

    #[test]
    fn digests_of_arguments_are_recognised() {
        let page = page(&[("lang", "de"), ("note_id", "5"), ("user", "7")]);
        for (key, expected) in KEYS {
            let found = template(key, &page);
            assert_eq!(found.to_string(), *expected, "{key}");
            assert_eq!(found.key(&page).unwrap(), key.as_bytes());
        }
    }

    #[test]
    fn other_digests_stay_as_they_are() {
        let page = page(&[("note_id", "5")]);
        for key in [
            // The digest of 6, and digests of 5 in unexpected places.
            "template.cache.note.1679091c5a880faf6fb5e6087eb1b2dc",
            "note:016ce7cd3f0850d6c33696df9f9440d5",
            "template.cache.note.016ce7cd3f0850d6c33696df9f9440d5f",
            "template.cache.note.016CE7CD3F0850D6C33696DF9F9440D5",
            "notes.views.note:016ce7cd3f0850d6c33696df9f9440d5",
        ] {
            assert_eq!(template(key, &page).to_string(), key);
        }
    }

    #[test]
    fn tried_digests_are_bounded_for_many_arguments() {
        let key = b"template.cache.note.016ce7cd3f0850d6c33696df9f9440d5";
        let found = find(key).unwrap();
        let page = (0..100).fold(Page::new("r"), |page, nth| {
            page.arg(format!("a{nth}"), 1000)
        });
        let mut left = 1000;
        assert_eq!(found.explain(key, &page, &mut left), None);
        assert_eq!(left, 1000 - MAX_HASHES);
        let mut left = 3;
        assert_eq!(found.explain(key, &page, &mut left), None);
        assert_eq!(left, 0);
    }

    #[test]
    fn integers_have_one_canonical_text() {
        for (text, expected) in [
            ("5", Some(5)),
            ("-5", Some(-5)),
            ("0", Some(0)),
            ("", None),
            ("-", None),
            ("-0", None),
            ("05", None),
            ("+5", None),
            ("5.0", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(text), expected, "{text}");
        }
    }
}

//! Keys as functions of a page's arguments.

use smallvec::SmallVec;

use super::digest::{self, How, MAX_ARGS};
use super::page::{Arg, Page};

/// A key with arguments in place of their values: `note_markup:{note_id}`.
///
/// Without arguments it is a constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Template(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Text(Box<[u8]>),
    Arg(Arg),
    /// A digest of argument values.
    Digest {
        how: How,
        args: Box<[Arg]>,
    },
}

impl Template {
    pub(super) fn new(pieces: impl Into<Box<[Piece]>>) -> Self {
        Self(pieces.into())
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Makes the template of `key`, with digests of arguments replaced too. Subtracts the digests
    /// tried from `hashes`.
    pub(super) fn of(key: &[u8], page: &Page, hashes: &mut usize) -> Self {
        let explained = digest::find(key).and_then(|found| {
            let (how, args) = found.explain(key, page, hashes)?;
            let args = args.into();
            let before = replaced(key.get(..found.start)?, page);
            let behind = replaced(key.get(found.end..)?, page);
            let pieces = before.into_iter().chain([Piece::Digest { how, args }]);
            Some(Self::new(pieces.chain(behind).collect::<Vec<_>>()))
        });
        explained.unwrap_or_else(|| Self::plain(key, page))
    }

    /// Makes the template of `key`: replaces every whole value of an argument of `page`, the
    /// longest where several match. Never replaces part of a longer word or number.
    pub(super) fn plain(key: &[u8], page: &Page) -> Self {
        Self::new(replaced(key, page))
    }

    /// Returns the key on `page`, if the page has all the arguments.
    pub(super) fn key(&self, page: &Page) -> Option<Vec<u8>> {
        let mut key = Vec::with_capacity(32);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => key.extend_from_slice(text),
                Piece::Arg(name) => key.extend_from_slice(page.value(name)?.as_bytes()),
                Piece::Digest { how, args } => {
                    let values = args.iter().map(|name| Some((&**name, page.value(name)?)));
                    let values = values.collect::<Option<SmallVec<[_; MAX_ARGS]>>>()?;
                    key.extend_from_slice(how.digest(values.into_iter()).as_bytes());
                }
            }
        }
        Some(key)
    }
}

fn replaced(key: &[u8], page: &Page) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut text, mut at) = (0, 0);
    while at < key.len() {
        let starts = at == 0 || !(is_word(key, at - 1) && is_word(key, at));
        let found = starts.then(|| longest(key, at, page)).flatten();
        match found {
            Some((name, len)) => {
                pieces.extend(piece(key, text, at));
                pieces.push(Piece::Arg(Arg::clone(name)));
                at += len;
                text = at;
            }
            None => at += 1,
        }
    }
    pieces.extend(piece(key, text, key.len()));
    pieces
}

fn piece(key: &[u8], from: usize, to: usize) -> Option<Piece> {
    let text = key.get(from..to).filter(|text| !text.is_empty())?;
    Some(Piece::Text(text.into()))
}

/// Returns whether a word or number continues at this byte. Non-ASCII bytes count as letters.
fn is_word(key: &[u8], at: usize) -> bool {
    key.get(at)
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
}

fn longest<'a>(key: &[u8], at: usize, page: &'a Page) -> Option<(&'a Arg, usize)> {
    let rest = key.get(at..)?;
    page.shared_args()
        .iter()
        .filter(|(_, value)| {
            let value = value.as_bytes();
            let end = at + value.len();
            !value.is_empty()
                && rest.starts_with(value)
                && !(is_word(key, end - 1) && is_word(key, end))
        })
        // Of equal values, take the first name: a key always gives the same template.
        .rev()
        .max_by_key(|(_, value)| value.len())
        .map(|(name, value)| (name, value.len()))
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(&crate::key::display(text))?,
                Piece::Arg(name) => write!(f, "{{{}}}", crate::key::display(name.as_bytes()))?,
                Piece::Digest { args, .. } => {
                    let names = args.iter().map(|name| crate::key::display(name.as_bytes()));
                    write!(f, "{{digest({})}}", names.collect::<Vec<_>>().join(", "))?;
                }
            }
        }
        Ok(())
    }
}

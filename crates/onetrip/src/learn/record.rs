//! A route's knowledge as bytes, which workers exchange through the store.

use rmp_serde::{from_slice, to_vec};

use super::bounded::{Bin, List};
use super::digest::{How, MAX_ARGS};
use super::earn::{Counts, CountsRow, Scale};
use super::page::Arg;
use super::page_keys::Held;
use super::recent::{Recent, RecentRow};
use super::route::{Known, Route};
use super::shape::{
    has_random, is_bare_digest, is_private_template, is_secret_template, is_session,
};
use super::template::{Piece, Template};
use super::usage::{Kinds, Usage, WINDOW};
use super::{MAX_KEY, MAX_NAME};

/// The version of this format. Records of other versions are ignored and learned anew.
const VERSION: u8 = 4;

/// Most templates (the most used) and pages (the last visited) that are exchanged.
const MAX_TEMPLATES: usize = 512;
const MAX_PAGES: usize = 16;

/// Most keys of one page, and pieces of one template. No learned one has more.
const MAX_PAGE_KEYS: usize = 2048;
const MAX_PIECES: usize = 2 * MAX_KEY;

/// Most digests of one template: each is computed at every visit.
const MAX_DIGESTS: usize = 1;

/// Separates the argument names of a digest, which are UTF-8.
const BETWEEN: u8 = 0xFF;

/// Most bytes written.
pub(super) const MAX_WRITTEN: usize = 64 << 10;

/// Most bytes that a row takes beside its keys, and that each key takes beside its bytes.
const OVERHEAD: usize = 48;

/// Version, means over recent visits, whether pages have lists, templates, pages. Records may be
/// hostile, so every length is bounded.
type RouteRecord<'a> = (
    u8,
    RecentRow,
    bool,
    List<TemplateRow<'a>, MAX_TEMPLATES>,
    List<PageRow<'a>, MAX_PAGES>,
);
/// Pieces, whether established, usage, what visits did with its keys.
type TemplateRow<'a> = (Pieces<'a>, bool, UsageRow, CountsRow);
/// For each piece its kind (0 text, 1 argument, from 2 on a kind of digest), and the text or the
/// argument names.
type Pieces<'a> = List<(u8, Bin<'a>), MAX_PIECES>;
/// A page's number and its keys.
type PageRow<'a> = (u64, List<(Bin<'a>, UsageRow), MAX_PAGE_KEYS>);
/// Share, visits, bytes, kinds.
pub(super) type UsageRow = (f32, u16, u32, u8);

/// The result of parsing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Record,
    /// A record of another version.
    Other,
    Junk,
}

/// Serializes the record of a route.
pub(super) fn write(route: &Route, recent: &Recent) -> Vec<u8> {
    let mut left = MAX_WRITTEN - 4 * OVERHEAD;
    let mut fits = |bytes: usize| {
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    };
    let mut templates: Vec<_> = route.templates.iter().collect();
    templates.retain(|(template, known)| {
        // A key used once may be one visitor's own: not worth keeping for others.
        (known.is_established() || (route.has_one_page() && known.usage.is_repeated()))
            && !is_private_template(template, &known.usage)
    });
    templates.sort_by(|(_, one), (_, other)| other.usage.share.total_cmp(&one.usage.share));
    let names: Vec<_> = templates
        .iter()
        .map(|(template, _)| digests(template))
        .collect();
    let templates = templates
        .into_iter()
        .zip(&names)
        .map(|((template, known), names)| {
            let (usage, counts) = (row(&known.usage), known.counts.row());
            (
                pieces(template, names),
                known.is_established(),
                usage,
                counts,
            )
        })
        .filter(|(pieces, ..)| {
            fits(
                OVERHEAD
                    + pieces
                        .0
                        .iter()
                        .map(|(_, bytes)| bytes.cost())
                        .sum::<usize>(),
            )
        })
        .take(MAX_TEMPLATES)
        .collect();
    let mut pages: Vec<_> = route.pages.iter().collect();
    pages.sort_by_key(|(_, held)| std::cmp::Reverse(held.last));
    let pages = pages
        .into_iter()
        .take(MAX_PAGES)
        .map(|(id, held)| {
            let keys = held.shared().into_iter();
            let keys = keys.map(|(key, usage)| (Bin(key), row(usage)));
            let keys = keys.filter(|(key, _)| fits(OVERHEAD + key.cost()));
            (*id, List(keys.take(MAX_PAGE_KEYS).collect()))
        })
        .filter(|(_, keys)| !keys.0.is_empty())
        .collect();
    let (templates, pages) = (List(templates), List(pages));
    let record: RouteRecord<'_> = (VERSION, recent.row(), route.has_lists(), templates, pages);
    // Numbers and bytes in memory: nothing can fail.
    to_vec(&record).unwrap_or_default()
}

/// Merges what another worker has learned, weighted by visits. Ignores invalid bytes.
pub(super) fn merge(route: &mut Route, recent: &mut Recent, record: &[u8]) -> Parsed {
    match record {
        [0x95, VERSION, ..] => {}
        [0x90..=0x9F, 0..=0x7F, ..] => return Parsed::Other,
        _ => return Parsed::Junk,
    }
    let Ok(record) = from_slice::<RouteRecord<'_>>(record) else {
        return Parsed::Junk;
    };
    let (_, of_late, has_lists, List(templates), List(pages)) = record;
    recent.weigh(&Recent::of(of_late));
    if has_lists {
        route.trust_lists();
    }
    for (pieces, established, theirs, counts) in templates {
        let Some(template) = template(pieces) else {
            continue;
        };
        let theirs = usage(theirs, is_secret_template(&template));
        let counts = Counts::of(counts, Scale::Many);
        let known = route.templates.entry(template);
        let known = known.or_insert_with(|| Known::from_worker(theirs, counts));
        known.usage.weigh(&theirs);
        known.counts.weigh(&counts);
        if established {
            known.establish();
        }
    }
    for (id, List(keys)) in pages {
        let now = route.visits;
        route.pages.entry(id).or_insert_with(|| Held {
            keys: keys
                .into_iter()
                .filter(|(key, _)| key.0.len() <= MAX_KEY)
                .map(|(Bin(key), theirs)| {
                    // The record does not name the page's arguments, which could explain the key.
                    let secret = is_session(key) || (has_random(key) && !is_bare_digest(key));
                    (key.into(), usage(theirs, secret))
                })
                .collect(),
            last: now,
            from_record: true,
            ..Held::default()
        });
    }
    route.bound();
    Parsed::Record
}

pub(super) fn row(usage: &Usage) -> UsageRow {
    (usage.share, usage.visits, usage.bytes, usage.kinds.bits())
}

pub(super) fn usage((share, visits, bytes, kinds): UsageRow, secret: bool) -> Usage {
    Usage {
        share: if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        },
        visits: visits.clamp(2, WINDOW),
        missed: false,
        bytes,
        kinds: Kinds::of(kinds),
        secret,
    }
}

/// Returns, for each digest of a template, its argument names joined into one text.
fn digests(template: &Template) -> Vec<Vec<u8>> {
    let digests = template.pieces().iter().filter_map(|piece| match piece {
        Piece::Digest { args, .. } => Some(args),
        _ => None,
    });
    let names = digests.map(|args| {
        let names: Vec<_> = args.iter().map(|name| name.as_bytes()).collect();
        names.join(&BETWEEN)
    });
    names.collect()
}

fn pieces<'a>(template: &'a Template, digests: &'a [Vec<u8>]) -> Pieces<'a> {
    let mut digests = digests.iter();
    let pieces = template.pieces().iter();
    let pieces = pieces.map(|piece| match piece {
        Piece::Text(text) => (0, Bin(text)),
        Piece::Arg(name) => (1, Bin(name.as_bytes())),
        Piece::Digest { how, .. } => {
            let number = How::ALL.iter().position(|other| other == how);
            let names = digests.next().map_or(&[][..], Vec::as_slice);
            (number.unwrap_or(0) as u8 + 2, Bin(names))
        }
    });
    List(pieces.collect())
}

/// Parses pieces, which may be hostile. Refuses those longer than any learned template.
fn template(List(pieces): Pieces<'_>) -> Option<Template> {
    let text = pieces.iter().filter(|(kind, _)| *kind == 0);
    let digests = pieces.iter().filter(|(kind, _)| *kind > 1);
    if text.map(|(_, bytes)| bytes.0.len()).sum::<usize>() > MAX_KEY
        || digests.count() > MAX_DIGESTS
    {
        return None;
    }
    let name = |bytes: &[u8]| {
        let name = std::str::from_utf8(bytes).ok()?;
        (name.len() <= MAX_NAME).then(|| Arg::from(name))
    };
    let pieces = pieces.iter().map(|(kind, Bin(bytes))| match kind {
        0 => Some(Piece::Text((*bytes).into())),
        1 => Some(Piece::Arg(name(bytes)?)),
        kind => {
            let how = *How::ALL.get(usize::from(kind - 2))?;
            let names = bytes.split(|byte| *byte == BETWEEN);
            let names = names.filter(|_| !bytes.is_empty());
            let args = names.map(name).collect::<Option<Box<[Arg]>>>()?;
            (args.len() <= MAX_ARGS).then_some(Piece::Digest { how, args })
        }
    });
    Some(Template::new(pieces.collect::<Option<Vec<_>>>()?))
}

//! What a route has learned, as bytes that workers exchange through the store.

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

/// The version of this form. Others are not read: what they held is learned anew.
const VERSION: u8 = 4;

/// The most templates and pages that are exchanged: those that are used most, or were visited last.
const MAX_TEMPLATES: usize = 512;
const MAX_PAGES: usize = 16;

/// The most keys of one page, and pieces of one template. None that is learned has as many.
const MAX_PAGE_KEYS: usize = 2048;
const MAX_PIECES: usize = 2 * MAX_KEY;

/// The most digests of one template: each is made at every visit.
const MAX_DIGESTS: usize = 1;

/// Stands between the names of a digest's arguments, which are UTF-8.
const BETWEEN: u8 = 0xFF;

/// The most bytes that are written.
pub(super) const MAX_WRITTEN: usize = 64 << 10;

/// Bytes that a row takes beside its keys, and each of those beside its bytes, at most.
const OVERHEAD: usize = 48;

/// Version, what came of visits of late, whether pages have lists, templates, pages. Anybody may have
/// written it, so nothing is longer than it may be.
type RouteRecord<'a> = (
    u8,
    RecentRow,
    bool,
    List<TemplateRow<'a>, MAX_TEMPLATES>,
    List<PageRow<'a>, MAX_PAGES>,
);
/// Pieces, whether it is established, usage, what visits did with its keys.
type TemplateRow<'a> = (Pieces<'a>, bool, UsageRow, CountsRow);
/// What each piece is (0 a text, 1 an argument, from 2 on how a digest is made), and the text or the
/// names of arguments.
type Pieces<'a> = List<(u8, Bin<'a>), MAX_PIECES>;
/// A page's number, and its keys.
type PageRow<'a> = (u64, List<(Bin<'a>, UsageRow), MAX_PAGE_KEYS>);
/// Share, visits, bytes, kinds.
pub(super) type UsageRow = (f32, u16, u32, u8);

/// What bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Record,
    /// One of another version.
    Other,
    Junk,
}

/// The record of a route.
pub(super) fn write(route: &Route, recent: &Recent) -> Vec<u8> {
    let mut left = MAX_WRITTEN - 4 * OVERHEAD;
    let mut fits = |bytes: usize| {
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    };
    let mut templates: Vec<_> = route.templates.iter().collect();
    templates.retain(|(template, known)| {
        // One use may be anybody's own key, and is no reason to keep it for others.
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
    // Numbers and bytes in memory: there is nothing that could fail.
    to_vec(&record).unwrap_or_default()
}

/// Takes over what another worker has learned. What both know is weighed by their visits; bytes
/// that are no record are left alone.
pub(super) fn merge(route: &mut Route, recent: &mut Recent, record: &[u8]) -> Heard {
    match record {
        [0x95, VERSION, ..] => {}
        [0x90..=0x9F, 0..=0x7F, ..] => return Heard::Other,
        _ => return Heard::Junk,
    }
    let Ok(record) = from_slice::<RouteRecord<'_>>(record) else {
        return Heard::Junk;
    };
    let (_, of_late, has_lists, List(templates), List(pages)) = record;
    recent.weigh(&Recent::of(of_late));
    if has_lists {
        route.told_lists();
    }
    for (pieces, established, theirs, counts) in templates {
        let Some(template) = template(pieces) else {
            continue;
        };
        let theirs = usage(theirs, is_secret_template(&template));
        let counts = Counts::of(counts, Scale::Many);
        let known = route.templates.entry(template);
        let known = known.or_insert_with(|| Known::told(theirs, counts));
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
                    // Which page it is, and so what explains its keys, is not told.
                    let secret = is_session(key) || (has_random(key) && !is_bare_digest(key));
                    (key.into(), usage(theirs, secret))
                })
                .collect(),
            last: now,
            told: true,
            ..Held::default()
        });
    }
    route.bound();
    Heard::Record
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

/// Returns the names of arguments of a template's digests, each as one text.
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

/// That of pieces which may have been made by anybody; none that is as long as none is learned.
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

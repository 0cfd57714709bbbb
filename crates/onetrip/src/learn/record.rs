//! What a route has learned, as bytes that workers exchange through the store.

use rmp_serde::{from_slice, to_vec};

use super::form::{Bin, List};
use super::page::Arg;
use super::recent::{Recent, RecentRow};
use super::route::{Held, Known, Route};
use super::template::{Piece, Template};
use super::usage::{Usage, WINDOW};
use super::{MAX_KEY, MAX_NAME};

/// The version of this form. Others are not read: what they held is learned anew.
const VERSION: u8 = 3;

/// The most templates and pages that are exchanged: those that are used most, or were visited last.
const MAX_TEMPLATES: usize = 512;
const MAX_PAGES: usize = 16;

/// The most keys of one page, and pieces of one template. None that is learned has as many.
const MAX_PAGE_KEYS: usize = 2048;
const MAX_PIECES: usize = 2 * MAX_KEY;

/// The most bytes that are written.
pub(super) const MAX_WRITTEN: usize = 64 << 10;

/// Bytes that a row takes beside its keys, and each of those beside its bytes, at most.
const OVERHEAD: usize = 24;

/// Version, what came of visits of late, templates, pages. Anybody may have written it, so nothing
/// is longer than it may be.
type Record<'a> = (
    u8,
    RecentRow,
    List<TemplateRow<'a>, MAX_TEMPLATES>,
    List<PageRow<'a>, MAX_PAGES>,
);
/// Pieces (whether an argument, and its name or the text), whether it is established, usage.
type TemplateRow<'a> = (Pieces<'a>, bool, UsageRow);
type Pieces<'a> = List<(bool, Bin<'a>), MAX_PIECES>;
/// A page's number, and its keys.
type PageRow<'a> = (u64, List<(Bin<'a>, UsageRow), MAX_PAGE_KEYS>);
/// Share, visits, bytes.
type UsageRow = (f32, u16, u32);

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
    templates.sort_by(|(_, one), (_, other)| other.usage.share.total_cmp(&one.usage.share));
    let templates = templates
        .into_iter()
        .filter(|(_, known)| {
            // One use may be anybody's own key, and is no reason to keep it for others.
            known.is_established() || (route.has_one_page() && known.usage.is_repeated())
        })
        .map(|(template, known)| (pieces(template), known.is_established(), row(&known.usage)))
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
            let mut keys: Vec<_> = held.keys.iter().collect();
            keys.sort_by(|(_, one), (_, other)| other.share.total_cmp(&one.share));
            let keys = keys.into_iter().map(|(key, usage)| (Bin(key), row(usage)));
            let keys = keys.filter(|(key, _)| fits(OVERHEAD + key.cost()));
            (*id, List(keys.take(MAX_PAGE_KEYS).collect()))
        })
        .filter(|(_, keys)| !keys.0.is_empty())
        .collect();
    let record: Record<'_> = (VERSION, recent.row(), List(templates), List(pages));
    // Numbers and bytes in memory: there is nothing that could fail.
    to_vec(&record).unwrap_or_default()
}

/// Takes over what another worker has learned. What both know is weighed by their visits; bytes
/// that are no record are left alone.
pub(super) fn merge(route: &mut Route, recent: &mut Recent, record: &[u8]) -> Heard {
    match record {
        [0x94, VERSION, ..] => {}
        [0x90..=0x9F, 0..=0x7F, ..] => return Heard::Other,
        _ => return Heard::Junk,
    }
    let Ok((_, of_late, List(templates), List(pages))) = from_slice::<Record<'_>>(record) else {
        return Heard::Junk;
    };
    recent.weigh(&Recent::of(of_late));
    for (pieces, established, theirs) in templates {
        let Some(template) = template(pieces) else {
            continue;
        };
        let theirs = usage(theirs);
        let known = route.templates.entry(template);
        let known = known.or_insert_with(|| Known::told(theirs));
        known.usage.weigh(&theirs);
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
                .map(|(key, theirs)| (key.0.into(), usage(theirs)))
                .collect(),
            last: now,
            ..Held::default()
        });
    }
    route.bound();
    Heard::Record
}

fn row(usage: &Usage) -> UsageRow {
    (usage.share, usage.visits, usage.bytes)
}

fn usage((share, visits, bytes): UsageRow) -> Usage {
    Usage {
        share: if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        },
        visits: visits.clamp(2, WINDOW),
        missed: false,
        bytes,
    }
}

fn pieces(template: &Template) -> Pieces<'_> {
    let pieces = template.pieces().iter();
    let pieces = pieces.map(|piece| match piece {
        Piece::Text(text) => (false, Bin(text)),
        Piece::Arg(name) => (true, Bin(name.as_bytes())),
    });
    List(pieces.collect())
}

/// That of pieces which may have been made by anybody; none that is as long as none is learned.
fn template(List(pieces): Pieces<'_>) -> Option<Template> {
    let length = |is_arg| {
        let pieces = pieces.iter().filter(move |(arg, _)| *arg == is_arg);
        pieces.map(|(_, bytes)| bytes.0.len())
    };
    if length(false).sum::<usize>() > MAX_KEY || length(true).any(|name| name > MAX_NAME) {
        return None;
    }
    let pieces = pieces.iter().map(|(is_arg, bytes)| {
        Some(if *is_arg {
            Piece::Arg(Arg::from(std::str::from_utf8(bytes.0).ok()?))
        } else {
            Piece::Text(bytes.0.into())
        })
    });
    Some(Template::new(pieces.collect::<Option<Vec<_>>>()?))
}

//! What a route has learned, as bytes that workers exchange through the store.

use rmp_serde::{from_slice, to_vec};

use super::page::Arg;
use super::recent::{Recent, RecentRow};
use super::route::{Held, Known, Route};
use super::template::{Piece, Template};
use super::usage::Usage;

/// The version of this form. Others are not read: what they held is learned anew.
const VERSION: u8 = 2;

/// The most templates and pages that are exchanged: those that are used most, or were visited last.
const MAX_TEMPLATES: usize = 512;
const MAX_PAGES: usize = 16;

/// Version, what came of visits of late, templates, pages.
type Record = (u8, RecentRow, Vec<TemplateRow>, Vec<PageRow>);
/// Pieces (whether an argument, and its name or the text), whether it is established, usage.
type TemplateRow = (Vec<(bool, Vec<u8>)>, bool, UsageRow);
/// A page's number, and its keys.
type PageRow = (u64, Vec<(Vec<u8>, UsageRow)>);
/// Share, visits, bytes.
type UsageRow = (f32, u16, u32);

/// The record of a route.
pub(super) fn write(route: &Route, recent: &Recent) -> Vec<u8> {
    let mut templates: Vec<_> = route.templates.iter().collect();
    templates.sort_by(|(_, one), (_, other)| other.usage.share.total_cmp(&one.usage.share));
    let templates = templates
        .into_iter()
        .filter(|(_, known)| known.is_established() || route.has_one_page())
        .take(MAX_TEMPLATES)
        .map(|(template, known)| (pieces(template), known.is_established(), row(&known.usage)))
        .collect();
    let mut pages: Vec<_> = route.pages.iter().collect();
    pages.sort_by_key(|(_, held)| std::cmp::Reverse(held.last));
    let pages = pages
        .into_iter()
        .take(MAX_PAGES)
        .map(|(id, held)| {
            let keys = held.keys.iter();
            (
                *id,
                keys.map(|(key, usage)| (key.to_vec(), row(usage)))
                    .collect(),
            )
        })
        .collect();
    let record: Record = (VERSION, recent.row(), templates, pages);
    // Numbers and bytes in memory: there is nothing that could fail.
    to_vec(&record).unwrap_or_default()
}

/// Takes over what another worker has learned. What both know is weighed by their visits; bytes
/// that are no record are left alone. Whether they were one.
pub(super) fn merge(route: &mut Route, recent: &mut Recent, record: &[u8]) -> bool {
    let Ok((VERSION, of_late, templates, pages)) = from_slice::<Record>(record) else {
        return false;
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
    for (id, keys) in pages {
        let now = route.visits;
        route.pages.entry(id).or_insert_with(|| Held {
            keys: keys
                .into_iter()
                .map(|(key, theirs)| (key.into(), usage(theirs)))
                .collect(),
            last: now,
            ..Held::default()
        });
    }
    route.bound();
    true
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
        visits: visits.max(2),
        missed: false,
        bytes,
    }
}

fn pieces(template: &Template) -> Vec<(bool, Vec<u8>)> {
    let pieces = template.pieces().iter();
    pieces
        .map(|piece| match piece {
            Piece::Text(text) => (false, text.to_vec()),
            Piece::Arg(name) => (true, name.as_bytes().to_vec()),
        })
        .collect()
}

fn template(pieces: Vec<(bool, Vec<u8>)>) -> Option<Template> {
    let pieces = pieces.into_iter().map(|(is_arg, bytes)| {
        Some(if is_arg {
            Piece::Arg(Arg::from(String::from_utf8(bytes).ok()?))
        } else {
            Piece::Text(bytes.into())
        })
    });
    Some(Template::new(pieces.collect::<Option<Vec<_>>>()?))
}

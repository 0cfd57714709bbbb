//! How many bytes hold what was learned.

use super::page_keys::Held;
use super::route::{Known, Route};
use super::template::{Piece, Template};
use super::usage::Usage;

/// What an allocation costs beside its bytes, about.
const OVERHEAD: usize = 16;

impl Route {
    /// Its bytes, as it was allocated.
    pub(super) fn memory(&self) -> usize {
        let templates = self.templates.keys().map(template);
        let pages = self.pages.values().map(|held| {
            let keys = held.keys.keys().map(|key| key.len() + OVERHEAD);
            slots::<Box<[u8]>, Usage>(held.keys.capacity())
                + keys.sum::<usize>()
                + held.series.memory()
        });
        size_of::<Self>()
            + self.listless_bytes()
            + slots::<Template, Known>(self.templates.capacity())
            + templates.sum::<usize>()
            + slots::<u64, Held>(self.pages.capacity())
            + pages.sum::<usize>()
    }
}

fn template(template: &Template) -> usize {
    let pieces = template.pieces();
    let text = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.len() + OVERHEAD,
        // Shared by all templates of one visit at least; counted in full.
        Piece::Arg(name) => name.len() + 2 * OVERHEAD,
        Piece::Digest { args, .. } => {
            let names = args.iter().map(|name| name.len() + 2 * OVERHEAD);
            size_of_val(&**args) + OVERHEAD + names.sum::<usize>()
        }
    });
    size_of_val(pieces) + OVERHEAD + text.sum::<usize>()
}

/// The bytes of a hash table that has room for so many, which is seven eighths of its slots.
pub(super) fn slots<K, V>(capacity: usize) -> usize {
    (capacity + capacity / 7) * (size_of::<(K, V)>() + 1)
}

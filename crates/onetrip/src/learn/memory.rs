//! Counts the bytes that hold what was learned.

use super::page_keys::Held;
use super::route::{Known, Route};
use super::template::{Piece, Template};
use super::usage::Usage;

/// Approximate cost of an allocation beside its bytes.
const OVERHEAD: usize = 16;

impl Route {
    /// Returns the bytes it allocated.
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
        // Shared with other templates of the same visit, but counted in full.
        Piece::Arg(name) => name.len() + 2 * OVERHEAD,
        Piece::Digest { args, .. } => {
            let names = args.iter().map(|name| name.len() + 2 * OVERHEAD);
            size_of_val(&**args) + OVERHEAD + names.sum::<usize>()
        }
    });
    size_of_val(pieces) + OVERHEAD + text.sum::<usize>()
}

/// Returns the bytes of a hash table with this capacity, which is seven eighths of its slots.
pub(super) fn slots<K, V>(capacity: usize) -> usize {
    (capacity + capacity / 7) * (size_of::<(K, V)>() + 1)
}

//! How much buffer to allocate before a response arrives.

/// The smallest buffer to receive into.
const LEAST_ROOM: usize = 512;

/// The room for each key while no response sizes are known.
const ROOM: usize = 2 << 10;

/// The most room to allocate at a time: a server's announced length gets memory only as its bytes
/// arrive.
pub(super) const MOST_ROOM: usize = 256 << 10;

/// The most room to allocate if earlier responses were as large.
const MOST_EXPECTED: usize = 2 << 20;

/// Returns the room to allocate: `missing` bytes are known to follow, `expected` are likely to.
pub(super) fn room(missing: usize, expected: usize) -> usize {
    let expected = expected.min(MOST_EXPECTED);
    missing.min(MOST_ROOM).max(expected).max(LEAST_ROOM)
}

/// The bytes per key of earlier responses, by the number of keys in powers of two.
#[derive(Debug, Default)]
pub(super) struct Sizes([u32; 16]);

impl Sizes {
    fn of(&mut self, weight: usize) -> Option<&mut u32> {
        let class = weight.max(1).ilog2() as usize;
        let class = class.min(self.0.len() - 1);
        self.0.get_mut(class)
    }

    /// Returns how many bytes to expect.
    pub(super) fn expected(&mut self, weight: usize) -> usize {
        match self.of(weight) {
            Some(&mut bytes) if bytes > 0 => {
                let all = weight.saturating_mul(bytes as usize);
                all + all / 8 + 16
            }
            _ => weight.saturating_mul(ROOM).min(MOST_ROOM),
        }
    }

    /// Keeps the maximum, which decays slowly.
    pub(super) fn learn(&mut self, weight: usize, bytes: usize) {
        let each = u32::try_from(bytes / weight.max(1) + 1).unwrap_or(u32::MAX);
        if let Some(size) = self.of(weight) {
            *size = each.max(*size - *size / 8);
        }
    }
}

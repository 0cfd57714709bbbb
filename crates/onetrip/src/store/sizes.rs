//! How much to make room for before an answer comes.

/// The least room to receive into.
const LEAST_ROOM: usize = 512;

/// Room for what each key is answered with, as long as nothing was learned.
const ROOM: usize = 2 << 10;

/// The most room that is made at a time: what a server promises gets memory as it comes.
pub(super) const MOST_ROOM: usize = 256 << 10;

/// The same where so much came before.
const MOST_EXPECTED: usize = 2 << 20;

/// Room to receive into where so many bytes are missing and so many are expected.
pub(super) fn room(missing: usize, expected: usize) -> usize {
    let expected = expected.min(MOST_EXPECTED);
    missing.min(MOST_ROOM).max(expected).max(LEAST_ROOM)
}

/// What exchanges brought before, by the number of keys that they were about, in powers of two:
/// bytes for each.
#[derive(Debug, Default)]
pub(super) struct Sizes([u32; 16]);

impl Sizes {
    fn of(&mut self, weight: usize) -> Option<&mut u32> {
        let class = weight.max(1).ilog2() as usize;
        let class = class.min(self.0.len() - 1);
        self.0.get_mut(class)
    }

    /// How many bytes to expect.
    pub(super) fn expected(&mut self, weight: usize) -> usize {
        match self.of(weight) {
            Some(&mut bytes) if bytes > 0 => {
                let all = weight.saturating_mul(bytes as usize);
                all + all / 8 + 16
            }
            _ => weight.saturating_mul(ROOM).min(MOST_ROOM),
        }
    }

    /// Keeps the most that came, and forgets it by and by.
    pub(super) fn learn(&mut self, weight: usize, bytes: usize) {
        let each = u32::try_from(bytes / weight.max(1) + 1).unwrap_or(u32::MAX);
        if let Some(size) = self.of(weight) {
            *size = each.max(*size - *size / 8);
        }
    }
}

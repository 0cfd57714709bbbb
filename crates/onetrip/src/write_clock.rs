//! A logical clock that tells when this process last wrote a name.
//!
//! A state write anywhere in the process invalidates answers that scopes and flights hold. The
//! clock does this without a list of scopes: each write increments a counter and stores the count in
//! the slot of its name, once before it is sent and once when it returns. An answer remembers the
//! count at which its trip departed, and is valid while its slot holds no later count.
//!
//! Names share slots. A write of another name may invalidate an answer too early, which costs a
//! trip.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of slots. Ten thousand writes of other names needlessly invalidate a quarter of the
/// answers that are held meanwhile.
const SLOTS: usize = 1 << 15;

/// The number of bytes that are hashed at a time.
const CHUNK: usize = 16;

static COUNT: AtomicU64 = AtomicU64::new(0);
static CLEARED: AtomicU64 = AtomicU64::new(0);
static WRITTEN: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// The count of writes at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// The place of a name in the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Returns the slot of the name `prefix` + `key`, wherever the name is split.
    pub(crate) fn of(prefix: &[u8], key: &[u8]) -> Self {
        // From the end, so that any prefix leaves the chunks of the key the same.
        let mut chunks = key.rchunks_exact(CHUNK);
        let mut hash = 0;
        for chunk in &mut chunks {
            hash = mix(hash, chunk.try_into().unwrap_or_default());
        }
        let mut prefix = prefix;
        let mut head = chunks.remainder();
        while !(prefix.is_empty() && head.is_empty()) {
            let mut chunk = [0; CHUNK];
            let (front, back) = chunk.split_at_mut(CHUNK - head.len());
            back.copy_from_slice(head);
            let (rest, end) = prefix.split_at(prefix.len().saturating_sub(front.len()));
            let (_, place) = front.split_at_mut(front.len() - end.len());
            place.copy_from_slice(end);
            hash = mix(hash, chunk);
            (prefix, head) = (rest, &[]);
        }
        Self((hash ^ hash >> 32) as usize % SLOTS)
    }

    /// Returns the index of the slot.
    pub(crate) fn index(self) -> usize {
        self.0
    }

    fn written(self) -> &'static AtomicU64 {
        static BEYOND: AtomicU64 = AtomicU64::new(0);
        // Never used: `of` returns no index beyond the last.
        WRITTEN.get(self.0).unwrap_or(&BEYOND)
    }

    /// Records a write of the name, as it is sent and as it returns.
    pub(crate) fn write(self) {
        let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
        self.written().fetch_max(count, Ordering::SeqCst);
    }

    /// Returns whether this process has not written the name since `stamp`.
    pub(crate) fn is_unwritten_since(self, stamp: Stamp) -> bool {
        self.written().load(Ordering::Acquire) <= stamp.0
            && CLEARED.load(Ordering::Acquire) <= stamp.0
    }
}

/// Hashes one more chunk by the mixing step of wyhash: each bit of either half affects all bits of
/// the result. The constants are odd, with half of their bits set.
fn mix(hash: u64, chunk: [u8; CHUNK]) -> u64 {
    let [low, high] = [0, 8].map(|at| {
        let half = chunk.get(at..).and_then(|half| half.first_chunk());
        u64::from_le_bytes(half.copied().unwrap_or_default())
    });
    let low = u128::from(low ^ hash ^ 0xA076_1D64_78BD_642F);
    let product = low * u128::from(high ^ 0xE703_7ED1_A0B4_28DB);
    product as u64 ^ (product >> 64) as u64
}

/// The slot of one name, computed at first use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LazySlot(Option<Slot>);

impl LazySlot {
    /// Returns the slot of the name `prefix` + `key`, which must be the same at every call.
    pub(crate) fn of(&mut self, prefix: &[u8], key: &[u8]) -> Slot {
        *self.0.get_or_insert_with(|| Slot::of(prefix, key))
    }
}

/// Returns the current count.
pub(crate) fn stamp() -> Stamp {
    Stamp(COUNT.load(Ordering::SeqCst))
}

/// Records a clear of all names, as it is sent and as it returns.
pub(crate) fn clear() {
    let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    CLEARED.fetch_max(count, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_of_a_name_does_not_change_its_slot() {
        for name in ["x", "blog:1:note:5", "a-long-name:with-more-than:16-bytes"] {
            let whole = Slot::of(b"", name.as_bytes());
            for end in 0..=name.len() {
                let (prefix, key) = name.as_bytes().split_at(end);
                assert_eq!(Slot::of(prefix, key), whole, "{name} at {end}");
            }
        }
    }

    #[test]
    fn names_spread_over_the_slots() {
        let shapes = [
            ("note:", ""),
            ("a-view-with-a-long-name:comments:", ""),
            ("image-", "--2e16d0ba-format-avif|fill-300x200-c75"),
        ];
        for (head, tail) in shapes {
            let names = (0..1000).map(|number| format!("{head}{number}{tail}"));
            let slots = names.map(|name| Slot::of(b"", name.as_bytes()).index());
            let slots: std::collections::HashSet<usize> = slots.collect();
            // On average 15 of them share a slot by chance.
            assert!(slots.len() > 950, "{} slots for {head}", slots.len());
        }
    }

    #[test]
    fn a_write_invalidates_earlier_stamps() {
        let slot = Slot::of(b"writes:", b"ended");
        let before = stamp();
        assert!(slot.is_unwritten_since(before));
        slot.write();
        assert!(!slot.is_unwritten_since(before));
        assert!(slot.is_unwritten_since(stamp()));
    }
}

//! Chooses which keys are worth asking for ahead.

use super::report::Predicted;

/// Limits of what is asked for ahead.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Budget {
    /// Most keys of one page: 512.
    pub keys: usize,
    /// Most bytes of entries of one page: 1 MiB.
    pub bytes: usize,
    /// Lowest chance that a key is used: 0.05.
    pub floor: f32,
    /// Largest share of bytes that may be expected to go unused: 0.08.
    pub waste: f32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            keys: 512,
            bytes: 1 << 20,
            floor: 0.05,
            waste: 0.08,
        }
    }
}

/// Cost of asking for an absent entry beside its name, in bytes.
const ABSENT: usize = 64;

/// A key that may be used.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) chance: f32,
    pub(super) key: Predicted,
}

impl Candidate {
    /// Returns the bytes it counts for. An absent entry costs its name and an answer; its size, if
    /// it appears, is unknown.
    fn cost(&self) -> usize {
        match self.key.bytes {
            0 => self.key.key.len() + ABSENT,
            bytes => bytes as usize,
        }
    }

    fn waste(&self) -> f32 {
        (1.0 - self.chance) * self.cost() as f32
    }

    fn use_per_byte(&self) -> f32 {
        self.chance / (self.cost() as f32 + self.key.key.len() as f32)
    }
}

impl Budget {
    /// Chooses the keys to ask for: the surest first while few bytes go unused. If they exceed the
    /// limits, the most used for their bytes.
    pub(super) fn choose(&self, mut candidates: Vec<Candidate>) -> Vec<Predicted> {
        candidates.retain(|candidate| candidate.chance >= self.floor);
        candidates.sort_by(|one, other| {
            let surest = other.chance.total_cmp(&one.chance);
            surest
                .then(one.key.bytes.cmp(&other.key.bytes))
                .then_with(|| one.key.key.cmp(&other.key.key))
        });
        let (mut wasted, mut asked) = (0.0, 0.0);
        candidates.retain(|candidate| {
            let (more, bytes) = (candidate.waste(), candidate.cost() as f32);
            let fits = wasted + more <= self.waste * (asked + bytes);
            if fits {
                wasted += more;
                asked += bytes;
            }
            fits
        });
        let bytes: usize = candidates.iter().map(Candidate::cost).sum();
        if candidates.len() > self.keys || bytes > self.bytes {
            // The sort is stable: equal candidates keep their order.
            candidates.sort_by(|one, other| other.use_per_byte().total_cmp(&one.use_per_byte()));
            let mut left = self.bytes;
            candidates.truncate(self.keys);
            candidates.retain(|candidate| {
                let fits = candidate.cost() <= left;
                left -= if fits { candidate.cost() } else { 0 };
                fits
            });
        }
        candidates
            .into_iter()
            .map(|candidate| candidate.key)
            .collect()
    }
}

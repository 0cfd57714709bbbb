//! Means over recent visits, in a form that workers can merge.
//!
//! Sums cannot be exchanged: a worker that merges another's sums, and is merged in turn, would
//! count its own twice. Means can.

/// Visits that count. Older ones have faded.
const WINDOW: u16 = 256;

/// Amounts per visit: reads, exact reads, trips, preloaded, used, bytes, unused bytes.
pub(super) type Amounts = [f32; 7];

/// Visits, and means over them.
pub(super) type RecentRow = (u16, Amounts);

/// Means over recent visits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    visits: u16,
    means: Amounts,
}

impl Recent {
    /// Notes one more visit.
    pub(super) fn note(&mut self, amounts: Amounts) {
        self.visits = (self.visits + 1).min(WINDOW);
        for (mean, amount) in self.means.iter_mut().zip(amounts) {
            *mean += (amount - *mean) / f32::from(self.visits);
        }
    }

    /// Merges what another worker saw, weighted by visits.
    pub(super) fn weigh(&mut self, other: &Self) {
        let (mine, theirs) = (f32::from(self.visits), f32::from(other.visits));
        if theirs > 0.0 {
            for (mean, other) in self.means.iter_mut().zip(other.means) {
                *mean = (*mean * mine + other * theirs) / (mine + theirs);
            }
            self.visits = self.visits.max(other.visits);
        }
    }

    pub(super) fn visits(&self) -> u64 {
        self.visits.into()
    }

    /// Returns sums over the visits that count.
    pub(super) fn sums(&self) -> [u64; 7] {
        let visits = f64::from(self.visits);
        self.means
            .map(|mean| (f64::from(mean) * visits).round() as u64)
    }

    pub(super) fn row(&self) -> RecentRow {
        (self.visits, self.means)
    }

    /// Parses a row, which may be hostile.
    pub(super) fn of((visits, means): RecentRow) -> Self {
        let sound = |mean: f32| if mean.is_finite() { mean.max(0.0) } else { 0.0 };
        Self {
            visits: visits.min(WINDOW),
            means: means.map(sound),
        }
    }
}

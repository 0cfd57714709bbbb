//! What came of visits of late, in a form that several workers can weigh against each other.
//!
//! Sums cannot be exchanged: a worker that takes over another's, and is taken over in turn, would
//! count its own twice. Means can.

/// Visits that count; what was longer ago has faded.
const WINDOW: u16 = 256;

/// How much of each: reads, exact reads, trips, preloaded, used, bytes, unused bytes.
pub(super) type Amounts = [f32; 7];

/// Visits, and means over them.
pub(super) type RecentRow = (u16, Amounts);

/// Means over the visits of late.
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

    /// Takes in what another worker saw: each counts by its visits.
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

    /// Sums over the visits that count.
    pub(super) fn sums(&self) -> [u64; 7] {
        let visits = f64::from(self.visits);
        self.means
            .map(|mean| (f64::from(mean) * visits).round() as u64)
    }

    pub(super) fn row(&self) -> RecentRow {
        (self.visits, self.means)
    }

    /// That of a row, which may have been made by anybody.
    pub(super) fn of((visits, means): RecentRow) -> Self {
        let sound = |mean: f32| if mean.is_finite() { mean.max(0.0) } else { 0.0 };
        Self {
            visits: visits.min(WINDOW),
            means: means.map(sound),
        }
    }
}

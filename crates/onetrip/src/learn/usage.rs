//! How often a key is used, of late.

/// Visits that count: what was longer ago has faded.
pub(super) const WINDOW: u16 = 16;

/// The share of visits that use a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// From 0 to 1; a plain mean of the first visits, and then one in which older ones fade.
    pub(super) share: f32,
    pub(super) visits: u16,
    /// Whether the last visit did not use it, though it might have.
    pub(super) missed: bool,
    /// Bytes of its entry when it was last seen; none if it was absent.
    pub(super) bytes: u32,
}

impl Usage {
    /// That of a key used for the first time.
    pub(super) fn first(bytes: u32) -> Self {
        Self {
            share: 1.0,
            visits: 1,
            missed: false,
            bytes,
        }
    }

    /// Whether more than one visit used it.
    pub(super) fn is_repeated(&self) -> bool {
        self.share * f32::from(self.visits) > 1.5
    }

    /// Notes one more visit: the size of the entry if it was used.
    pub(super) fn note(&mut self, used: Option<u32>) {
        self.visits = (self.visits + 1).min(WINDOW);
        let hit = if used.is_some() { 1.0 } else { 0.0 };
        self.share += (hit - self.share) / f32::from(self.visits);
        self.missed = used.is_none();
        self.bytes = used.unwrap_or(self.bytes);
    }
}

impl Usage {
    /// Takes in what another worker saw of the same key: each counts by its visits.
    pub(super) fn weigh(&mut self, other: &Self) {
        let (mine, theirs) = (f32::from(self.visits), f32::from(other.visits));
        self.share = (self.share * mine + other.share * theirs) / (mine + theirs);
        self.visits = self.visits.max(other.visits);
    }
}

/// What tends to become of a route's keys when their own past says little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Of keys that were used once: a list that changes brings new ones that stay, a part that is
    /// seldom shown does not.
    after_first: Ratio,
    /// Of keys that were missed: those that a list left behind do not come back, those that are
    /// used now and then do.
    after_miss: Ratio,
}

/// Uses that came, of those that were to be expected.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    came: f32,
    expected: f32,
}

/// How many observations weigh as much as having none, and how fast they fade.
const PRIOR: f32 = 2.0;
const FADE: f32 = 0.98;

impl Default for Ratio {
    fn default() -> Self {
        Self {
            came: PRIOR,
            expected: PRIOR,
        }
    }
}

impl Ratio {
    fn note(&mut self, expected: f32, came: bool) {
        self.came = self.came * FADE + if came { 1.0 } else { 0.0 };
        self.expected = self.expected * FADE + expected;
    }

    fn value(self) -> f32 {
        (self.came / self.expected).min(1.0)
    }
}

impl Habits {
    /// Notes whether a visit used a key, before its own usage notes it.
    pub(super) fn note(&mut self, usage: &Usage, came: bool) {
        if usage.missed {
            self.after_miss.note(usage.share, came);
        } else if usage.visits == 1 {
            self.after_first.note(usage.share, came);
        }
    }

    /// How likely the next visit is to use a key, from 0 to 1.
    pub(super) fn chance(&self, usage: &Usage) -> f32 {
        if usage.missed {
            usage.share * self.after_miss.value()
        } else if usage.visits == 1 {
            usage.share * self.after_first.value()
        } else {
            usage.share
        }
    }
}

//! How often a key is used of late, and how.

use super::report::Use;

/// Visits that count: what was longer ago has faded.
pub(super) const WINDOW: u16 = 16;

/// How the last eight visits that read a key did so: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds {
    piece: u8,
    state: u8,
    again: u8,
}

impl Kinds {
    fn note(&mut self, used: &Use) {
        let push = |bits: &mut u8, is: bool| *bits = (*bits << 1) | u8::from(is);
        push(&mut self.piece, used.piece);
        push(&mut self.state, used.reads > 0);
        push(&mut self.again, used.reads > 1);
    }

    /// Returns whether it is read as a piece.
    pub(super) fn is_piece(self) -> bool {
        self.piece != 0
    }

    /// Returns whether plain calls read it.
    pub(super) fn is_state(self) -> bool {
        self.state != 0
    }

    /// Returns whether a quarter of the visits that read it by plain calls do so more than once.
    /// Bringing it again in vain costs its bytes, and not to bring it a trip.
    pub(super) fn is_again(self) -> bool {
        self.again != 0 && 4 * self.again.count_ones() >= self.state.count_ones()
    }

    /// Adds what else is known of the same key.
    pub(super) fn join(&mut self, other: Self) {
        self.piece |= other.piece;
        self.state |= other.state;
        self.again |= other.again;
    }

    /// Returns the form that workers exchange.
    pub(super) fn bits(self) -> u8 {
        u8::from(self.is_piece())
            | (u8::from(self.is_state()) << 1)
            | (u8::from(self.is_again()) << 2)
    }

    /// Reads that form.
    pub(super) fn of(bits: u8) -> Self {
        Self {
            piece: bits & 1,
            state: (bits >> 1) & 1,
            again: (bits >> 2) & 1,
        }
    }
}

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
    pub(super) kinds: Kinds,
    /// Whether the key may open something for whoever knows it.
    pub(super) secret: bool,
}

impl Usage {
    /// Returns the usage of a key that was read for the first time.
    pub(super) fn first(used: &Use, secret: bool) -> Self {
        let mut kinds = Kinds::default();
        kinds.note(used);
        Self {
            share: 1.0,
            visits: 1,
            missed: false,
            bytes: used.bytes,
            kinds,
            secret,
        }
    }

    /// Whether more than one visit used it.
    pub(super) fn is_repeated(&self) -> bool {
        self.share * f32::from(self.visits) > 1.5
    }

    /// Notes one more visit, and how that read the key if it did.
    pub(super) fn note(&mut self, used: Option<&Use>) {
        self.visits = (self.visits + 1).min(WINDOW);
        let hit = if used.is_some() { 1.0 } else { 0.0 };
        self.share += (hit - self.share) / f32::from(self.visits);
        self.missed = used.is_none();
        if let Some(used) = used {
            self.bytes = used.bytes;
            self.kinds.note(used);
        }
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

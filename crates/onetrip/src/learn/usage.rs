//! How often and how a key was used recently.

use super::report::Use;

/// Visits that count. Older ones have faded.
pub(super) const WINDOW: u16 = 16;

/// How the last eight visits that read a key read it: one bit each.
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
    /// Bringing it again without need costs its bytes; not bringing it costs a trip.
    pub(super) fn is_again(self) -> bool {
        self.again != 0 && 4 * self.again.count_ones() >= self.state.count_ones()
    }

    /// Merges what else is known of the same key.
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

    /// Parses that form.
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
    /// From 0 to 1: a plain mean at first, then one in which older visits fade.
    pub(super) share: f32,
    pub(super) visits: u16,
    /// Whether the last visit could have used it and did not.
    pub(super) missed: bool,
    /// Bytes of its entry when last seen; 0 if it was absent.
    pub(super) bytes: u32,
    pub(super) kinds: Kinds,
    /// Whether knowing the key may give access to something.
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

    /// Returns whether more than one visit used it.
    pub(super) fn is_repeated(&self) -> bool {
        self.share * f32::from(self.visits) > 1.5
    }

    /// Notes one more visit, and how it read the key, if it did.
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
    /// Merges what another worker saw of the same key, weighted by visits.
    pub(super) fn weigh(&mut self, other: &Self) {
        let (mine, theirs) = (f32::from(self.visits), f32::from(other.visits));
        self.share = (self.share * mine + other.share * theirs) / (mine + theirs);
        self.visits = self.visits.max(other.visits);
    }
}

/// How a route's keys tend to behave, for keys whose own past says little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Of keys used once: those of a moving list are used again, those of a seldom shown part are
    /// not.
    after_first: Ratio,
    /// Of keys missed once: those that a list left behind do not come back, occasionally used ones
    /// do.
    after_miss: Ratio,
}

/// Actual uses over expected uses.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    used: f32,
    expected: f32,
}

/// Weight of the initial guess, in observations.
const PRIOR: f32 = 2.0;
/// How fast old observations fade.
const FADE: f32 = 0.98;

impl Default for Ratio {
    fn default() -> Self {
        Self {
            used: PRIOR,
            expected: PRIOR,
        }
    }
}

impl Ratio {
    fn note(&mut self, expected: f32, used: bool) {
        self.used = self.used * FADE + if used { 1.0 } else { 0.0 };
        self.expected = self.expected * FADE + expected;
    }

    fn value(self) -> f32 {
        (self.used / self.expected).min(1.0)
    }
}

impl Habits {
    /// Notes whether a visit used a key. Call it before the key's own usage notes the visit.
    pub(super) fn note(&mut self, usage: &Usage, used: bool) {
        if usage.missed {
            self.after_miss.note(usage.share, used);
        } else if usage.visits == 1 {
            self.after_first.note(usage.share, used);
        }
    }

    /// Returns the chance that the next visit uses a key, from 0 to 1.
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

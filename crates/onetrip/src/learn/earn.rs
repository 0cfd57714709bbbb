//! How a key earns a place in a snapshot.
//!
//! Plain calls read *state*: sessions, locks, throttles, counters, and also lists, menus and
//! settings that a program caches by hand. A snapshot answers a plain read with a value up to 0.1
//! seconds old. That is right for a menu and wrong for a throttle, and neither key nor value tells
//! the two apart. Visits do: a program *fills* a menu that it found absent, and *changes* a
//! throttle that it found.
//!
//! # The rule
//!
//! A key earns its place when
//!
//! 1. plain calls read it in at least three visits of a GET or HEAD page;
//! 2. at most one in eight visits that tested it changed it;
//! 3. no page added, incremented or locked it, nor another key of its shape;
//! 4. it is no secret: no session, and no token.
//!
//! A visit *tests* a key if it reads and writes it, or sees it at two moments. A test *changes* it
//! if the visit wrote or deleted what it had found, or saw something else the second time. Setting
//! an absent key (a fill) and writing back the same bytes are not changes.
//!
//! Two ledgers are kept, one of tests that wrote and one of tests that only compared. A key has to
//! pass both: a page that reads a throttle twice does not make up for a page that counts in it.
//!
//! A second read that the same snapshot answers is no test. Once a key has earned its place, short
//! visits would never show its changes. So one visit in sixteen to a page reads repeated keys from
//! the store. That costs one more trip.
//!
//! Visits that only read a key, or only write it, are no tests. A throttle is only read while its
//! limit is reached, so it must not earn by such visits. An unread write is how programs announce
//! that a menu or a table changed, which says nothing against it. A key that no visit tests has
//! nothing against it.
//!
//! All pages test, also POST pages and scopes without a name: what an order page changes is just as
//! changed for a page that shows it. Only visits of GET and HEAD pages count as reads.
//!
//! | use | what visits do | earns? |
//! | --- | --- | --- |
//! | menu, cached by hand | read it; set it when absent | yes |
//! | table stamp of cachalot | read it; set it when absent; a POST page sets it unread | yes |
//! | site settings | read them; an editor's page sets or deletes them unread | yes |
//! | throttle | read it, set it one higher; only read it at the limit | no: changed |
//! | cart | GET pages read it; a POST page reads it and sets it | no: changed |
//! | hand-over | read it, delete what was found | no: changed |
//! | lock | add it, delete it | no: added |
//! | counter | increment it; read it | no: incremented |
//! | session | read it | no: named `session` |
//! | token | read it | no: a random piece that no argument explains |
//!
//! # Whose tests count
//!
//! The process identifies a key by its hash, whichever page uses it. A key with few tests of its
//! own is also judged by those of its *template* (`note:{id}`) and of its *shape* (`note:#`). So a
//! page that nobody visited finds its keys, and the throttle of a new address is recognised.
//! Templates and shapes mix many keys, most of them new and only filled, so their bound is
//! stricter: at most one change in 32 tests. From eight tests on, only a key's own count.
//!
//! Old tests fade. A key that lost its place regains it by tests without a change.
//!
//! # Absence
//!
//! A snapshot answers an absence once: a program that asks again waits for the key to appear. An
//! absence answers more than one read only if the key was absent at each of the last eight visits,
//! and no page ever set it or another key of its shape.

use super::report::Use;

/// Visits that must have read a key.
pub(super) const READS: u8 = 3;

/// Consecutive visits that must have found a key absent.
const ABSENCES: u8 = 8;

/// Tests from which on only a key's own count.
const ENOUGH: u8 = 8;

/// Whether counts are of one key or of many. Each has its own window; the larger has the stricter
/// bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// One key.
    Key,
    /// All keys of a template or of a shape.
    Many,
}

impl Scale {
    /// Tests that count. Older ones have faded.
    fn window(self) -> u8 {
        match self {
            Self::Key => 16,
            Self::Many => 64,
        }
    }

    /// Returns the largest share of tests that may change something, after fading.
    ///
    /// Until the window is full the share is a plain mean, with room for rounding. After that the
    /// latest change weighs more, so the bound allows one in eight (or 32) at a steady rate.
    fn bound(self, tests: u8) -> f32 {
        match (self, tests < self.window()) {
            (Self::Key, true) => 0.126,
            (Self::Key, false) => 0.16,
            (Self::Many, true) => 0.032,
            (Self::Many, false) => 0.041,
        }
    }
}

/// Tests of a key, and the share of them that changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tests {
    /// In units of 1/65,535.
    pub(super) changed: u16,
    pub(super) count: u8,
}

impl Tests {
    fn note(&mut self, changed: bool, scale: Scale) {
        self.count = self.count.saturating_add(1).min(scale.window());
        let share = f32::from(self.changed);
        let outcome = if changed { f32::from(u16::MAX) } else { 0.0 };
        self.changed = (share + (outcome - share) / f32::from(self.count)) as u16;
    }

    fn pass(self, scale: Scale) -> bool {
        f32::from(self.changed) / f32::from(u16::MAX) <= scale.bound(self.count)
    }

    /// Merges what another worker saw, weighted by tests.
    fn weigh(&mut self, other: Self) {
        let (mine, theirs) = (f32::from(self.count), f32::from(other.count));
        if other.count > 0 {
            let sum = f32::from(self.changed) * mine + f32::from(other.changed) * theirs;
            self.changed = (sum / (mine + theirs)) as u16;
            self.count = self.count.max(other.count);
        }
    }
}

/// Counts of visits to a key, or to all keys of a template or of a shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tests that wrote, and tests that only compared.
    pub(super) wrote: Tests,
    pub(super) reread: Tests,
    /// Visits of GET and HEAD pages that read it; saturates.
    pub(super) reads: u8,
    /// Consecutive visits that found it absent; saturates.
    pub(super) absent: u8,
    /// Whether it was added, incremented or locked.
    pub(super) exact: bool,
    /// Whether any page set it.
    pub(super) set: bool,
}

/// [`Counts`] as workers exchange them.
pub(super) type CountsRow = (u16, u8, u16, u8, u8, u8, bool, bool);

impl Counts {
    /// Notes one visit; `safe` if it was of a GET or HEAD page.
    pub(super) fn note(&mut self, used: &Use, safe: bool, scale: Scale) {
        self.exact |= used.exact;
        if used.reads > 0 {
            if used.wrote {
                self.wrote.note(used.changed, scale);
            } else if used.compared || used.changed {
                self.reread.note(used.changed, scale);
            }
            if safe {
                self.reads = self.reads.saturating_add(1).min(ABSENCES);
            }
            let is_absent = used.absent && !used.found;
            self.absent = if is_absent {
                self.absent.saturating_add(1).min(ABSENCES)
            } else {
                0
            };
        }
        // A fetch stores what it missed.
        if used.wrote || used.piece {
            self.set = true;
            self.absent = 0;
        }
    }

    /// Returns how much this matters to other workers (lower is more), or `None` if it does not.
    pub(super) fn against(&self) -> Option<u8> {
        match self {
            Self { exact: true, .. } => Some(0),
            counts if counts.wrote.changed > 0 || counts.reread.changed > 0 => Some(1),
            Self { set: true, .. } => Some(2),
            _ => None,
        }
    }

    /// Merges what another worker saw.
    pub(super) fn weigh(&mut self, other: &Self) {
        // Consecutive absences are counted locally once there are local reads.
        if self.reads == 0 {
            self.absent = other.absent;
        }
        self.wrote.weigh(other.wrote);
        self.reread.weigh(other.reread);
        self.reads = self.reads.max(other.reads);
        self.exact |= other.exact;
        self.set |= other.set;
    }

    pub(super) fn row(&self) -> CountsRow {
        let Tests { changed, count } = self.wrote;
        let again = self.reread;
        (
            changed,
            count,
            again.changed,
            again.count,
            self.reads,
            self.absent,
            self.exact,
            self.set,
        )
    }

    /// Parses a row, which may be hostile.
    pub(super) fn of(row: CountsRow, scale: Scale) -> Self {
        let tests = |changed, count: u8| match count.min(scale.window()) {
            0 => Tests::default(),
            count => Tests { changed, count },
        };
        let (wrote, wrote_tests, reread, reread_tests, reads, absent, exact, set) = row;
        Self {
            wrote: tests(wrote, wrote_tests),
            reread: tests(reread, reread_tests),
            reads: reads.min(ABSENCES),
            absent: absent.min(ABSENCES),
            exact,
            set,
        }
    }
}

/// All that is known of one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    pub(super) own: Counts,
    pub(super) shape: Counts,
    /// Counts of the template that makes the key; empty if none does.
    pub(super) template: Counts,
}

impl Evidence {
    /// Returns whether it must always be read from the store.
    pub(super) fn is_exact(&self) -> bool {
        self.own.exact || self.shape.exact || self.template.exact
    }

    /// Returns whether the key has earned its place. Secrets are checked elsewhere.
    pub(super) fn has_earned(&self) -> bool {
        let Self {
            own,
            shape,
            template,
        } = self;
        let pass = |ledger: fn(&Counts) -> Tests| {
            let [own, shape, template] = [own, shape, template].map(ledger);
            own.pass(Scale::Key)
                && (own.count >= ENOUGH || (shape.pass(Scale::Many) && template.pass(Scale::Many)))
        };
        !self.is_exact()
            && own.reads.max(template.reads) >= READS
            && pass(|counts| counts.wrote)
            && pass(|counts| counts.reread)
    }

    /// Returns whether its absence has earned its place, too.
    pub(super) fn is_lasting(&self) -> bool {
        let Self {
            own,
            shape,
            template,
        } = self;
        let always =
            own.absent >= ABSENCES || (own.absent >= own.reads && template.absent >= ABSENCES);
        always && !own.set && !shape.set && !template.set
    }
}

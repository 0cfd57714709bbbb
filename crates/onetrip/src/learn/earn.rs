//! What a key has to do to earn a place in a snapshot.
//!
//! Plain calls read *state*: sessions, locks, throttles, counters, and also lists, menus and
//! settings that a program caches by hand. A snapshot answers a plain read with what is up to 0.1
//! seconds old. That is right for a menu and wrong for a throttle, and nothing in a key or a value
//! tells the two apart. What visits do with them does: a program *fills* a menu that it found
//! absent, and *changes* a throttle that it found.
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
//! A visit *tests* a key if it reads and writes it, or sees it at two moments. A test *changes* it if
//! the visit wrote or deleted what it had found, or saw something else the second time. Two tests
//! change nothing: setting what was absent, which is a fill, and writing back the same bytes.
//!
//! Two ledgers are kept, one of tests that wrote and one of tests that only saw twice, and a key has
//! to pass both: a page that reads a throttle twice does not make up for one that counts in it.
//!
//! A second read that the same snapshot answers is no test. Once a key has earned its place, its
//! changes would never show in short visits. So in one visit in sixteen to a page, what is read a
//! second time is read from the store. That costs one trip more.
//!
//! Visits that only read a key, or only write it, count for neither side. A throttle reads without
//! writing exactly while its limit is reached, so it must not earn by such visits; and an unread
//! write is how programs tell that a menu or a table changed, which says nothing against it. A key
//! that no visit tests has nothing against it.
//!
//! All pages test, also POST pages and scopes without a name: what an order page changes is no less
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
//! A key is known to the process by its hash, whichever page uses it. A key with few tests of its own
//! is judged by those of its *template* (`note:{id}`) and of its *shape* (`note:#`) as well, so that
//! a page that nobody visited finds its keys, and the throttle of an address seen for the first time
//! is known for what it is. These mix many keys, of which most are new and only filled, so they have
//! to be better: at most one change in 32 tests. From eight tests on a key's own decide alone.
//!
//! Old tests fade. A key that lost its place regains it by tests that change nothing.
//!
//! # Absence
//!
//! A snapshot answers an absence once: a program that asks again waits for the key to come. An
//! absence is good for more only if the key was absent at each of the last eight visits, and no page
//! ever set it, nor another key of its shape.

use super::report::Use;

/// Visits that have to read a key.
pub(super) const READS: u8 = 3;

/// Visits at which a key has to be absent.
const ABSENCES: u8 = 8;

/// Tests from which on a key is judged by its own alone.
const ENOUGH: u8 = 8;

/// What a process knows of many keys: each has to pass with its own window, and larger ones with
/// stricter bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// One key.
    Key,
    /// All keys of a template or of a shape.
    Many,
}

impl Scale {
    /// Tests that count; what was longer ago has faded.
    fn window(self) -> u8 {
        match self {
            Self::Key => 16,
            Self::Many => 64,
        }
    }

    /// The largest share of tests that may change something, as they fade and as they are counted.
    ///
    /// Until the window is full it is a plain mean, with room for rounding. Then the latest change
    /// weighs more than its share, so there is room for one in eight (or 32) at a steady pace.
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
    /// Of 65,535.
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

    /// Takes in what another worker saw: each counts by its tests.
    fn weigh(&mut self, other: Self) {
        let (mine, theirs) = (f32::from(self.count), f32::from(other.count));
        if other.count > 0 {
            let sum = f32::from(self.changed) * mine + f32::from(other.changed) * theirs;
            self.changed = (sum / (mine + theirs)) as u16;
            self.count = self.count.max(other.count);
        }
    }
}

/// What visits did with a key, or with all keys of a template or of a shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tests that wrote, and those that only read twice.
    pub(super) wrote: Tests,
    pub(super) reread: Tests,
    /// Visits of GET and HEAD pages that read it, as far as they are needed.
    pub(super) reads: u8,
    /// Visits in a row that found it absent, as far as they are needed.
    pub(super) absent: u8,
    /// Whether it was added, incremented or locked.
    pub(super) exact: bool,
    /// Whether any page set it.
    pub(super) set: bool,
}

/// Numbers of [`Counts`] as workers exchange them.
pub(super) type CountsRow = (u16, u8, u16, u8, u8, u8, bool, bool);

impl Counts {
    /// Notes what a visit did: one of a GET or HEAD page if it is `safe`.
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

    /// Returns whether other workers should know, in the order of how much that matters.
    pub(super) fn against(&self) -> Option<u8> {
        match self {
            Self { exact: true, .. } => Some(0),
            counts if counts.wrote.changed > 0 || counts.reread.changed > 0 => Some(1),
            Self { set: true, .. } => Some(2),
            _ => None,
        }
    }

    /// Takes in what another worker saw.
    pub(super) fn weigh(&mut self, other: &Self) {
        // Absences in a row are one's own, once there are any reads.
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

    /// Reads a row, which may have been made by anybody.
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
    /// Of the template that makes the key; nothing if none does.
    pub(super) template: Counts,
}

impl Evidence {
    /// Returns whether it has to be read exactly whatever visits do.
    pub(super) fn is_exact(&self) -> bool {
        self.own.exact || self.shape.exact || self.template.exact
    }

    /// Returns whether the key has earned its place. Whether it is a secret is told elsewhere.
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

    /// Returns whether its absence has, too.
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

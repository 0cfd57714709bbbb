//! Visits, predictions, and reports on how well predictions worked.

use std::sync::Arc;

use hashbrown::HashMap;

use super::recent::Recent;
use super::route::Route;

/// How one visit used one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Bytes of its entry when last seen; 0 if it was absent.
    pub bytes: u32,
    /// Whether it was read as a piece: by a fetch, or preloaded by name.
    pub piece: bool,
    /// How often a plain call read it.
    pub reads: u16,
    /// Whether a plain read found it.
    pub found: bool,
    /// Whether the last plain read found nothing.
    pub absent: bool,
    /// Whether it was seen at two moments: by two reads that the store answered, or by a read and a
    /// later snapshot.
    pub compared: bool,
    /// Whether a plain call set, touched or deleted it.
    pub wrote: bool,
    /// Whether it was changed after it was found, deleted, or different when read again. Setting an
    /// absent key is no change.
    pub changed: bool,
    /// Whether it was added, incremented or locked: processes coordinate by it.
    pub exact: bool,
}

impl Use {
    /// Returns whether it was read. A key that was only written is not learned.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.piece || self.reads > 0
    }

    /// Returns whether only plain calls read it.
    #[must_use]
    pub fn is_state(&self) -> bool {
        self.reads > 0 && !self.piece
    }
}

/// A key that a visit is likely to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// The key.
    pub key: Vec<u8>,
    /// Bytes of its entry when last seen; 0 if it was absent.
    pub bytes: u32,
    /// Whether it is read as a piece.
    pub piece: bool,
    /// Whether plain calls read it and it has earned a place in a snapshot.
    pub state: bool,
    /// Whether its absence has earned its place, too: it then answers more than one read.
    pub lasting: bool,
    /// Whether a visit is likely to read it more than once by plain calls.
    pub again: bool,
}

/// The keys and trips of one visit to a page.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// Keys that were read or written, and how.
    pub uses: HashMap<Box<[u8]>, Use>,
    /// Keys preloaded for it, with the bytes of their entries.
    pub ahead: HashMap<Box<[u8]>, u32>,
    /// Trips made to read.
    pub trips: u32,
}

/// Statistics of one route: its visits, and how well its predictions worked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PageReport {
    /// Its name.
    pub route: Arc<str>,
    /// Visits that were learned from.
    pub visits: u64,
    /// Different keys that they read. Without preloading, each would cost a trip.
    pub reads: u64,
    /// Reads of keys that may not be preloaded: plain calls read them, and they have not earned a
    /// place in a snapshot.
    pub exact: u64,
    /// Trips they made to read.
    pub trips: u64,
    /// Keys that were preloaded.
    pub preloaded: u64,
    /// Preloaded keys that were read.
    pub used: u64,
    /// Bytes of entries that were preloaded.
    pub bytes: u64,
    /// Preloaded bytes that were not read.
    pub unused_bytes: u64,
    /// Keys as functions of the page's arguments, with the share of visits that read them.
    pub templates: Vec<(String, f32)>,
}

impl PageReport {
    /// Returns the share of keys read that were preloaded, from 0 to 1. Keys that must be read from
    /// the store do not count.
    #[must_use]
    pub fn recall(&self) -> f64 {
        share(self.used, self.reads.saturating_sub(self.exact))
    }

    /// Returns the share of preloaded keys that were read, from 0 to 1.
    #[must_use]
    pub fn precision(&self) -> f64 {
        share(self.used, self.preloaded)
    }

    /// Returns the share of preloaded bytes that were not read, from 0 to 1.
    #[must_use]
    pub fn waste(&self) -> f64 {
        share(self.unused_bytes, self.bytes)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// Sums over the visits to a route.
#[derive(Debug, Default)]
pub(super) struct Totals {
    visits: u64,
    reads: u64,
    exact: u64,
    trips: u64,
    preloaded: u64,
    used: u64,
    bytes: u64,
    unused_bytes: u64,
    /// Means over recent visits of all workers.
    pub(super) recent: Recent,
}

impl Totals {
    /// Notes a visit; `exact` of its keys had to be read from the store.
    pub(super) fn note(&mut self, visit: &Visit, exact: u64) {
        let (mut used, mut bytes, mut unused_bytes) = (0, 0, 0);
        for (key, size) in &visit.ahead {
            bytes += u64::from(*size);
            if visit.uses.get(key).is_some_and(Use::is_read) {
                used += 1;
            } else {
                unused_bytes += u64::from(*size);
            }
        }
        let reads = visit.uses.values().filter(|used| used.is_read()).count() as u64;
        let preloaded = visit.ahead.len() as u64;
        let trips = u64::from(visit.trips);
        self.visits += 1;
        self.reads += reads;
        self.exact += exact;
        self.trips += trips;
        self.preloaded += preloaded;
        self.used += used;
        self.bytes += bytes;
        self.unused_bytes += unused_bytes;
        let amounts = [reads, exact, trips, preloaded, used, bytes, unused_bytes];
        self.recent.note(amounts.map(|amount| amount as f32));
    }

    pub(super) fn report(&self, name: Arc<str>, route: &Route) -> PageReport {
        PageReport {
            route: name,
            visits: self.visits,
            reads: self.reads,
            exact: self.exact,
            trips: self.trips,
            preloaded: self.preloaded,
            used: self.used,
            bytes: self.bytes,
            unused_bytes: self.unused_bytes,
            templates: templates(route),
        }
    }
}

/// Reports what all workers know of a route, from its record. Sums are over recent visits.
pub(super) fn shared(name: Arc<str>, route: &Route, recent: &Recent) -> PageReport {
    let [reads, exact, trips, preloaded, used, bytes, unused_bytes] = recent.sums();
    PageReport {
        route: name,
        visits: recent.visits(),
        reads,
        exact,
        trips,
        preloaded,
        used,
        bytes,
        unused_bytes,
        templates: templates(route),
    }
}

fn templates(route: &Route) -> Vec<(String, f32)> {
    let mut templates: Vec<_> = route
        .templates()
        .map(|(template, usage)| (template.to_string(), usage.share))
        .collect();
    templates.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    templates
}

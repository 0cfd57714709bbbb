//! What is being computed, so that callers of this process who miss the same key compute it once.
//!
//! A *flight* lasts from a miss until its value is stored. Who misses the key meanwhile waits for
//! it, if law 13 lets them join; everybody else computes for themselves. Only what was stored is
//! shared, as the entry that it is, so each gets a value of its own.
//!
//! Waiting never closes a circle: a context knows the flights that its code computes for, and a
//! flight knows those that its code waits for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{self, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::latch::Latch;
use crate::process::PerProcess;
use crate::scope::next_in_order;
use crate::write_clock::{self, Slot, Stamp};

/// How long a flight is waited for whose cost is not known.
const PATIENCE: Duration = Duration::from_secs(1);

/// A flight is waited for at least this long. What mostly takes a millisecond takes many where a
/// machine is busy, and to compute it in all threads would make that worse.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// Keys whose cost is remembered, by their slot.
const COSTS: usize = 1 << 10;

/// Who computes or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread, which its computing and waiting hold up.
    Thread,
    /// A greenlet: others of its thread go on while it waits.
    Greenlet,
    /// A task. A thread must not wait for it: it may hold up the task's event loop.
    Task,
}

/// A store, told from the others of this process.
pub(crate) type StoreId = usize;

/// A value that is being computed.
#[derive(Debug)]
pub(crate) struct Flight {
    store: StoreId,
    name: Bytes,
    slot: Slot,
    owner: Caller,
    thread: ThreadId,
    /// Whether others may wait for it.
    shared: bool,
    /// Its place in the order of scopes and flights.
    began: u64,
    started: Instant,
    stamp: Stamp,
    costs: Arc<Costs>,
    over: Latch,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was stored. None before, and if nothing was.
    entry: Option<Bytes>,
    /// Whether its key was written or deleted since it began.
    outdated: bool,
    /// The flights that its owner waits for.
    waits_for: SmallVec<[Arc<Flight>; 1]>,
}

/// The flights that some code computes for, innermost first.
#[derive(Debug)]
pub struct Computing {
    flights: SmallVec<[Arc<Flight>; 1]>,
    outer: Option<Arc<Computing>>,
}

impl Computing {
    fn all(&self) -> impl Iterator<Item = &Arc<Flight>> {
        let levels = std::iter::successors(Some(self), |level| level.outer.as_deref());
        levels.flat_map(|level| &level.flights)
    }
}

type Table = HashMap<Bytes, SmallVec<[Arc<Flight>; 1]>>;

/// How many flights there are, so that a write need not look for them.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What computing the keys of one cache cost, in microseconds, by their slots.
#[derive(Debug, Default)]
pub(crate) struct Costs(OnceLock<Box<[AtomicU32]>>);

impl Costs {
    /// Returns what the key last cost. Zero if that is not known.
    fn of(&self, slot: Slot) -> u32 {
        let cost = self
            .0
            .get()
            .and_then(|costs| costs.get(slot.index() % COSTS));
        cost.map_or(0, |cost| cost.load(Ordering::Relaxed))
    }

    fn note(&self, slot: Slot, span: Duration) {
        let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        let costs = self
            .0
            .get_or_init(|| (0..COSTS).map(|_| AtomicU32::new(0)).collect());
        if let Some(cost) = costs.get(slot.index() % COSTS) {
            cost.store(micros.max(1), Ordering::Relaxed);
        }
    }
}

fn flights<T>(look: impl FnOnce(&mut Table) -> T) -> T {
    // Of each process its own: a forked child has no other thread that could end a flight.
    static TABLE: OnceLock<PerProcess<Mutex<Table>>> = OnceLock::new();
    let table = TABLE.get_or_init(PerProcess::default);
    table.with(|table| look(&mut table.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Notes that a name is written or deleted: what is being computed of it is out of date. Of every
/// store: two caches may have one under two URLs.
pub(crate) fn outdate(name: &[u8]) {
    if COUNT.load(Ordering::SeqCst) == 0 {
        return;
    }
    flights(|table| {
        for flight in table.get(name).into_iter().flatten() {
            flight.state().outdated = true;
        }
    });
}

/// Notes that all names are cleared that begin with `prefix`.
pub(crate) fn outdate_all(prefix: &[u8]) {
    if COUNT.load(Ordering::SeqCst) == 0 {
        return;
    }
    flights(|table| {
        for (name, flights) in table {
            if name.starts_with(prefix) {
                flights
                    .iter()
                    .for_each(|flight| flight.state().outdated = true);
            }
        }
    });
}

/// What a caller who missed a key is to do.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Compute it.
    Compute(Making),
    /// Wait for another caller who does.
    Wait(Waiting),
}

/// Who claims, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) caller: Caller,
    /// The flights that it computes for already.
    pub(crate) computing: Option<&'a Arc<Computing>>,
    pub(crate) costs: &'a Arc<Costs>,
    /// Whether it may wait for another.
    pub(crate) joins: bool,
    /// Whether others may wait for it.
    pub(crate) shared: bool,
}

/// Claims the computing of a name, or joins a flight that `may_join` lets this caller join by its
/// place in the order.
pub(crate) fn claim(
    store: StoreId,
    name: Bytes,
    slot: Slot,
    claimant: Claimant<'_>,
    may_join: impl Fn(u64) -> bool,
) -> Claim {
    let joins = |flight: &Arc<Flight>| {
        claimant.joins
            && flight.store == store
            && flight.shared
            && flight.may_be_waited_for_by(claimant.caller)
            && !flight.state().outdated
            && may_join(flight.began)
            && !closes_circle(flight, claimant.computing)
    };
    flights(|table| {
        let found = table.entry(name.clone()).or_default();
        if let Some(flight) = found.iter().find(|flight| joins(flight)) {
            let flight = Arc::clone(flight);
            let waits = claimant.computing.into_iter().flat_map(|level| level.all());
            let waits: SmallVec<[Arc<Flight>; 1]> = waits.cloned().collect();
            for waiting in &waits {
                waiting.state().waits_for.push(Arc::clone(&flight));
            }
            return Claim::Wait(Waiting { flight, by: waits });
        }
        let flight = Arc::new(Flight {
            store,
            name,
            slot,
            owner: claimant.caller,
            thread: thread::current().id(),
            shared: claimant.shared,
            began: next_in_order(),
            started: Instant::now(),
            stamp: write_clock::stamp(),
            costs: Arc::clone(claimant.costs),
            over: Latch::default(),
            state: Mutex::default(),
        });
        found.push(Arc::clone(&flight));
        COUNT.fetch_add(1, Ordering::SeqCst);
        Claim::Compute(Making(flight))
    })
}

/// Returns whether code that computes for `computing` would wait for itself if it waited for
/// `flight`.
fn closes_circle(flight: &Arc<Flight>, computing: Option<&Arc<Computing>>) -> bool {
    let Some(computing) = computing else {
        return false;
    };
    let mut seen: SmallVec<[Arc<Flight>; 8]> = SmallVec::new();
    let mut next: SmallVec<[Arc<Flight>; 8]> = smallvec::smallvec![Arc::clone(flight)];
    while let Some(flight) = next.pop() {
        if computing.all().any(|own| Arc::ptr_eq(own, &flight)) {
            return true;
        }
        if !seen.iter().any(|seen| Arc::ptr_eq(seen, &flight)) {
            next.extend(flight.state().waits_for.iter().cloned());
            seen.push(flight);
        }
    }
    false
}

impl Flight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether such a caller may wait for it, on this thread.
    fn may_be_waited_for_by(&self, caller: Caller) -> bool {
        match caller {
            Caller::Task => true,
            Caller::Greenlet => self.owner != Caller::Task,
            // Its owner may be the very code that this thread has left for a while.
            Caller::Thread => self.owner != Caller::Task && self.thread != thread::current().id(),
        }
    }

    /// Ends it. A later one may begin.
    fn end(self: &Arc<Self>, entry: Option<Bytes>) {
        flights(|table| {
            if let Some(found) = table.get_mut(&self.name) {
                let before = found.len();
                found.retain(|flight| !Arc::ptr_eq(flight, self));
                // In a forked child the table is new, and so is what it counts.
                if found.len() < before {
                    COUNT.fetch_sub(1, Ordering::SeqCst);
                }
                if found.is_empty() {
                    table.remove(&self.name);
                }
            }
        });
        let mut state = self.state();
        state.entry = entry;
        state.waits_for.clear();
        drop(state);
        self.over.set();
    }
}

/// The right and the duty to compute a value. Dropped before it is ended, it has failed.
#[derive(Debug)]
pub(crate) struct Making(Arc<Flight>);

impl Making {
    /// Returns whether its key was written or deleted since it began: its value is out of date.
    pub(crate) fn is_outdated(&self) -> bool {
        self.0.state().outdated
    }

    /// Gives those who wait what was stored, and notes what that cost.
    pub(crate) fn share(self, entry: Bytes) {
        // At the end, not before: a flight of several values goes on when the first is computed.
        let flight = &self.0;
        flight.costs.note(flight.slot, flight.started.elapsed());
        self.0.end(Some(entry));
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.0.over.is_set() {
            self.0.end(None);
        }
    }
}

/// Returns the flights of code that computes all of `makings`, within others.
pub(crate) fn computing<'m>(
    makings: impl Iterator<Item = &'m Making>,
    outer: Option<&Arc<Computing>>,
) -> Arc<Computing> {
    Arc::new(Computing {
        flights: makings.map(|making| Arc::clone(&making.0)).collect(),
        outer: outer.cloned(),
    })
}

/// A place among those who wait for a flight.
#[derive(Debug)]
pub struct Waiting {
    flight: Arc<Flight>,
    /// The flights that wait meanwhile.
    by: SmallVec<[Arc<Flight>; 1]>,
}

impl Waiting {
    /// Returns how much longer to wait: until twice the known cost of the key has passed, or one
    /// second.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let all = match self.flight.costs.of(self.flight.slot) {
            0 => PATIENCE,
            micros => (2 * Duration::from_micros(micros.into())).max(LEAST_PATIENCE),
        };
        all.saturating_sub(self.flight.started.elapsed())
    }

    /// Returns whether the flight is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.flight.over.is_set()
    }

    /// Waits on this thread, at most for `patience`. Returns whether the flight is over.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.flight.over.wait(patience)
    }

    /// Is ready once the flight is over, and wakes the task then.
    pub fn poll(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.flight.over.poll(context)
    }

    /// Returns what the flight stored, unless it failed, goes on, or its key was written since.
    pub(crate) fn entry(&self) -> Option<Bytes> {
        let flight = &self.flight;
        // A flight that is over no longer hears of writes, and its slot does.
        let is_current = flight.slot.is_unwritten_since(flight.stamp);
        let state = flight.state();
        state
            .entry
            .clone()
            .filter(|_| is_current && !state.outdated)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for waiting in &self.by {
            let mut state = waiting.state();
            let place = state
                .waits_for
                .iter()
                .position(|flight| Arc::ptr_eq(flight, &self.flight));
            if let Some(place) = place {
                state.waits_for.remove(place);
            }
        }
    }
}

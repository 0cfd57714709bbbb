//! Single flight: callers in this process that miss the same key compute it once.
//!
//! A *flight* lasts from a miss until its value is stored. Callers that miss the key meanwhile wait
//! for it if law 13 lets them join; all others compute for themselves. Only the stored entry is
//! shared, so each caller decodes a value of its own.
//!
//! Waiting never deadlocks: a context knows the flights that its code computes for, a flight knows
//! the flights that its code waits for, and a caller that would close a circle computes instead.

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

/// How long callers wait for a flight of unknown cost.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long callers wait at least. On a busy machine a computation of one millisecond takes many,
/// and computing it in all threads would make that worse.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// The number of costs that are remembered, by slot.
const COSTS: usize = 1 << 10;

/// The kind of code that computes or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread, which blocks while it computes or waits.
    Thread,
    /// A greenlet: other greenlets of its thread run while it waits.
    Greenlet,
    /// A task. A thread must not wait for it: the thread may be blocking the task's event loop.
    Task,
}

/// Identifies a store within this process.
pub(crate) type StoreId = usize;

/// A value that is being computed.
#[derive(Debug)]
pub(crate) struct Flight {
    store: StoreId,
    name: Bytes,
    slot: Slot,
    owner: Caller,
    thread: ThreadId,
    /// Whether other callers may wait for it.
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
    /// The stored entry. `None` before the end, and if nothing was stored.
    entry: Option<Bytes>,
    /// Whether its key was written or deleted since the flight began.
    outdated: bool,
    /// The flights that its owner waits for.
    waits_for: SmallVec<[Arc<Flight>; 1]>,
}

/// The flights that a piece of code computes for, innermost first.
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

/// The number of flights. While it is zero, writes skip the table.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The cost of computing each key of a cache, in microseconds, by slot.
#[derive(Debug, Default)]
pub(crate) struct Costs(OnceLock<Box<[AtomicU32]>>);

impl Costs {
    /// Returns the last cost of the key. Zero if unknown.
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

fn flights<T>(body: impl FnOnce(&mut Table) -> T) -> T {
    // One per process: a forked child lacks the threads that would end its parent's flights.
    static TABLE: OnceLock<PerProcess<Mutex<Table>>> = OnceLock::new();
    let table = TABLE.get_or_init(PerProcess::default);
    table.with(|table| body(&mut table.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Marks all flights of a name as outdated when it is written or deleted. Flights of every store:
/// two caches may reach one store by two URLs.
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

/// Marks the flights of all names that begin with `prefix` as outdated.
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

/// What a caller does after a miss.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Compute it.
    Compute(Making),
    /// Wait for the caller that computes it.
    Wait(Waiting),
}

/// The caller of [`claim`], and what it may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) caller: Caller,
    /// The flights that it already computes for.
    pub(crate) computing: Option<&'a Arc<Computing>>,
    pub(crate) costs: &'a Arc<Costs>,
    /// Whether it may wait for another caller.
    pub(crate) joins: bool,
    /// Whether other callers may wait for it.
    pub(crate) shared: bool,
}

/// Joins a flight of `name` if there is one and `may_join` accepts its place in the order.
/// Otherwise claims the computation.
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

    /// Returns whether `caller`, on this thread, may wait for it.
    fn may_be_waited_for_by(&self, caller: Caller) -> bool {
        match caller {
            Caller::Task => true,
            Caller::Greenlet => self.owner != Caller::Task,
            // Its owner may be suspended code of this very thread.
            Caller::Thread => self.owner != Caller::Task && self.thread != thread::current().id(),
        }
    }

    /// Ends the flight.
    fn end(self: &Arc<Self>, entry: Option<Bytes>) {
        flights(|table| {
            if let Some(found) = table.get_mut(&self.name) {
                let before = found.len();
                found.retain(|flight| !Arc::ptr_eq(flight, self));
                // In a forked child the table is new, so it may lack the flight.
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

/// The claim to compute a value. If it is dropped before [`share`](Self::share), the flight failed.
#[derive(Debug)]
pub(crate) struct Making(Arc<Flight>);

impl Making {
    /// Returns whether its value is outdated: its key was written or deleted since it began.
    pub(crate) fn is_outdated(&self) -> bool {
        self.0.state().outdated
    }

    /// Shares the stored entry with the waiters, and notes its cost.
    pub(crate) fn share(self, entry: Bytes) {
        // The cost counts until the end: a flight of several values continues after the first.
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

/// Returns the flights of code that computes all of `makings`, within `outer`.
pub(crate) fn computing<'m>(
    makings: impl Iterator<Item = &'m Making>,
    outer: Option<&Arc<Computing>>,
) -> Arc<Computing> {
    Arc::new(Computing {
        flights: makings.map(|making| Arc::clone(&making.0)).collect(),
        outer: outer.cloned(),
    })
}

/// A caller that waits for a flight.
#[derive(Debug)]
pub struct Waiting {
    flight: Arc<Flight>,
    /// The flights that the caller computes for, which wait too.
    by: SmallVec<[Arc<Flight>; 1]>,
}

impl Waiting {
    /// Returns how much longer to wait. The limit is twice the known cost of the key, or one second
    /// if the cost is unknown.
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

    /// Blocks this thread, at most for `patience`. Returns whether the flight is over.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.flight.over.wait(patience)
    }

    /// Is ready once the flight is over. Wakes the task then.
    pub fn poll(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.flight.over.poll(context)
    }

    /// Returns the entry that the flight stored. `None` if it failed or is not over, or if its key
    /// was written since.
    pub(crate) fn entry(&self) -> Option<Bytes> {
        let flight = &self.flight;
        // Writes after the end of a flight show only in its slot.
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

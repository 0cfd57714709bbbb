//! Deletes that were not delivered, and are kept until they are.
//!
//! Until then they go in front of every trip to the place that missed them, so that no read of
//! this process sees what was to be deleted. Deleting twice does no harm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::PerProcess;
use crate::trip::{Op, Trip};

/// The most deletes that are kept for a store that cannot be reached.
const MOST: usize = 10_000;

/// The deletes that a store is owed, each with the place `P` in the store that missed it.
#[derive(Debug)]
pub(super) struct Owed<P> {
    label: Arc<str>,
    debts: PerProcess<Mutex<Debts<P>>>,
}

#[derive(Debug)]
struct Debts<P> {
    /// When each became owed, counted; a delivery settles only what it carried.
    ops: HashMap<Op, (u64, P)>,
    count: u64,
    lost: u64,
}

/// What is to go ahead of a trip.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) ops: Vec<Op>,
    /// The last of the debts that there were, to [settle](Owed::settle) no later one.
    pub(super) until: u64,
}

/// The deletes of a trip under way. Those not [paid](Self::paid) when it is dropped are owed.
#[derive(Debug)]
pub(super) struct Pledge<'a, P> {
    owed: &'a Owed<P>,
    unpaid: Vec<(Op, P)>,
}

impl<P> Owed<P> {
    pub(super) fn new(label: Arc<str>) -> Self {
        Self {
            label,
            debts: PerProcess::default(),
        }
    }

    fn debts<T>(&self, look: impl FnOnce(&mut Debts<P>) -> T) -> T {
        self.debts
            .with(|debts| look(&mut debts.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Promises to deliver the deletes of `trip`, each to its place.
    pub(super) fn pledge(&self, trip: &Trip, place: impl Fn(&Op) -> P) -> Pledge<'_, P> {
        let deletes = trip.ops().iter();
        Pledge {
            owed: self,
            unpaid: deletes
                .filter(|op| matches!(op, Op::Delete { .. } | Op::Clear { .. }))
                .map(|op| (op.clone(), place(op)))
                .collect(),
        }
    }

    /// What is owed where `concerns` says so.
    pub(super) fn ahead(&self, concerns: impl Fn(&Op, &P) -> bool) -> Ahead {
        self.debts(|debts| Ahead {
            ops: debts
                .ops
                .iter()
                .filter(|(op, (_, place))| concerns(op, place))
                .map(|(op, _)| op.clone())
                .collect(),
            until: debts.count,
        })
    }

    /// Forgets what `paid` says was delivered, among that which was owed by `until`.
    pub(super) fn settle(&self, until: u64, mut paid: impl FnMut(&Op, &mut P) -> bool) {
        self.debts(|debts| {
            if debts.ops.is_empty() {
                return;
            }
            debts
                .ops
                .retain(|op, (since, place)| *since > until || !paid(op, place));
            if debts.ops.is_empty() {
                debts.lost = 0;
            }
        });
    }
}

impl<P> Default for Debts<P> {
    fn default() -> Self {
        Self {
            ops: HashMap::new(),
            count: 0,
            lost: 0,
        }
    }
}

impl<P> Debts<P> {
    /// Adds a delete, unless there are too many. Whether it was the first that is lost.
    fn add(&mut self, op: Op, place: P) -> bool {
        self.count += 1;
        let (count, full) = (self.count, self.ops.len() >= MOST);
        match self.ops.entry(op) {
            Entry::Occupied(mut debt) => {
                debt.insert((count, place));
            }
            Entry::Vacant(_) if full => {
                self.lost += 1;
                return self.lost == 1;
            }
            Entry::Vacant(debt) => {
                debt.insert((count, place));
            }
        }
        false
    }
}

impl<P> Pledge<'_, P> {
    /// Takes off what `paid` says was delivered.
    pub(super) fn paid(&mut self, mut paid: impl FnMut(&Op, &mut P) -> bool) {
        self.unpaid.retain_mut(|(op, place)| !paid(op, place));
    }
}

impl<P> Drop for Pledge<'_, P> {
    fn drop(&mut self) {
        if self.unpaid.is_empty() {
            return;
        }
        let unpaid = std::mem::take(&mut self.unpaid).into_iter();
        let overflows = self.owed.debts(|debts| {
            unpaid
                .filter_map(|(op, place)| debts.add(op, place).then_some(()))
                .count()
        });
        if overflows > 0 {
            log::error!(
                "{} cannot be reached and owes {MOST} deletes; those that follow are lost, and what they were to remove stays until it expires",
                self.owed.label
            );
        }
    }
}

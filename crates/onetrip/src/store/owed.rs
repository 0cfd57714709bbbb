//! Deletes that were not delivered, and are kept until they are.
//!
//! What a store did not hear goes in front of every trip to the place that missed it, so that no
//! read of this process sees what was to be deleted. What a store heard and refused (it is a
//! replica, or does not permit it) is asked again from time to time, and until then what it holds
//! under those names is unknown. Deleting twice does no harm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::process::PerProcess;
use crate::trip::{Op, Reply, Trip};

/// The most deletes that are kept for a store that does not take them.
const MOST: usize = 10_000;

/// How long after a store refused deletes it is asked for them again.
const PAUSE: Duration = Duration::from_secs(1);

/// The deletes that a store is owed, each with the place `P` in the store that missed it.
#[derive(Debug)]
pub(super) struct Owed<P> {
    label: Arc<str>,
    clock: Clock,
    debts: PerProcess<Mutex<Debts<P>>>,
}

#[derive(Debug)]
struct Debts<P> {
    by_op: HashMap<Op, Debt<P>>,
    count: u64,
    lost: u64,
}

#[derive(Debug)]
struct Debt<P> {
    /// When it became owed, counted; a delivery settles only what it carried.
    since: u64,
    place: P,
    /// How it was refused, and when it is tried again.
    refused: Option<(Error, Moment)>,
}

/// What is to go ahead of a trip.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) ops: Vec<Op>,
    /// The last of the debts that there were: [told](Owed::told) are no later ones.
    pub(super) until: u64,
}

/// The deletes of a trip under way. Those not [delivered](Self::told) when it is dropped are owed.
#[derive(Debug)]
pub(super) struct Pledge<'a, P> {
    owed: &'a Owed<P>,
    unpaid: Vec<(Op, P, Option<Error>)>,
}

impl<P> Owed<P> {
    pub(super) fn new(label: Arc<str>, clock: Clock) -> Self {
        Self {
            label,
            clock,
            debts: PerProcess::default(),
        }
    }

    fn debts<T>(&self, look: impl FnOnce(&mut Debts<P>) -> T) -> T {
        self.debts
            .with(|debts| look(&mut debts.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Promises to deliver the deletes of `trip`, each to its place.
    pub(super) fn pledge(&self, trip: &Trip, place: impl Fn(&Op) -> P) -> Pledge<'_, P> {
        let deletes = trip.ops().iter().filter(|op| is_delete(op));
        Pledge {
            owed: self,
            unpaid: deletes.map(|op| (op.clone(), place(op), None)).collect(),
        }
    }

    /// What is owed where `concerns` says so; of what was refused, that whose time has come.
    pub(super) fn ahead(&self, concerns: impl Fn(&Op, &P) -> bool) -> Ahead {
        let now = self.clock.now();
        self.debts(|debts| {
            let mut ops = Vec::new();
            for (op, debt) in &mut debts.by_op {
                match &mut debt.refused {
                    Some((_, again)) if now < *again => continue,
                    _ if !concerns(op, &debt.place) => continue,
                    // One trip at a time tries.
                    Some((_, again)) => *again = now.after(PAUSE),
                    None => {}
                }
                ops.push(op.clone());
            }
            Ahead {
                ops,
                until: debts.count,
            }
        })
    }

    /// Takes in what the store said of debts, each as they were `until` then: nothing against it,
    /// or that it refuses.
    pub(super) fn told<'t>(
        &self,
        answers: impl IntoIterator<Item = (&'t Op, u64, Option<&'t Error>)>,
    ) {
        let again = self.clock.now().after(PAUSE);
        self.debts(|debts| {
            for (op, until, refusal) in answers {
                let Some(debt) = debts.by_op.get_mut(op).filter(|debt| debt.since <= until) else {
                    continue;
                };
                match refusal {
                    Some(error) => debt.refused = Some((error.clone(), again)),
                    None => debts.settle(op),
                }
            }
        });
    }

    /// Takes off the places where the debt of `op`, as it was `until` then, was delivered. Without
    /// one where it is owed it is settled.
    pub(super) fn narrow(&self, op: &Op, until: u64, delivered: impl FnOnce(&mut P) -> bool) {
        self.debts(|debts| {
            if let Some(debt) = debts.by_op.get_mut(op)
                && debt.since <= until
                && delivered(&mut debt.place)
            {
                debts.settle(op);
            }
        });
    }

    /// Marks as unknown what `replies` tell of names whose delete was refused, and forgets the
    /// refusal where they tell that the name was written or deleted since.
    pub(super) fn mask(&self, ops: &[Op], replies: &mut [Reply]) {
        self.debts(|debts| {
            if debts.by_op.values().all(|debt| debt.refused.is_none()) {
                return;
            }
            for (op, reply) in ops.iter().zip(replies) {
                match (op, &*reply) {
                    (_, Reply::Failed(_)) => {}
                    (Op::Set { name, .. }, _) => {
                        debts.settle(&Op::Delete { name: name.clone() });
                    }
                    (Op::Delete { .. } | Op::Clear { .. }, _) => debts.settle(op),
                    _ => {
                        if let Some(error) = debts.refusal(op) {
                            *reply = Reply::Failed(self.unknown(error));
                        }
                    }
                }
            }
        });
    }

    fn unknown(&self, error: &Error) -> Error {
        let error = Error::with_source(
            error.kind(),
            format!(
                "what {} holds there is unknown, since it refused to delete it: {error}",
                self.label
            ),
            error.clone(),
        );
        // The refusal was.
        error.logged()
    }
}

fn is_delete(op: &Op) -> bool {
    matches!(op, Op::Delete { .. } | Op::Clear { .. })
}

impl<P> Default for Debts<P> {
    fn default() -> Self {
        Self {
            by_op: HashMap::new(),
            count: 0,
            lost: 0,
        }
    }
}

impl<P> Debts<P> {
    /// Adds a delete, unless there are too many. Whether it was the first that is lost.
    fn add(&mut self, op: Op, place: P, refused: Option<(Error, Moment)>) -> bool {
        self.count += 1;
        let is_full = self.by_op.len() >= MOST;
        let debt = Debt {
            since: self.count,
            place,
            refused,
        };
        match self.by_op.entry(op) {
            Entry::Occupied(mut known) => {
                known.insert(debt);
            }
            Entry::Vacant(_) if is_full => {
                self.lost += 1;
                return self.lost == 1;
            }
            Entry::Vacant(place) => {
                place.insert(debt);
            }
        }
        false
    }

    fn settle(&mut self, op: &Op) {
        self.by_op.remove(op);
        if self.by_op.is_empty() {
            self.lost = 0;
        }
    }

    /// Why what `op` is about is unknown, if it is.
    fn refusal(&self, op: &Op) -> Option<&Error> {
        let name = op.name();
        let delete = self.by_op.get(&Op::Delete { name: name.clone() });
        let of_name = delete.and_then(|debt| debt.refused.as_ref());
        let (error, _) = of_name.or_else(|| {
            self.by_op.iter().find_map(|(owed, debt)| match owed {
                Op::Clear { prefix } if name.starts_with(prefix) => debt.refused.as_ref(),
                _ => None,
            })
        })?;
        Some(error)
    }
}

impl<P> Pledge<'_, P> {
    /// Takes in what the store said to the deletes of the trip, of which these are the answers.
    /// Where one failed, `narrow` tells in which places.
    pub(super) fn told(
        &mut self,
        trip: &Trip,
        replies: &[Reply],
        mut narrow: impl FnMut(&Op, &mut P),
    ) {
        let answers = trip.ops().iter().zip(replies);
        let mut answers = answers.filter(|(op, _)| is_delete(op));
        self.unpaid.retain_mut(|(op, place, refusal)| {
            let Some((_, Reply::Failed(error))) = answers.next() else {
                return false;
            };
            narrow(op, place);
            *refusal = (!error.kind().is_silence()).then(|| error.clone());
            true
        });
    }
}

impl<P> Drop for Pledge<'_, P> {
    fn drop(&mut self) {
        if self.unpaid.is_empty() {
            return;
        }
        let again = self.owed.clock.now().after(PAUSE);
        let unpaid = std::mem::take(&mut self.unpaid).into_iter();
        let overflows = self.owed.debts(|debts| {
            unpaid
                .filter_map(|(op, place, refusal)| {
                    let refused = refusal.map(|error| (error, again));
                    debts.add(op, place, refused).then_some(())
                })
                .count()
        });
        if overflows > 0 {
            log::error!(
                "{} has missed {MOST} deletes; those that follow are lost, and what they were to remove stays until it expires",
                self.owed.label
            );
        }
    }
}

//! Deletes that were not delivered, and are kept until they are.
//!
//! What a store did not hear goes in front of every trip to the place that missed it, so that no
//! read of this process sees what was to be deleted. What a store heard and refused (it is a
//! replica, or does not permit it) is unknown under those names; from time to time one of them is
//! tried again, and if that is taken all are. Deleting twice does no harm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::process::PerProcess;
use crate::trip::{Op, Reply, Trip};

/// The most deletes that are kept for a store that does not take them.
const MOST: usize = 10_000;

/// How long after a store refused deletes it is asked for them again.
const PAUSE: Duration = Duration::from_secs(1);

/// The deletes that a store is owed, each with the place `P` in the store that missed it.
#[derive(Debug)]
pub(super) struct PendingDeletes<P> {
    label: Arc<str>,
    clock: Clock,
    debts: PerProcess<Mutex<Debts<P>>>,
}

#[derive(Debug)]
struct Debts<P> {
    by_op: HashMap<Op, Debt<P>>,
    count: u64,
    lost: u64,
    /// When to try again after a refusal, if there was one since the store last took a delete
    /// that it had refused.
    again: Option<Moment>,
}

#[derive(Debug)]
struct Debt<P> {
    /// When it became owed, counted; a delivery drains only what it carried.
    since: u64,
    place: P,
    /// How it was refused.
    refused: Option<Error>,
}

/// What is to go ahead of a trip.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) ops: Vec<Op>,
    /// The last of the debts that there were: [told](PendingDeletes::told) are no later ones.
    pub(super) until: u64,
}

/// The deletes of a trip under way. Those not [delivered](Self::told) when it is dropped are owed.
#[derive(Debug)]
pub(super) struct Pledge<'a, P> {
    owed: &'a PendingDeletes<P>,
    unpaid: Vec<(Op, P, Option<Error>)>,
}

impl<P> PendingDeletes<P> {
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

    /// Why the writes of `trip` cannot be posted, if they cannot: a delete that would have to go
    /// ahead of them is not delivered yet, or one of their names was refused to be deleted.
    pub(super) fn bars(&self, trip: &Trip) -> Option<Error> {
        self.debts(|debts| {
            if debts.by_op.is_empty() {
                return None;
            }
            if let Some(error) = trip.ops().iter().find_map(|op| debts.refusal(op)) {
                return Some(self.unknown(error));
            }
            let waits = debts.by_op.values().any(|debt| debt.refused.is_none());
            waits.then(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "{} has deletes to hear of first, so that nothing is posted to it",
                        self.label
                    ),
                )
            })
        })
    }

    /// What is owed where `concerns` says so; of what was refused, one if it is time to try.
    pub(super) fn ahead(&self, concerns: impl Fn(&Op, &P) -> bool) -> Ahead {
        let now = self.clock.now();
        self.debts(|debts| {
            let mut tries = match debts.again {
                Some(again) if now < again => 0,
                Some(_) => 1,
                None => usize::MAX,
            };
            let mut is_due = |debt: &Debt<P>| {
                let due = debt.refused.is_none() || tries > 0;
                tries -= usize::from(due && debt.refused.is_some());
                due
            };
            let concerned = debts.by_op.iter();
            let concerned = concerned.filter(|(op, debt)| concerns(op, &debt.place));
            Ahead {
                ops: concerned
                    .filter(|(_, debt)| is_due(debt))
                    .map(|(op, _)| op.clone())
                    .collect(),
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
            let mut is_taken = false;
            for (op, until, refusal) in answers {
                let Some(debt) = debts.by_op.get_mut(op).filter(|debt| debt.since <= until) else {
                    continue;
                };
                if let Some(error) = refusal {
                    debt.refused = Some(error.clone());
                    debts.again = Some(again);
                } else {
                    is_taken |= debt.refused.is_some();
                    debts.drain(op);
                }
            }
            if is_taken {
                debts.again = None;
            }
        });
    }

    /// Takes off the places where the debt of `op`, as it was `until` then, was delivered. Without
    /// one where it is owed it is drained.
    #[cfg(feature = "redis")]
    pub(super) fn narrow(&self, op: &Op, until: u64, delivered: impl FnOnce(&mut P) -> bool) {
        self.debts(|debts| {
            if let Some(debt) = debts.by_op.get_mut(op)
                && debt.since <= until
            {
                if debt.refused.is_some() {
                    debts.again = None;
                }
                if delivered(&mut debt.place) {
                    debts.drain(op);
                }
            }
        });
    }

    /// Marks as unknown what `replies` tell of names whose delete was refused, and forgets the
    /// refusal where they tell that nothing was there, or that it was written or deleted since.
    pub(super) fn mask(&self, ops: &[Op], replies: &mut [Reply]) {
        self.debts(|debts| {
            if debts.by_op.values().all(|debt| debt.refused.is_none()) {
                return;
            }
            for (op, reply) in ops.iter().zip(replies) {
                match (op, &*reply) {
                    (_, Reply::Failed(_)) => {}
                    (Op::Set { name, .. }, _)
                    | (Op::Get { name }, Reply::Entry(None))
                    | (Op::Incr { name, .. }, Reply::Number(None))
                    | (Op::Touch { name, .. }, Reply::Flag(false))
                    | (Op::Add { name, .. }, Reply::Flag(true)) => {
                        debts.drain(&Op::Delete { name: name.clone() });
                    }
                    (Op::Delete { .. } | Op::Clear { .. }, _) => debts.drain(op),
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
            again: None,
        }
    }
}

impl<P> Debts<P> {
    /// Adds a delete, unless there are too many. Whether it was the first that is lost.
    fn add(&mut self, op: Op, place: P, refused: Option<Error>) -> bool {
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

    fn drain(&mut self, op: &Op) {
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
        of_name.or_else(|| {
            self.by_op.iter().find_map(|(owed, debt)| match owed {
                Op::Clear { prefix } if name.starts_with(prefix) => debt.refused.as_ref(),
                _ => None,
            })
        })
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
                    if refusal.is_some() {
                        debts.again = Some(again);
                    }
                    debts.add(op, place, refusal).then_some(())
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

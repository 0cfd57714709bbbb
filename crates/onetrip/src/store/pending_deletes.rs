//! Deletes that failed, kept until a store has carried them out.
//!
//! A delete that did not reach the store is sent ahead of every trip to the place that missed it,
//! so that no read of this process sees the deleted entry. If the store refused a delete (it is a
//! replica, or denies permission), the entry is unknown. From time to time one refused delete is
//! retried; once one is accepted, all are retried. Deleting twice does no harm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::process::PerProcess;
use crate::trip::{Op, Reply, Trip};

/// The most pending deletes of a store.
const MAX_DELETES: usize = 10_000;

/// How long after a refusal a delete is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The pending deletes of a store, each with the place `P` in the store that missed it.
#[derive(Debug)]
pub(super) struct PendingDeletes<P> {
    label: Arc<str>,
    clock: Clock,
    table: PerProcess<Mutex<Table<P>>>,
}

#[derive(Debug)]
struct Table<P> {
    by_op: HashMap<Op, PendingDelete<P>>,
    count: u64,
    lost: u64,
    /// When to retry refused deletes. `None` if the store refused none since it last accepted a
    /// refused delete.
    retry_at: Option<Moment>,
}

#[derive(Debug)]
struct PendingDelete<P> {
    /// Its number, in order. A reply settles only deletes that were pending when its trip was sent.
    number: u64,
    place: P,
    /// The refusal, if the store refused it.
    refused: Option<Error>,
}

/// The pending deletes to send ahead of a trip.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) ops: Vec<Op>,
    /// The number of the latest pending delete, for
    /// [`record_answers`](PendingDeletes::record_answers): later ones were not sent.
    pub(super) until: u64,
}

/// The deletes of a trip under way. When it is dropped, deletes without a
/// [successful reply](Self::record_replies) become pending.
#[derive(Debug)]
pub(super) struct InFlight<'a, P> {
    pending_deletes: &'a PendingDeletes<P>,
    undelivered: Vec<(Op, P, Option<Error>)>,
}

impl<P> PendingDeletes<P> {
    pub(super) fn new(label: Arc<str>, clock: Clock) -> Self {
        Self {
            label,
            clock,
            table: PerProcess::default(),
        }
    }

    fn table<T>(&self, body: impl FnOnce(&mut Table<P>) -> T) -> T {
        self.table
            .with(|table| body(&mut table.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Tracks the deletes of `trip`, each with its place.
    pub(super) fn track(&self, trip: &Trip, place: impl Fn(&Op) -> P) -> InFlight<'_, P> {
        let deletes = trip.ops().iter().filter(|op| is_delete(op));
        InFlight {
            pending_deletes: self,
            undelivered: deletes.map(|op| (op.clone(), place(op), None)).collect(),
        }
    }

    /// Returns why the writes of `trip` cannot be posted. `None` if they can. A pending delete has
    /// to be sent first, or the store refused to delete one of their names.
    pub(super) fn blocks_post(&self, trip: &Trip) -> Option<Error> {
        self.table(|table| {
            if table.by_op.is_empty() {
                return None;
            }
            if let Some(error) = trip.ops().iter().find_map(|op| table.refusal(op)) {
                return Some(self.unknown(error));
            }
            let waits = table
                .by_op
                .values()
                .any(|pending| pending.refused.is_none());
            waits.then(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "nothing is posted to {} before its pending deletes are sent",
                        self.label
                    ),
                )
            })
        })
    }

    /// Returns the pending deletes that `concerns` selects. Of the refused ones, at most one, and
    /// only if a retry is due.
    pub(super) fn due(&self, concerns: impl Fn(&Op, &P) -> bool) -> Due {
        let now = self.clock.now();
        self.table(|table| {
            let mut tries = match table.retry_at {
                Some(retry_at) if now < retry_at => 0,
                Some(_) => 1,
                None => usize::MAX,
            };
            let mut is_due = |pending: &PendingDelete<P>| {
                let due = pending.refused.is_none() || tries > 0;
                tries -= usize::from(due && pending.refused.is_some());
                due
            };
            let concerned = table.by_op.iter();
            let concerned = concerned.filter(|(op, pending)| concerns(op, &pending.place));
            Due {
                ops: concerned
                    .filter(|(_, pending)| is_due(pending))
                    .map(|(op, _)| op.clone())
                    .collect(),
                until: table.count,
            }
        })
    }

    /// Records the store's answers to pending deletes with a number up to `until`: accepted, or
    /// refused with an error.
    pub(super) fn record_answers<'t>(
        &self,
        answers: impl IntoIterator<Item = (&'t Op, u64, Option<&'t Error>)>,
    ) {
        let retry_at = self.clock.now().after(RETRY_PAUSE);
        self.table(|table| {
            let mut is_accepted = false;
            for (op, until, refusal) in answers {
                let Some(pending) = table
                    .by_op
                    .get_mut(op)
                    .filter(|pending| pending.number <= until)
                else {
                    continue;
                };
                if let Some(error) = refusal {
                    pending.refused = Some(error.clone());
                    table.retry_at = Some(retry_at);
                } else {
                    is_accepted |= pending.refused.is_some();
                    table.remove(op);
                }
            }
            if is_accepted {
                table.retry_at = None;
            }
        });
    }

    /// Has `delivered` remove places from the pending delete of `op`, if its number is at most
    /// `until`. Removes the delete if that returns `true`: no place is left.
    #[cfg(feature = "redis")]
    pub(super) fn narrow(&self, op: &Op, until: u64, delivered: impl FnOnce(&mut P) -> bool) {
        self.table(|table| {
            if let Some(pending) = table.by_op.get_mut(op)
                && pending.number <= until
            {
                if pending.refused.is_some() {
                    table.retry_at = None;
                }
                if delivered(&mut pending.place) {
                    table.remove(op);
                }
            }
        });
    }

    /// Replaces `replies` about names whose delete was refused by an error: their entries are
    /// unknown. Removes the pending delete if the reply shows that the name was absent, written or
    /// deleted.
    pub(super) fn mask(&self, ops: &[Op], replies: &mut [Reply]) {
        self.table(|table| {
            if table
                .by_op
                .values()
                .all(|pending| pending.refused.is_none())
            {
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
                        table.remove(&Op::Delete { name: name.clone() });
                    }
                    (Op::Delete { .. } | Op::Clear { .. }, _) => table.remove(op),
                    _ => {
                        if let Some(error) = table.refusal(op) {
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
                "the entry in {} is unknown, since the store refused to delete it: {error}",
                self.label
            ),
            error.clone(),
        );
        // The refusal was logged.
        error.logged()
    }
}

fn is_delete(op: &Op) -> bool {
    matches!(op, Op::Delete { .. } | Op::Clear { .. })
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self {
            by_op: HashMap::new(),
            count: 0,
            lost: 0,
            retry_at: None,
        }
    }
}

impl<P> Table<P> {
    /// Adds a delete, or drops it if there are too many. Returns whether it was the first one
    /// dropped.
    fn add(&mut self, op: Op, place: P, refused: Option<Error>) -> bool {
        self.count += 1;
        let is_full = self.by_op.len() >= MAX_DELETES;
        let pending = PendingDelete {
            number: self.count,
            place,
            refused,
        };
        match self.by_op.entry(op) {
            Entry::Occupied(mut known) => {
                known.insert(pending);
            }
            Entry::Vacant(_) if is_full => {
                self.lost += 1;
                return self.lost == 1;
            }
            Entry::Vacant(place) => {
                place.insert(pending);
            }
        }
        false
    }

    fn remove(&mut self, op: &Op) {
        self.by_op.remove(op);
        if self.by_op.is_empty() {
            self.lost = 0;
        }
    }

    /// Returns the refusal that makes the entry of `op` unknown.
    fn refusal(&self, op: &Op) -> Option<&Error> {
        let name = op.name();
        let delete = self.by_op.get(&Op::Delete { name: name.clone() });
        let of_name = delete.and_then(|pending| pending.refused.as_ref());
        of_name.or_else(|| {
            self.by_op
                .iter()
                .find_map(|(deleted, pending)| match deleted {
                    Op::Clear { prefix } if name.starts_with(prefix) => pending.refused.as_ref(),
                    _ => None,
                })
        })
    }
}

impl<P> InFlight<'_, P> {
    /// Records the replies to the deletes of the trip. If one failed, `narrow` reduces its place to
    /// where it failed.
    pub(super) fn record_replies(
        &mut self,
        trip: &Trip,
        replies: &[Reply],
        mut narrow: impl FnMut(&Op, &mut P),
    ) {
        let answers = trip.ops().iter().zip(replies);
        let mut answers = answers.filter(|(op, _)| is_delete(op));
        self.undelivered.retain_mut(|(op, place, refusal)| {
            let Some((_, Reply::Failed(error))) = answers.next() else {
                return false;
            };
            narrow(op, place);
            *refusal = (!error.kind().is_silence()).then(|| error.clone());
            true
        });
    }
}

impl<P> Drop for InFlight<'_, P> {
    fn drop(&mut self) {
        if self.undelivered.is_empty() {
            return;
        }
        let retry_at = self.pending_deletes.clock.now().after(RETRY_PAUSE);
        let undelivered = std::mem::take(&mut self.undelivered).into_iter();
        let overflows = self.pending_deletes.table(|table| {
            undelivered
                .filter_map(|(op, place, refusal)| {
                    if refusal.is_some() {
                        table.retry_at = Some(retry_at);
                    }
                    table.add(op, place, refusal).then_some(())
                })
                .count()
        });
        if overflows > 0 {
            log::error!(
                "{} has {MAX_DELETES} pending deletes; further ones are lost, and their entries stay until they expire",
                self.pending_deletes.label
            );
        }
    }
}

//! Operations on their way through a cluster, each to the node that holds its name.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::slots::{Redirect, SlotMap, slot};
use crate::error::Error;
use crate::trip::{Op, Reply};

/// The node of every slot.
pub(super) type Map = SlotMap<Arc<Node>>;

/// One operation under way.
#[derive(Debug)]
pub(super) struct RoutedOp {
    pub(super) op: Op,
    pub(super) slot: u16,
    pub(super) origin: Origin,
    /// Whether it goes where ASK sent it.
    pub(super) asking: bool,
}

/// Who waits for an routed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The operation of a trip with this number.
    Trip(usize),
    /// A delete that is owed since this or earlier.
    PendingDeletes(u64),
}

/// What became of an routed.
#[derive(Debug)]
pub(super) enum Outcome {
    Told(Reply),
    Elsewhere(Redirect),
    /// The node failed; the operation may be sent to another one if `again`.
    Lost {
        error: Error,
        again: bool,
    },
}

/// The routed_ops to one node. They keep their order, so those on one name do too.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) node: Arc<Node>,
    pub(super) routed_ops: Vec<RoutedOp>,
}

/// What a visit brought.
pub(super) type Visited = (Arc<Node>, Vec<(RoutedOp, Outcome)>);

impl RoutedOp {
    pub(super) fn of_trip(place: usize, op: &Op) -> Self {
        Self {
            op: op.clone(),
            slot: slot(op.name()),
            origin: Origin::Trip(place),
            asking: false,
        }
    }

    pub(super) fn owed(op: Op, until: u64) -> Self {
        Self {
            slot: slot(op.name()),
            op,
            origin: Origin::PendingDeletes(until),
            asking: false,
        }
    }
}

/// Puts routed_ops together by node. There are few nodes, so looking for one beats hashing it.
pub(super) fn parts(routed_ops: impl IntoIterator<Item = (Arc<Node>, RoutedOp)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (node, routed) in routed_ops {
        match parts.iter_mut().find(|part| Arc::ptr_eq(&part.node, &node)) {
            Some(part) => part.routed_ops.push(routed),
            None => parts.push(Part {
                node,
                routed_ops: vec![routed],
            }),
        }
    }
    parts
}

/// The answers to a trip so far, and what was said to the debts that went with it.
#[derive(Debug)]
pub(super) struct Ledger {
    replies: Vec<Option<Reply>>,
    /// Each with the count until which it was owed, and how it was refused if it was.
    pub(super) owed: HashMap<Op, (u64, Option<Error>)>,
}

impl Ledger {
    pub(super) fn new(ops: usize) -> Self {
        Self {
            replies: (0..ops).map(|_| None).collect(),
            owed: HashMap::new(),
        }
    }

    /// Notes the end of an routed.
    pub(super) fn note(&mut self, routed: RoutedOp, reply: Reply) {
        match routed.origin {
            Origin::Trip(place) => {
                if let Some(slot) = self.replies.get_mut(place) {
                    *slot = Some(reply);
                }
            }
            Origin::PendingDeletes(until) => {
                let refusal = reply.failure().cloned();
                self.owed.insert(routed.op, (until, refusal));
            }
        }
    }

    /// The replies; `missing` for each operation that has none.
    pub(super) fn close(self, missing: &Error) -> impl Iterator<Item = Reply> + use<> {
        let missing = missing.clone();
        let replies = self.replies.into_iter();
        replies.map(move |reply| reply.unwrap_or_else(|| Reply::Failed(missing.clone())))
    }
}

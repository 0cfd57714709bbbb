//! Operations routed through a cluster, each to the node that holds its name.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::slots::{Redirect, SlotMap, slot};
use crate::error::Error;
use crate::trip::{Op, Reply};

/// The node of every slot.
pub(super) type Map = SlotMap<Arc<Node>>;

/// One operation with its slot.
#[derive(Debug)]
pub(super) struct RoutedOp {
    pub(super) op: Op,
    pub(super) slot: u16,
    pub(super) origin: Origin,
    /// Whether ASK redirected it, so that it is sent with ASKING.
    pub(super) asking: bool,
}

/// Where a routed operation comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The operation at this index of the trip.
    Trip(usize),
    /// A pending delete, with a number up to this one.
    PendingDelete(u64),
}

/// The outcome of a routed operation.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Reply),
    Redirected(Redirect),
    /// The node failed. If `retry`, the operation may be sent to another node.
    Failed {
        error: Error,
        retry: bool,
    },
}

/// The routed operations for one node, in their order.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) node: Arc<Node>,
    pub(super) routed_ops: Vec<RoutedOp>,
}

/// A node and the outcomes of the operations that were sent to it.
pub(super) type NodeOutcomes = (Arc<Node>, Vec<(RoutedOp, Outcome)>);

impl RoutedOp {
    pub(super) fn of_trip(place: usize, op: &Op) -> Self {
        Self {
            op: op.clone(),
            slot: slot(op.name()),
            origin: Origin::Trip(place),
            asking: false,
        }
    }

    pub(super) fn pending_delete(op: Op, until: u64) -> Self {
        Self {
            slot: slot(op.name()),
            op,
            origin: Origin::PendingDelete(until),
            asking: false,
        }
    }
}

/// Groups routed operations by node. With few nodes, a linear search is faster than hashing.
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

/// The replies to a trip so far, and the answers to the pending deletes sent with it.
#[derive(Debug)]
pub(super) struct Answers {
    replies: Vec<Option<Reply>>,
    /// Each with the highest number that was sent, and the refusal if there was one.
    pub(super) pending_deletes: HashMap<Op, (u64, Option<Error>)>,
}

impl Answers {
    pub(super) fn new(ops: usize) -> Self {
        Self {
            replies: (0..ops).map(|_| None).collect(),
            pending_deletes: HashMap::new(),
        }
    }

    /// Records the reply to a routed operation.
    pub(super) fn note(&mut self, routed: RoutedOp, reply: Reply) {
        match routed.origin {
            Origin::Trip(place) => {
                if let Some(slot) = self.replies.get_mut(place) {
                    *slot = Some(reply);
                }
            }
            Origin::PendingDelete(until) => {
                let refusal = reply.failure().cloned();
                self.pending_deletes.insert(routed.op, (until, refusal));
            }
        }
    }

    /// Returns the replies, with the error `missing` for each operation without one.
    pub(super) fn into_replies(self, missing: &Error) -> impl Iterator<Item = Reply> + use<> {
        let missing = missing.clone();
        let replies = self.replies.into_iter();
        replies.map(move |reply| reply.unwrap_or_else(|| Reply::Failed(missing.clone())))
    }
}

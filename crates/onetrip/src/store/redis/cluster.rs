//! A Redis Cluster: each operation goes to the node that holds its name, to all nodes concurrently.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::node::{Node, failed};
use super::routed_op::{Answers, Map, NodeOutcomes, Origin, Outcome, Part, RoutedOp, parts};
use super::slots::{self, Slots};
use super::topology::Topology;
use crate::blocking_runtimes;
use crate::error::{Error, ErrorKind, Result};
use crate::store::pending_deletes::PendingDeletes;
use crate::store::posting::Posting;
use crate::store::stream::until;
use crate::store::{Exchange, Store, StoreOptions};
use crate::trip::{Op, Purpose, Replies, Reply, ScopeId, Trip};

/// The most rounds of sending an operation. Each redirect takes one.
const MAX_ROUNDS: usize = 5;

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    topology: Topology,
    trip_timeout: Duration,
    label: Arc<str>,
    /// Each with the slots that missed it, whichever node holds them by now.
    pending_deletes: PendingDeletes<Slots>,
}

/// Posted writes to one node.
struct Post {
    node: Arc<Node>,
    routed_ops: Vec<RoutedOp>,
    posting: Posting<'static>,
}

impl Cluster {
    pub(super) fn new(topology: Topology, label: Arc<str>, options: &StoreOptions) -> Self {
        Self {
            topology,
            trip_timeout: options.trip_timeout,
            pending_deletes: PendingDeletes::new(Arc::clone(&label), options.clock.clone()),
            label,
        }
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} {why}", self.label))
    }

    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let mut deletes = self.pending_deletes.track(trip, |op| match op {
            Op::Clear { .. } => (0..slots::COUNT).collect(),
            op => Slots::from_slice(&[slots::slot(op.name())]),
        });
        let mut replies = Replies::with_capacity(trip.len());
        let mut missed = Vec::new();
        let mut ops = trip.ops();
        while let Some(op) = ops.first() {
            if let Op::Clear { prefix } = op {
                let (reply, slots) = self.clear(prefix).await;
                if matches!(reply, Reply::Failed(_)) {
                    missed.push(slots);
                }
                replies.push(reply);
                ops = ops.get(1..).unwrap_or_default();
                continue;
            }
            let run = ops
                .iter()
                .take_while(|op| !matches!(op, Op::Clear { .. }))
                .count();
            let (run, rest) = ops.split_at(run);
            replies.extend(self.route(run, trip.scope(), true).await);
            ops = rest;
        }
        let mut missed = missed.into_iter();
        deletes.record_replies(trip, &replies, |op, place| {
            if matches!(op, Op::Clear { .. }) {
                *place = missed.next().unwrap_or_default();
            }
        });
        drop(deletes);
        self.pending_deletes.mask(trip.ops(), &mut replies);
        Ok(replies)
    }

    /// Sends operations to their nodes and follows redirects. Returns one reply for each. If
    /// `carry`, each node's pending deletes are sent ahead.
    fn route<'a>(
        &'a self,
        ops: &'a [Op],
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = Vec<Reply>> + Send + 'a>> {
        Box::pin(async move {
            let mut answers = Answers::new(ops.len());
            let result = self.follow_redirects(ops, scope, carry, &mut answers).await;
            let deletes = answers.pending_deletes.iter();
            self.pending_deletes.record_answers(
                deletes.map(|(op, (until, refusal))| (op, *until, refusal.as_ref())),
            );
            let missing = match result {
                Ok(()) => self.unavailable("redirected an operation too often"),
                Err(error) => error,
            };
            answers.into_replies(&missing).collect()
        })
    }

    async fn follow_redirects(
        &self,
        ops: &[Op],
        scope: Option<ScopeId>,
        carry: bool,
        answers: &mut Answers,
    ) -> Result<()> {
        let deadline = until(self.trip_timeout);
        let mut map = self.topology.map().await?;
        let all = ops.iter().enumerate();
        let mut waiting: Vec<(Option<Arc<Node>>, RoutedOp)> = all
            .map(|(place, op)| RoutedOp::of_trip(place, op))
            .map(|routed| (map.owner(routed.slot).cloned(), routed))
            .collect();
        for _ in 0..MAX_ROUNDS {
            let mut failures = Vec::new();
            let mut ready = Vec::new();
            for (node, routed) in waiting.drain(..) {
                match node {
                    Some(node) => ready.push((node, routed)),
                    None => {
                        let slot = routed.slot;
                        let why = format!("has no node for slot {slot}");
                        failures.push((None, routed, self.unavailable(&why)));
                    }
                }
            }
            let parts = parts(ready).into_iter();
            let visits = parts.map(|part| self.run_part(part, Arc::clone(&map), scope, carry));
            let mut moved = Vec::new();
            for (node, outcomes) in blocking_runtimes::together(visits.collect()).await {
                // Redirects of earlier posts, which are not sent again.
                moved.extend(self.strays(&node));
                for (mut routed, outcome) in outcomes {
                    match outcome {
                        Outcome::Answered(reply) => answers.note(routed, reply),
                        Outcome::Redirected(redirect) => {
                            let to = self.topology.node(&redirect.to)?;
                            if !redirect.once {
                                moved.push((redirect.slot, Arc::clone(&to)));
                            }
                            routed.asking = redirect.once;
                            waiting.push((Some(to), routed));
                        }
                        Outcome::Failed { error, retry: true } => {
                            failures.push((Some(Arc::clone(&node)), routed, error));
                        }
                        Outcome::Failed { error, .. } => answers.note(routed, Reply::Failed(error)),
                    }
                }
            }
            let in_time = Instant::now() < deadline;
            if !moved.is_empty() || !failures.is_empty() {
                map = self.topology.news(moved, in_time).await.unwrap_or(map);
            }
            for (tried, mut routed, error) in failures {
                match map.owner(routed.slot) {
                    // It stays pending: the next trip to the slot's owner carries it.
                    _ if matches!(routed.origin, Origin::PendingDelete(_)) => {}
                    Some(owner) if in_time && tried.as_ref() != Some(owner) => {
                        routed.asking = false;
                        waiting.push((Some(Arc::clone(owner)), routed));
                    }
                    _ => answers.note(routed, Reply::Failed(error)),
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if !in_time {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{} redirected operations for longer than trip_timeout",
                        self.label
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Sends the operations of `part` to its node. If `carry`, its pending deletes go ahead.
    fn run_part<'a>(
        &'a self,
        part: Part,
        map: Arc<Map>,
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = NodeOutcomes> + Send + 'a>> {
        Box::pin(async move {
            let Part { node, routed_ops } = part;
            let outcomes = self
                .run_on_node(&node, routed_ops, &map, scope, carry)
                .await;
            (node, outcomes)
        })
    }

    async fn run_on_node(
        &self,
        node: &Arc<Node>,
        routed_ops: Vec<RoutedOp>,
        map: &Map,
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Vec<(RoutedOp, Outcome)> {
        if carry && let Err(error) = self.send_pending_clears(node, map).await {
            return failed(routed_ops, &error, false);
        }
        let pass = match node.admit() {
            Ok(pass) => pass,
            Err(error) => return failed(routed_ops, &error, false),
        };
        let mut all = Vec::new();
        if carry {
            let due = self
                .pending_deletes
                .due(|op, slots| matches!(op, Op::Delete { .. }) && is_at(node, map, slots));
            let deletes = due.ops.into_iter();
            all.extend(deletes.map(|op| RoutedOp::pending_delete(op, due.until)));
        }
        all.extend(routed_ops);
        node.run(pass, all, scope).await
    }

    /// Returns the slots that moved and their new nodes, from redirects of writes posted to `node`.
    fn strays(&self, node: &Node) -> Vec<(u16, Arc<Node>)> {
        let moved = node.strays().into_iter().filter(|stray| !stray.once);
        moved
            .filter_map(|stray| Some((stray.slot, self.topology.node(&stray.to).ok()?)))
            .collect()
    }

    /// Updates the topology by redirects of writes posted to `nodes`. If `in_time`, also asks the
    /// nodes what else has moved.
    async fn learn(&self, nodes: &[Arc<Node>], in_time: bool) {
        let moved: Vec<_> = nodes.iter().flat_map(|node| self.strays(node)).collect();
        if !moved.is_empty() {
            self.topology.news(moved, in_time).await;
        }
    }

    /// Posts writes, each to its node, without following redirects. If the topology is known, their
    /// names are registered as posted before this returns.
    fn post(&self, trip: &Trip) -> Exchange<'_> {
        if let Some(error) = self.pending_deletes.blocks_post(trip) {
            return Exchange::Ready(trip.failed(&error));
        }
        if let Some(map) = self.topology.known_map() {
            let posts = self.posts(trip, &map);
            let ops = trip.len();
            return Exchange::Pending(Box::pin(self.deliver(ops, posts)));
        }
        let trip = trip.clone();
        Exchange::Pending(Box::pin(async move {
            let map = self.topology.map().await?;
            self.deliver(trip.len(), self.posts(&trip, &map)).await
        }))
    }

    fn posts(&self, trip: &Trip, map: &Map) -> Vec<Post> {
        let routed_ops = trip.ops().iter().enumerate();
        let routed_ops = routed_ops.map(|(place, op)| RoutedOp::of_trip(place, op));
        // Writes to slots without a node get no reply, and so fail.
        let routed_ops = routed_ops.filter_map(|routed| {
            let node = map.owner(routed.slot).cloned();
            node.map(|node| (node, routed))
        });
        let parts = parts(routed_ops).into_iter();
        let posts = parts.map(|Part { node, routed_ops }| {
            let ops = routed_ops.iter().map(|routed| routed.op.clone());
            let mut part = ops.collect::<Trip>().within(trip.scope());
            if let Purpose::Post(late) = trip.purpose() {
                part = part.posted(Arc::clone(late));
            }
            let posting = node.post(part);
            Post {
                node,
                routed_ops,
                posting,
            }
        });
        posts.collect()
    }

    async fn deliver(&self, ops: usize, posts: Vec<Post>) -> Result<Replies> {
        let mut answers = Answers::new(ops);
        let posts = posts
            .into_iter()
            .map(|post| Box::pin(async move { (post.node, post.routed_ops, post.posting.await) }));
        let mut nodes = Vec::new();
        for (node, routed_ops, answer) in blocking_runtimes::together(posts.collect()).await {
            nodes.push(node);
            match answer {
                Ok(replies) => {
                    for (routed, reply) in routed_ops.into_iter().zip(replies) {
                        answers.note(routed, reply);
                    }
                }
                Err(error) => {
                    for routed in routed_ops {
                        answers.note(routed, Reply::Failed(error.clone()));
                    }
                }
            }
        }
        // No time is taken: a post must not wait.
        self.learn(&nodes, false).await;
        let missing = self.unavailable("has no node for a posted write");
        Ok(answers.into_replies(&missing).collect())
    }

    /// Reads the replies to posted writes, on all nodes concurrently.
    fn drain(&self, scope: Option<ScopeId>) -> Exchange<'_> {
        let mut nodes = self.topology.all();
        nodes.retain(|node| node.has_posted(scope));
        if nodes.is_empty() {
            return Exchange::Ready(Replies::new());
        }
        Exchange::Pending(Box::pin(async move {
            let draining = nodes.iter().map(|node| Box::pin(node.drain(scope)));
            let drained = blocking_runtimes::together(draining.collect()).await;
            self.learn(&nodes, true).await;
            drained.into_iter().collect::<Result<()>>()?;
            Ok(Replies::new())
        }))
    }

    /// Deletes all names that begin with `prefix`, on all nodes. Returns the reply, and the slots
    /// of nodes that failed.
    async fn clear(&self, prefix: &Bytes) -> (Reply, Slots) {
        let all = || (0..slots::COUNT).collect();
        let map = match self.topology.look().await {
            Ok(map) => map,
            Err(error) => return (Reply::Failed(error), all()),
        };
        let nodes = map.nodes().iter();
        let clears = nodes.map(|node| self.clear_node(node, prefix));
        let counts = blocking_runtimes::together(clears.collect()).await;
        let mut missed: Vec<&Arc<Node>> = Vec::new();
        let mut reply = Reply::Count(0);
        for (node, count) in map.nodes().iter().zip(counts) {
            match (&mut reply, count) {
                (Reply::Count(sum), Ok(count)) => *sum += count,
                (_, Ok(_)) => {}
                (reply, Err(error)) => {
                    missed.push(node);
                    *reply = Reply::Failed(error);
                }
            }
        }
        let is_missed = |slot: &u16| map.owner(*slot).is_some_and(|node| missed.contains(&node));
        (reply, (0..slots::COUNT).filter(is_missed).collect())
    }

    /// Deletes all names that begin with `prefix` from one node. A name that is moving between two
    /// nodes may be missed by both.
    fn clear_node<'a>(
        &'a self,
        node: &'a Arc<Node>,
        prefix: &'a Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<u64>> + Send + 'a>> {
        Box::pin(async move {
            // Posted writes must arrive before the scan.
            if node.has_posted(None) {
                node.drain(None).await?;
            }
            let (mut cursor, mut removed) = (0_u64, 0_u64);
            loop {
                let (next, names) = node.scan(cursor, prefix).await?;
                let names = names.into_iter();
                let deletes: Vec<Op> = names.map(|name| Op::Delete { name }).collect();
                for reply in self.route(&deletes, None, false).await {
                    match reply {
                        Reply::Failed(error) => return Err(error),
                        reply => removed += u64::from(matches!(reply, Reply::Flag(true))),
                    }
                }
                cursor = next;
                if cursor == 0 {
                    return Ok(removed);
                }
            }
        })
    }

    /// Carries out the pending clears of the slots that `node` holds.
    ///
    /// # Errors
    ///
    /// Returns the error if the node does not answer: nothing may be read before the clears.
    async fn send_pending_clears(&self, node: &Arc<Node>, map: &Map) -> Result<()> {
        let due = self
            .pending_deletes
            .due(|op, slots| matches!(op, Op::Clear { .. }) && is_at(node, map, slots));
        for op in &due.ops {
            match self.clear_node(node, op.name()).await {
                Ok(_) => self.pending_deletes.narrow(op, due.until, |slots| {
                    slots.retain(|slot| map.owner(*slot) != Some(node));
                    slots.is_empty()
                }),
                Err(error) if error.kind().is_silence() => return Err(error),
                Err(error) => self
                    .pending_deletes
                    .record_answers([(op, due.until, Some(&error))]),
            }
        }
        Ok(())
    }
}

fn is_at(node: &Arc<Node>, map: &Map, slots: &Slots) -> bool {
    slots.iter().any(|slot| map.owner(*slot) == Some(node))
}

impl Store for Cluster {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match trip.purpose() {
            Purpose::Answer => Exchange::Pending(Box::pin(self.answer(trip))),
            Purpose::Post(_) => self.post(trip),
            Purpose::Drain => self.drain(trip.scope()),
        }
    }

    fn posts(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

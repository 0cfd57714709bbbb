//! A Redis Cluster: every operation to the node that holds its name, all nodes side by side.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::node::{Node, lost};
use super::routed_op::{Ledger, Map, Origin, Outcome, Part, RoutedOp, Visited, parts};
use super::slots::{self, Slots};
use super::topology::Topology;
use crate::blocking_runtimes;
use crate::error::{Error, ErrorKind, Result};
use crate::store::pending_deletes::PendingDeletes;
use crate::store::posting::Posting;
use crate::store::stream::until;
use crate::store::{Exchange, Store, StoreOptions};
use crate::trip::{Op, Purpose, Replies, Reply, ScopeId, Trip};

/// How often an operation is sent on before it is given up. One move takes one.
const MOST_ROUNDS: usize = 5;

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    topology: Topology,
    trip_timeout: Duration,
    label: Arc<str>,
    /// Each with the slots whose nodes missed it, wherever those slots are by now.
    owed: PendingDeletes<Slots>,
}

/// Writes on their way to one node.
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
            owed: PendingDeletes::new(Arc::clone(&label), options.clock.clone()),
            label,
        }
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} {why}", self.label))
    }

    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let mut pledge = self.owed.pledge(trip, |op| match op {
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
        pledge.told(trip, &replies, |op, place| {
            if matches!(op, Op::Clear { .. }) {
                *place = missed.next().unwrap_or_default();
            }
        });
        drop(pledge);
        self.owed.mask(trip.ops(), &mut replies);
        Ok(replies)
    }

    /// Sends operations to their nodes and after those that have moved: one reply for each.
    /// What is owed to a node goes ahead, if `carry`.
    fn route<'a>(
        &'a self,
        ops: &'a [Op],
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = Vec<Reply>> + Send + 'a>> {
        Box::pin(async move {
            let mut ledger = Ledger::new(ops.len());
            let result = self.follow(ops, scope, carry, &mut ledger).await;
            let owed = ledger.owed.iter();
            self.owed
                .told(owed.map(|(op, (until, refusal))| (op, *until, refusal.as_ref())));
            let missing = match result {
                Ok(()) => self.unavailable("sent an operation from node to node without end"),
                Err(error) => error,
            };
            ledger.close(&missing).collect()
        })
    }

    async fn follow(
        &self,
        ops: &[Op],
        scope: Option<ScopeId>,
        carry: bool,
        ledger: &mut Ledger,
    ) -> Result<()> {
        let late = until(self.trip_timeout);
        let mut map = self.topology.map().await?;
        let all = ops.iter().enumerate();
        let mut waiting: Vec<(Option<Arc<Node>>, RoutedOp)> = all
            .map(|(place, op)| RoutedOp::of_trip(place, op))
            .map(|routed| (map.owner(routed.slot).cloned(), routed))
            .collect();
        for _ in 0..MOST_ROUNDS {
            let mut stranded = Vec::new();
            let mut ready = Vec::new();
            for (node, routed) in waiting.drain(..) {
                match node {
                    Some(node) => ready.push((node, routed)),
                    None => {
                        let slot = routed.slot;
                        let why = format!("has no node for slot {slot}");
                        stranded.push((None, routed, self.unavailable(&why)));
                    }
                }
            }
            let parts = parts(ready).into_iter();
            let visits = parts.map(|part| self.visit(part, Arc::clone(&map), scope, carry));
            let mut moved = Vec::new();
            for (node, outcomes) in blocking_runtimes::together(visits.collect()).await {
                // What was posted before, and is not sent again.
                moved.extend(self.strays(&node));
                for (mut routed, outcome) in outcomes {
                    match outcome {
                        Outcome::Told(reply) => ledger.note(routed, reply),
                        Outcome::Elsewhere(redirect) => {
                            let to = self.topology.node(&redirect.to)?;
                            if !redirect.once {
                                moved.push((redirect.slot, Arc::clone(&to)));
                            }
                            routed.asking = redirect.once;
                            waiting.push((Some(to), routed));
                        }
                        Outcome::Lost { error, again: true } => {
                            stranded.push((Some(Arc::clone(&node)), routed, error));
                        }
                        Outcome::Lost { error, .. } => ledger.note(routed, Reply::Failed(error)),
                    }
                }
            }
            let in_time = Instant::now() < late;
            if !moved.is_empty() || !stranded.is_empty() {
                map = self.topology.news(moved, in_time).await.unwrap_or(map);
            }
            for (tried, mut routed, error) in stranded {
                match map.owner(routed.slot) {
                    // Whoever goes there is told again what is owed.
                    _ if matches!(routed.origin, Origin::PendingDeletes(_)) => {}
                    Some(owner) if in_time && tried.as_ref() != Some(owner) => {
                        routed.asking = false;
                        waiting.push((Some(Arc::clone(owner)), routed));
                    }
                    _ => ledger.note(routed, Reply::Failed(error)),
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if !in_time {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{} moves names for longer than trip_timeout", self.label),
                ));
            }
        }
        Ok(())
    }

    /// Brings routed_ops to their node, and ahead of them what the node is owed.
    fn visit<'a>(
        &'a self,
        part: Part,
        map: Arc<Map>,
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = Visited> + Send + 'a>> {
        Box::pin(async move {
            let Part { node, routed_ops } = part;
            let outcomes = self.bring(&node, routed_ops, &map, scope, carry).await;
            (node, outcomes)
        })
    }

    async fn bring(
        &self,
        node: &Arc<Node>,
        routed_ops: Vec<RoutedOp>,
        map: &Map,
        scope: Option<ScopeId>,
        carry: bool,
    ) -> Vec<(RoutedOp, Outcome)> {
        if carry && let Err(error) = self.clear_owed(node, map).await {
            return lost(routed_ops, &error, false);
        }
        let pass = match node.admit() {
            Ok(pass) => pass,
            Err(error) => return lost(routed_ops, &error, false),
        };
        let mut all = Vec::new();
        if carry {
            let ahead = self
                .owed
                .ahead(|op, slots| matches!(op, Op::Delete { .. }) && is_at(node, map, slots));
            let owed = ahead.ops.into_iter();
            all.extend(owed.map(|op| RoutedOp::owed(op, ahead.until)));
        }
        all.extend(routed_ops);
        node.run(pass, all, scope).await
    }

    /// Which slots moved where, as posted writes were answered that `node` dropped.
    fn strays(&self, node: &Node) -> Vec<(u16, Arc<Node>)> {
        let moved = node.strays().into_iter().filter(|stray| !stray.once);
        moved
            .filter_map(|stray| Some((stray.slot, self.topology.node(&stray.to).ok()?)))
            .collect()
    }

    /// Learns what posted writes were answered that `nodes` dropped. If there is time, the nodes
    /// are asked what else has moved.
    async fn learn(&self, nodes: &[Arc<Node>], in_time: bool) {
        let moved: Vec<_> = nodes.iter().flat_map(|node| self.strays(node)).collect();
        if !moved.is_empty() {
            self.topology.news(moved, in_time).await;
        }
    }

    /// Posts writes, each to its node and nowhere else. From the call on their names are posted,
    /// if it is known who holds them.
    fn post(&self, trip: &Trip) -> Exchange<'_> {
        if let Some(error) = self.owed.bars(trip) {
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
        // What no node holds stays without a reply, which is a failure.
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
        let mut ledger = Ledger::new(ops);
        let posts = posts
            .into_iter()
            .map(|post| Box::pin(async move { (post.node, post.routed_ops, post.posting.await) }));
        let mut nodes = Vec::new();
        for (node, routed_ops, answer) in blocking_runtimes::together(posts.collect()).await {
            nodes.push(node);
            match answer {
                Ok(replies) => {
                    for (routed, reply) in routed_ops.into_iter().zip(replies) {
                        ledger.note(routed, reply);
                    }
                }
                Err(error) => {
                    for routed in routed_ops {
                        ledger.note(routed, Reply::Failed(error.clone()));
                    }
                }
            }
        }
        // Nobody waits for a post.
        self.learn(&nodes, false).await;
        let missing = self.unavailable("has no node for what was posted");
        Ok(ledger.close(&missing).collect())
    }

    /// Reads the replies to what was posted, on all nodes side by side.
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

    /// Removes what begins with `prefix`, on all nodes; also the slots where that failed.
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

    /// Removes what begins with `prefix` from one node. A name that is just on its way between
    /// two nodes may be overlooked by both.
    fn clear_node<'a>(
        &'a self,
        node: &'a Arc<Node>,
        prefix: &'a Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<u64>> + Send + 'a>> {
        Box::pin(async move {
            // What is posted is to be found.
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

    /// Makes up for the clears that `node` has missed, or that nodes have which held its slots.
    /// Fails where nothing can be read before that is done.
    async fn clear_owed(&self, node: &Arc<Node>, map: &Map) -> Result<()> {
        let ahead = self
            .owed
            .ahead(|op, slots| matches!(op, Op::Clear { .. }) && is_at(node, map, slots));
        for op in &ahead.ops {
            match self.clear_node(node, op.name()).await {
                Ok(_) => self.owed.narrow(op, ahead.until, |slots| {
                    slots.retain(|slot| map.owner(*slot) != Some(node));
                    slots.is_empty()
                }),
                Err(error) if error.kind().is_silence() => return Err(error),
                Err(error) => self.owed.told([(op, ahead.until, Some(&error))]),
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

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

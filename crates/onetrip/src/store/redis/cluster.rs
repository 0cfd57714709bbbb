//! A Redis Cluster: every operation to the node that holds its name, all nodes side by side.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::errand::{Errand, Ledger, Map, Origin, Outcome, Part, Visited, parts};
use super::node::{Node, lost};
use super::slots::{self, Slots};
use super::topology::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::lanes;
use crate::store::owed::Owed;
use crate::store::stream::until;
use crate::store::{Exchange, Store, StoreOptions};
use crate::trip::{Op, Replies, Reply, Trip};

/// How often an operation is sent on before it is given up. One move takes one.
const MOST_ROUNDS: usize = 5;

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    topology: Topology,
    trip_timeout: Duration,
    label: Arc<str>,
    /// Each with the slots whose nodes missed it, wherever those slots are by now.
    owed: Owed<Slots>,
}

impl Cluster {
    pub(super) fn new(topology: Topology, label: Arc<str>, options: &StoreOptions) -> Self {
        Self {
            topology,
            trip_timeout: options.trip_timeout,
            owed: Owed::new(Arc::clone(&label), options.clock.clone()),
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
            replies.extend(self.route(run, true).await);
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
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = Vec<Reply>> + Send + 'a>> {
        Box::pin(async move {
            let mut ledger = Ledger::new(ops.len());
            let result = self.follow(ops, carry, &mut ledger).await;
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

    async fn follow(&self, ops: &[Op], carry: bool, ledger: &mut Ledger) -> Result<()> {
        let late = until(self.trip_timeout);
        let mut map = self.topology.map().await?;
        let all = ops.iter().enumerate();
        let mut waiting: Vec<(Option<Arc<Node>>, Errand)> = all
            .map(|(place, op)| Errand::of_trip(place, op))
            .map(|errand| (map.owner(errand.slot).cloned(), errand))
            .collect();
        for _ in 0..MOST_ROUNDS {
            let mut stranded = Vec::new();
            let mut ready = Vec::new();
            for (node, errand) in waiting.drain(..) {
                match node {
                    Some(node) => ready.push((node, errand)),
                    None => {
                        let slot = errand.slot;
                        let why = format!("has no node for slot {slot}");
                        stranded.push((None, errand, self.unavailable(&why)));
                    }
                }
            }
            let parts = parts(ready).into_iter();
            let visits = parts.map(|part| self.visit(part, Arc::clone(&map), carry));
            let mut moved = Vec::new();
            for (node, outcomes) in lanes::together(visits.collect()).await {
                for (mut errand, outcome) in outcomes {
                    match outcome {
                        Outcome::Told(reply) => ledger.note(errand, reply),
                        Outcome::Elsewhere(redirect) => {
                            let to = self.topology.node(&redirect.to)?;
                            if !redirect.once {
                                moved.push((redirect.slot, Arc::clone(&to)));
                            }
                            errand.asking = redirect.once;
                            waiting.push((Some(to), errand));
                        }
                        Outcome::Lost { error, again: true } => {
                            stranded.push((Some(Arc::clone(&node)), errand, error));
                        }
                        Outcome::Lost { error, .. } => ledger.note(errand, Reply::Failed(error)),
                    }
                }
            }
            let in_time = Instant::now() < late;
            if !moved.is_empty() || !stranded.is_empty() {
                map = self.topology.news(moved, in_time).await.unwrap_or(map);
            }
            for (tried, mut errand, error) in stranded {
                match map.owner(errand.slot) {
                    // Whoever goes there is told again what is owed.
                    _ if matches!(errand.origin, Origin::Owed(_)) => {}
                    Some(owner) if in_time && tried.as_ref() != Some(owner) => {
                        errand.asking = false;
                        waiting.push((Some(Arc::clone(owner)), errand));
                    }
                    _ => ledger.note(errand, Reply::Failed(error)),
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

    /// Brings errands to their node, and ahead of them what the node is owed.
    fn visit<'a>(
        &'a self,
        part: Part,
        map: Arc<Map>,
        carry: bool,
    ) -> Pin<Box<dyn Future<Output = Visited> + Send + 'a>> {
        Box::pin(async move {
            let Part { node, errands } = part;
            let outcomes = self.bring(&node, errands, &map, carry).await;
            (node, outcomes)
        })
    }

    async fn bring(
        &self,
        node: &Arc<Node>,
        errands: Vec<Errand>,
        map: &Map,
        carry: bool,
    ) -> Vec<(Errand, Outcome)> {
        if carry && let Err(error) = self.clear_owed(node, map).await {
            return lost(errands, &error, false);
        }
        let pass = match node.admit() {
            Ok(pass) => pass,
            Err(error) => return lost(errands, &error, false),
        };
        let mut all = Vec::new();
        if carry {
            let ahead = self
                .owed
                .ahead(|op, slots| matches!(op, Op::Delete { .. }) && is_at(node, map, slots));
            let owed = ahead.ops.into_iter();
            all.extend(owed.map(|op| Errand::owed(op, ahead.until)));
        }
        all.extend(errands);
        node.run(pass, all).await
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
        let counts = lanes::together(clears.collect()).await;
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
            let (mut cursor, mut removed) = (0_u64, 0_u64);
            loop {
                let (next, names) = node.scan(cursor, prefix).await?;
                let names = names.into_iter();
                let deletes: Vec<Op> = names.map(|name| Op::Delete { name }).collect();
                for reply in self.route(&deletes, false).await {
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
        Exchange::Pending(Box::pin(self.answer(trip)))
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

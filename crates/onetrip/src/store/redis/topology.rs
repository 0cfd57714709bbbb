//! The nodes of a cluster and who of them holds what, as far as this process knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_ok;

use super::address::Greeting;
use super::node::Node;
use super::routed_op::Map;
use super::slots::{self, Address, SlotMap};
use crate::blocking_runtimes;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::store::StoreOptions;

/// Nodes that are asked at once who holds what: one that hangs holds up nobody.
const ASKED: usize = 3;

/// The least time between two looks at who holds what. A node that is down is met by every page.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of a cluster, and how to know more.
#[derive(Debug)]
pub(super) struct Topology {
    seeds: Vec<Address>,
    greeting: Greeting,
    label: Arc<str>,
    options: StoreOptions,
    known: PerProcess<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    map: Option<Arc<Map>>,
    nodes: HashMap<Address, Arc<Node>>,
    looked: Option<Moment>,
}

impl Topology {
    pub(super) fn new(
        seeds: Vec<Address>,
        greeting: Greeting,
        label: Arc<str>,
        options: &StoreOptions,
    ) -> Self {
        Self {
            seeds,
            greeting,
            label,
            options: options.clone(),
            known: PerProcess::default(),
        }
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        self.known
            .with(|known| look(&mut known.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} {why}", self.label))
    }

    /// Who holds what, as this process knows it; asked for where it knows nothing yet.
    pub(super) async fn map(&self) -> Result<Arc<Map>> {
        match self.known(|known| known.map.clone()) {
            Some(map) => Ok(map),
            None => self.look().await,
        }
    }

    /// The map after `moved`, looked up anew if there is time and that was not done just now.
    pub(super) async fn news(
        &self,
        moved: Vec<(u16, Arc<Node>)>,
        in_time: bool,
    ) -> Option<Arc<Map>> {
        let now = self.options.clock.now();
        let is_due = self.known(|known| {
            if !moved.is_empty()
                && let Some(map) = &known.map
            {
                let mut map = Map::clone(map);
                for (slot, node) in moved {
                    map.assign(node, slot..=slot);
                }
                known.map = Some(Arc::new(map));
            }
            let is_due = in_time && known.looked.is_none_or(|then| now.since(then) >= PAUSE);
            if is_due {
                known.looked = Some(now);
            }
            is_due
        });
        if is_due && let Err(error) = self.look().await {
            log::debug!("{} does not tell who holds what: {error}", self.label);
        }
        self.known(|known| known.map.clone())
    }

    /// Asks nodes who holds what, some side by side, until one tells.
    pub(super) async fn look(&self) -> Result<Arc<Map>> {
        let map = self.known(|known| known.map.clone());
        let primaries = map.iter().flat_map(|map| map.nodes());
        let mut nodes: Vec<Arc<Node>> = primaries.cloned().collect();
        for seed in &self.seeds {
            let seed = self.node(seed)?;
            if !nodes.contains(&seed) {
                nodes.push(seed);
            }
        }
        // Those that failed just now come last, and alone.
        let (failing, sound): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.is_failing());
        let mut trouble = None;
        for nodes in sound.chunks(ASKED).chain(failing.chunks(ASKED)) {
            let asked = nodes.iter().map(|node| Box::pin(self.ask(node)));
            match blocking_runtimes::concurrently(select_ok(asked)).await {
                Ok((shards, _)) => return self.adopt(shards),
                Err(error) => trouble = Some(error),
            }
        }
        Err(trouble.unwrap_or_else(|| self.unavailable("has no node to ask")))
    }

    async fn ask(&self, node: &Node) -> Result<slots::Shards> {
        let answer = node.command(&[b"CLUSTER", b"SLOTS"]).await?;
        // A node that was taken out of the cluster knows of no slots at all.
        slots::shards(answer, &node.address)
            .filter(|shards| !shards.is_empty())
            .ok_or_else(|| self.unavailable("does not know who holds what; is it set up?"))
    }

    fn adopt(&self, shards: slots::Shards) -> Result<Arc<Map>> {
        let shards = shards.into_iter();
        let shards = shards.map(|(address, slots)| Ok((self.node(&address)?, slots)));
        let map = Arc::new(SlotMap::new(shards.collect::<Result<Vec<_>>>()?));
        self.known(|known| {
            known.map = Some(Arc::clone(&map));
            let is_used = |address: &Address, node: &Arc<Node>| {
                map.nodes().contains(node) || self.seeds.contains(address)
            };
            known.nodes.retain(|address, node| is_used(address, node));
        });
        Ok(map)
    }

    /// The map, if it is known.
    pub(super) fn known_map(&self) -> Option<Arc<Map>> {
        self.known(|known| known.map.clone())
    }

    /// All nodes that this process has met.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        self.known(|known| known.nodes.values().cloned().collect())
    }

    /// The node that listens at `address`, the same for all who ask.
    pub(super) fn node(&self, address: &Address) -> Result<Arc<Node>> {
        self.known(|known| {
            if let Some(node) = known.nodes.get(address) {
                return Ok(Arc::clone(node));
            }
            let node = Node::new(address, &self.greeting, &self.label, &self.options);
            let node = Arc::new(node);
            known.nodes.insert(address.clone(), Arc::clone(&node));
            Ok(node)
        })
    }
}

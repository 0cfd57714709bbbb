//! A real Redis Cluster of three primaries.

use std::ops::Deref;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Server, eventually};

/// Time after which nodes consider another one failed, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Three primaries, each with a third of the slots, and replicas of the first.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

/// Clusters that were given back.
static IDLE: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());

/// A borrowed cluster, empty at first.
pub(crate) struct Lent(Option<Cluster>);

impl Deref for Lent {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(cluster) = self.0.take().filter(|_| !std::thread::panicking()) else {
            return;
        };
        for server in &cluster.servers {
            let _: () = server.ask(&["FLUSHALL"]);
        }
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(cluster);
    }
}

impl Cluster {
    /// Returns the cluster that all tests of this process share, each under its own prefix.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        // Its nodes never fail, however long the machine stands still.
        SHARED.get_or_init(Self::lasting)
    }

    fn lasting() -> Self {
        Self::announced("60000", 0, |_, port| port)
    }

    /// Starts a cluster whose nodes announce the port that `announce` returns for their number and
    /// own port.
    #[allow(
        dead_code,
        clippy::allow_attributes,
        reason = "the fault suite, which shares this file, puts nodes behind proxies"
    )]
    pub(crate) fn behind(announce: impl Fn(usize, u16) -> u16) -> Self {
        Self::announced("60000", 0, announce)
    }

    /// Lends a cluster to a single test, which must leave it as it was.
    pub(crate) fn lend() -> Lent {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent(Some(idle.unwrap_or_else(Self::lasting)))
    }

    pub(crate) fn start() -> Self {
        Self::with(NODE_TIMEOUT, 0)
    }

    pub(crate) fn with_replica() -> Self {
        Self::with(NODE_TIMEOUT, 1)
    }

    fn with(node_timeout: &str, replicas: usize) -> Self {
        Self::announced(node_timeout, replicas, |_, port| port)
    }

    fn announced(
        node_timeout: &str,
        replicas: usize,
        announce: impl Fn(usize, u16) -> u16,
    ) -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            node_timeout,
            "--cluster-require-full-coverage",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            "--enable-debug-command",
            "yes",
            "--save",
            "",
        ];
        let servers: Vec<Server> = (0..3 + replicas)
            .map(|_| Server::start_with(&options))
            .collect();
        let thirds = [("0", "5461"), ("5462", "10922"), ("10923", "16383")];
        for (number, (server, (first, last))) in servers.iter().zip(thirds).enumerate() {
            let epoch = (number + 1).to_string();
            let _: () = server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let _: () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        let ports = servers.iter().enumerate().map(|(number, server)| {
            let (real, announced) = (server.port(), announce(number, server.port()));
            if announced != real {
                let announced = announced.to_string();
                let _: () = server.ask(&["CONFIG", "SET", "cluster-announce-port", &announced]);
            }
            // Nodes use another port among themselves.
            (announced.to_string(), (real + 10_000).to_string())
        });
        let ports: Vec<(String, String)> = ports.collect();
        for server in &servers {
            for (port, bus) in &ports {
                let _: () = server.ask(&["CLUSTER", "MEET", "127.0.0.1", port, bus]);
            }
        }
        let cluster = Self { servers };
        cluster.wait_for("the nodes meet", |info| {
            info.contains(&format!("cluster_known_nodes:{}", 3 + replicas))
        });
        let first = cluster.servers[0].id();
        for replica in cluster.servers.iter().skip(3) {
            let _: () = replica.ask(&["CLUSTER", "REPLICATE", &first]);
        }
        cluster.wait_for("the cluster is well", |info| {
            info.contains("cluster_state:ok")
                && info.contains("cluster_size:3")
                && info.contains("cluster_slots_ok:16384")
        });
        for replica in cluster.servers.iter().skip(3) {
            eventually("replication", || {
                let info: String = replica.ask(&["INFO", "replication"]);
                info.contains("master_link_status:up")
            });
        }
        cluster
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&str) -> bool) {
        for server in &self.servers {
            eventually(what, || holds(&server.ask::<String>(&["CLUSTER", "INFO"])));
        }
    }

    /// Returns a URL with its first two nodes.
    pub(crate) fn url(&self) -> String {
        let [first, second] = [self.servers[0].port(), self.servers[1].port()];
        format!("redis+cluster://127.0.0.1:{first},127.0.0.1:{second}")
    }

    /// Returns the node that holds `name`.
    pub(crate) fn holder(&self, name: &str) -> &Server {
        let holds = |server: &&Server| server.try_ask::<i64>(&["EXISTS", name]).is_ok();
        self.servers.iter().find(holds).expect("a node holds it")
    }

    /// Moves `slot` and its entries, one by one, to the server with this number. Calls `meanwhile`
    /// between steps.
    pub(crate) fn move_slot(&self, slot: u16, to: usize, mut meanwhile: impl FnMut()) {
        let slot = slot.to_string();
        let to = &self.servers[to];
        let count = ["CLUSTER", "COUNTKEYSINSLOT", &slot];
        let owner = self.owner(&slot);
        let from = self.servers.iter().find(|server| server.id() == owner);
        let from = from.expect("the slot has an owner");
        if from.port() == to.port() {
            return;
        }
        let (from_id, to_id, port) = (from.id(), to.id(), to.port().to_string());
        let set = |server: &Server, what: &[&str]| -> () {
            server.ask(&[&["CLUSTER", "SETSLOT", &slot], what].concat())
        };
        set(to, &["IMPORTING", &from_id]);
        meanwhile();
        set(from, &["MIGRATING", &to_id]);
        meanwhile();
        while from.ask::<u64>(&count) > 0 {
            let names: Vec<String> = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            for name in names {
                let _: String = from.ask(&["MIGRATE", "127.0.0.1", &port, &name, "0", "5000"]);
                meanwhile();
            }
        }
        set(to, &["NODE", &to_id]);
        meanwhile();
        set(from, &["NODE", &to_id]);
        meanwhile();
        for server in self.servers.iter().take(3) {
            set(server, &["NODE", &to_id]);
        }
    }

    /// Returns the id of the node that holds a slot.
    fn owner(&self, slot: &str) -> String {
        let server = &self.servers[0];
        let slot: u16 = slot.parse().expect("a number");
        let info: String = server.ask(&["CLUSTER", "NODES"]);
        let owner = info.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let holds = words[8..].iter().any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            });
            holds.then(|| words[0].to_owned())
        });
        owner.expect("the slot has an owner")
    }

    pub(crate) fn slot(&self, name: &str) -> u16 {
        self.servers[0].ask(&["CLUSTER", "KEYSLOT", name])
    }
}

impl Server {
    /// Returns the node's id in the cluster.
    fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"])
    }
}

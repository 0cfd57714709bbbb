//! A real primary with a replica, watched by real sentinels.

use std::sync::OnceLock;

use super::{Server, eventually};

/// A service called `notes`, and its sentinels.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) primary: Server,
    pub(crate) replica: Server,
    pub(crate) sentinels: Vec<Server>,
}

impl Watched {
    /// Returns the service that all tests of this process share, each under its own prefix.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Watched> = OnceLock::new();
        // No sentinel considers it dead, however long the machine stands still.
        SHARED.get_or_init(|| Self::with(60_000, ""))
    }

    pub(crate) fn start() -> Self {
        Self::with(500, "")
    }

    /// Starts a service whose sentinels also have these lines in their configuration.
    pub(crate) fn with(down_after: u32, more: &str) -> Self {
        let primary = Server::start_with(&["--save", "", "--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = Server::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
        eventually("replication", || {
            let info: String = replica.ask(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
        let configuration = format!(
            "sentinel monitor notes 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds notes {down_after}\n\
             sentinel failover-timeout notes 2000\n{more}\n"
        );
        let sentinels = (0..3).map(|_| Server::start_sentinel(&configuration));
        Self {
            primary,
            replica,
            sentinels: sentinels.collect(),
        }
    }

    /// Waits until every sentinel knows the replica and the other sentinels.
    pub(crate) fn wait_until_ready(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinels meet", || {
                let info: String = sentinel.ask(&["INFO", "sentinel"]);
                info.contains("slaves=1,sentinels=3")
            });
        }
    }

    /// Makes the sentinels name another server.
    pub(crate) fn name(&self, server: &Server) {
        let port = server.port().to_string();
        for sentinel in &self.sentinels {
            let _: () = sentinel.ask(&["SENTINEL", "REMOVE", "notes"]);
            let _: () = sentinel.ask(&["SENTINEL", "MONITOR", "notes", "127.0.0.1", &port, "2"]);
        }
    }

    pub(crate) fn url(&self) -> String {
        let ports = self.sentinels.iter().map(Server::port);
        let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/notes/0", hosts.join(","))
    }
}

//! A store of real servers with a proxy in front of one, and caches on both sides of the proxy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, OnError};

use crate::cluster::Cluster;
use crate::kyoto::Kyoto;
use crate::memcached::Memcached;
use crate::proxy::{Fault, Proxy};
use crate::server::Server;

/// Short, so that timeouts are cheap, but long enough for a busy machine to answer.
pub(crate) const TRIP_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer than a breaker pauses.
const LONG: Duration = Duration::from_secs(10);

/// A store, one of whose servers fails on demand.
pub(crate) struct Stand {
    pub(crate) proxy: Proxy,
    /// Advances only when a test says so: an open breaker stays open until then.
    pub(crate) clock: Clock,
    kind: Kind,
    prefix: String,
}

/// The servers of a store. The first one is behind the proxy.
enum Kind {
    Redis(Server),
    Cluster(Cluster),
    Sentinel {
        primary: Server,
        sentinel: Server,
    },
    Memcached(Memcached),
    /// With a cache that finds out which server holds a key.
    MemcachedTwo(Memcached, Memcached, Cache),
    #[cfg_attr(kt_url, expect(dead_code, reason = "the live one is used"))]
    Kyoto(Kyoto),
    /// The server that `KT_URL` names.
    #[cfg(kt_url)]
    LiveKyoto,
}

fn stand(proxy: Proxy, kind: Kind) -> Stand {
    Stand {
        proxy,
        clock: Clock::manual(),
        kind,
        prefix: String::new(),
    }
}

pub(crate) fn redis() -> Stand {
    let server = Server::start();
    stand(Proxy::to(server.port()), Kind::Redis(server))
}

/// A cluster whose first node is behind the proxy.
pub(crate) fn redis_cluster() -> Stand {
    let proxy = Proxy::to(0);
    let cluster = Cluster::behind(|number, port| if number == 0 { proxy.port() } else { port });
    proxy.redirect(cluster.servers[0].port());
    stand(proxy, Kind::Cluster(cluster))
}

/// A primary behind the proxy; the sentinel announces the proxy's address.
pub(crate) fn redis_sentinel() -> Stand {
    let primary = Server::start();
    let proxy = Proxy::to(primary.port());
    let never = "1000000000";
    let watch = format!(
        "sentinel monitor notes 127.0.0.1 {} 2\nsentinel down-after-milliseconds notes {never}\n",
        proxy.port()
    );
    let sentinel = Server::start_sentinel(&watch);
    // The sentinel must not query the primary through the proxy, which counts requests.
    for period in ["info-period", "ping-period", "publish-period", "ask-period"] {
        let _: () = sentinel.ask(&["SENTINEL", "DEBUG", period, never]);
    }
    // It sends its first query anyway, and repeats it until it is answered.
    eventually("the first look of the sentinel", || {
        let info: HashMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", "notes"]);
        info["info-refresh"] != "0" && info["link-pending-commands"] == "0"
    });
    stand(proxy, Kind::Sentinel { primary, sentinel })
}

pub(crate) fn memcached() -> Stand {
    let server = Memcached::start(&[]);
    stand(Proxy::to(server.port()), Kind::Memcached(server))
}

/// Two servers that share the keys; the first one is behind the proxy.
pub(crate) fn memcached_two() -> Stand {
    let (server, other) = (Memcached::start(&[]), Memcached::start(&[]));
    let proxy = Proxy::to(server.port());
    let ports = (proxy.port(), other.port());
    let url = format!("memcached://127.0.0.1:{},127.0.0.1:{}", ports.0, ports.1);
    let cache = onetrip::Cache::open(url).unwrap().blocking();
    stand(proxy, Kind::MemcachedTwo(server, other, cache))
}

#[cfg(not(kt_url))]
pub(crate) fn kyoto() -> Stand {
    let server = Kyoto::start();
    stand(Proxy::to(server.port()), Kind::Kyoto(server))
}

/// The server that `KT_URL` names, as `kt://host:port/database`.
#[cfg(kt_url)]
pub(crate) fn kyoto() -> Stand {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut stand = stand(Proxy::to(live().0), Kind::LiveKyoto);
    // Others use it too, and earlier runs left entries there.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    stand.prefix = format!("{}-{number}", now.unwrap().as_nanos());
    stand
}

/// Returns the port and the database of the server that `KT_URL` names on this machine.
#[cfg(kt_url)]
fn live() -> (u16, String) {
    let path = env!("KT_URL").strip_prefix("kt://").unwrap();
    let (host, database) = path.split_once('/').unwrap_or((path, "0"));
    let port = host.rsplit_once(':').unwrap().1;
    (port.parse().unwrap(), database.to_owned())
}

impl Stand {
    /// Returns the store's URL through the proxy.
    pub(crate) fn url(&self) -> String {
        let port = self.proxy.port();
        match &self.kind {
            Kind::Redis(_) => format!("redis://127.0.0.1:{port}"),
            Kind::Cluster(cluster) => {
                let other = cluster.servers[1].port();
                format!("redis+cluster://127.0.0.1:{port},127.0.0.1:{other}")
            }
            Kind::Sentinel { sentinel, .. } => {
                format!("redis+sentinel://127.0.0.1:{}/notes", sentinel.port())
            }
            Kind::Memcached(_) => format!("memcached://127.0.0.1:{port}"),
            Kind::MemcachedTwo(_, other, _) => {
                format!("memcached://127.0.0.1:{port},127.0.0.1:{}", other.port())
            }
            Kind::Kyoto(_) => format!("kt://127.0.0.1:{port}"),
            #[cfg(kt_url)]
            Kind::LiveKyoto => format!("kt://127.0.0.1:{port}/{}", live().1),
        }
    }

    /// Returns the URL of the server behind the proxy.
    fn direct_url(&self) -> String {
        match &self.kind {
            Kind::Redis(server)
            | Kind::Sentinel {
                primary: server, ..
            } => server.url(),
            Kind::Cluster(cluster) => cluster.servers[0].url(),
            Kind::Memcached(server) | Kind::MemcachedTwo(server, ..) => {
                format!("memcached://127.0.0.1:{}", server.port())
            }
            Kind::Kyoto(server) => format!("kt://127.0.0.1:{}", server.port()),
            #[cfg(kt_url)]
            Kind::LiveKyoto => env!("KT_URL").to_owned(),
        }
    }

    /// Returns a text that occurs in every log line about the failing server.
    pub(crate) fn marker(&self) -> String {
        match &self.kind {
            Kind::Sentinel { sentinel, .. } => sentinel.port().to_string(),
            _ => self.proxy.port().to_string(),
        }
    }

    /// Returns a cache that reaches the failing server through the proxy.
    pub(crate) fn cache(&self) -> Cache {
        self.builder().build().unwrap().blocking()
    }

    pub(crate) fn builder(&self) -> Builder {
        onetrip::Cache::builder(self.url())
            .prefix(&self.prefix)
            .clock(self.clock.clone())
            .trip_timeout(TRIP_TIMEOUT)
            .connect_timeout(TRIP_TIMEOUT)
    }

    /// Returns the same cache with errors raised.
    pub(crate) fn raising(&self) -> Cache {
        let builder = self.builder().on_error(OnError::Raise);
        builder.build().unwrap().blocking()
    }

    /// Returns a cache for tests in which nothing hangs: it is patient with a busy machine.
    pub(crate) fn patient(&self) -> Cache {
        let patience = Duration::from_secs(20);
        self.builder()
            .trip_timeout(patience)
            .connect_timeout(patience)
            .on_error(OnError::Raise)
            .build()
            .unwrap()
            .blocking()
    }

    /// Returns a cache that reaches the failing server directly, and raises errors.
    pub(crate) fn direct(&self) -> Cache {
        let builder = self.direct_builder().on_error(OnError::Raise);
        builder.build().unwrap().blocking()
    }

    pub(crate) fn direct_builder(&self) -> Builder {
        onetrip::Cache::builder(self.direct_url())
            .prefix(&self.prefix)
            .connect_timeout(LONG)
            .trip_timeout(LONG)
    }

    /// Sends the failing server a Redis command. Returns `false` if it is not Redis.
    pub(crate) fn ask(&self, words: &[&str]) -> bool {
        let server = match &self.kind {
            Kind::Redis(server)
            | Kind::Sentinel {
                primary: server, ..
            } => server,
            Kind::Cluster(cluster) => &cluster.servers[0],
            _ => return false,
        };
        let _: () = server.ask(words);
        true
    }

    /// Returns whether the failing server can become a replica.
    pub(crate) fn has_replicas(&self) -> bool {
        matches!(self.kind, Kind::Redis(_) | Kind::Sentinel { .. })
    }

    /// Returns a key like `name` that the failing server holds.
    pub(crate) fn key(&self, name: &str) -> String {
        match &self.kind {
            // The part in braces selects one of its slots.
            Kind::Cluster(_) => format!("{{b}}{name}"),
            Kind::MemcachedTwo(server, _, cache) => {
                let mut candidates = (0..).map(|number| format!("{name}~{number}"));
                let found = candidates.find(|key| {
                    cache.set(key, &0).unwrap();
                    let is_there = server.life(key).is_some();
                    cache.delete(key).unwrap();
                    is_there
                });
                found.unwrap()
            }
            _ => name.to_owned(),
        }
    }

    /// Returns `count` such keys.
    pub(crate) fn keys(&self, count: usize) -> Vec<String> {
        (0..count)
            .map(|number| self.key(&format!("key:{number}")))
            .collect()
    }

    /// Returns a key that another server holds, if there is one.
    pub(crate) fn key_elsewhere(&self) -> Option<&'static str> {
        match &self.kind {
            // CLUSTER KEYSLOT gives 12739, in the last third.
            Kind::Cluster(_) => Some("123456789"),
            _ => None,
        }
    }

    /// Puts an empty server behind the proxy, like a restart.
    pub(crate) fn restart(&mut self) {
        match &mut self.kind {
            Kind::Redis(server)
            | Kind::Sentinel {
                primary: server, ..
            } => {
                *server = Server::start();
                self.proxy.redirect(server.port());
            }
            Kind::Memcached(server) | Kind::MemcachedTwo(server, ..) => {
                *server = Memcached::start(&[]);
                self.proxy.redirect(server.port());
            }
            Kind::Kyoto(server) => {
                *server = Kyoto::start();
                self.proxy.redirect(server.port());
            }
            // A node must keep the identity that the others know.
            Kind::Cluster(cluster) => {
                let node = &cluster.servers[0];
                let run = |info: &str| {
                    let line = info.lines().find(|line| line.starts_with("run_id:"));
                    line.map(str::to_owned)
                };
                let info = || node.try_ask::<String>(&["INFO", "server"]);
                let before = run(&info().unwrap());
                let _ = node.try_ask::<()>(&["DEBUG", "RESTART"]);
                eventually("the restart", || {
                    let state = node.try_ask::<String>(&["CLUSTER", "INFO"]);
                    state.is_ok_and(|state| state.contains("cluster_state:ok"))
                        && info().is_ok_and(|info| run(&info) != before)
                });
                self.proxy.close_all();
            }
            #[cfg(kt_url)]
            Kind::LiveKyoto => {
                self.direct().clear().unwrap();
                self.proxy.close_all();
            }
        }
    }

    /// Makes the network fail like this from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.proxy.fail(fault);
    }

    /// Ends the fault, and lets the breaker try again.
    pub(crate) fn recover(&self) {
        self.proxy.fail(Fault::None);
        self.clock.advance(LONG);
    }
}

/// Repeats `attempt` until it holds.
pub(crate) fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !attempt() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

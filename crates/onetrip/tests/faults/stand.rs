//! A store of real servers, with a proxy in front of the one that fails, and caches on both sides.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, OnError};

use crate::cluster::Cluster;
use crate::kyoto::Kyoto;
use crate::memcached::Memcached;
use crate::proxy::{Fault, Proxy};
use crate::server::Server;

/// Short, so that waiting for it is cheap, and long enough for a busy machine to answer in.
pub(crate) const TRIP_TIMEOUT: Duration = Duration::from_millis(500);

/// Longer than a breaker pauses.
const LONG: Duration = Duration::from_secs(10);

/// A store, and the way to one of its servers that fails on demand.
pub(crate) struct Stand {
    pub(crate) proxy: Proxy,
    /// Moves on when a test says so: a breaker that opened stays so until then.
    pub(crate) clock: Clock,
    kind: Kind,
    prefix: String,
}

/// The servers of a store. The first is the one behind the proxy.
enum Kind {
    Redis(Server),
    Cluster(Cluster),
    Sentinel {
        primary: Server,
        sentinel: Server,
    },
    Memcached(Memcached),
    /// With a cache that finds out who holds what.
    MemcachedTwo(Memcached, Memcached, Cache),
    #[cfg_attr(kt_url, expect(dead_code, reason = "the live one is used"))]
    Kyoto(Kyoto),
    /// That which `KT_URL` names.
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

/// A primary behind the proxy, where a sentinel says that it is.
pub(crate) fn redis_sentinel() -> Stand {
    let primary = Server::start();
    let proxy = Proxy::to(primary.port());
    let watch = format!(
        "sentinel monitor notes 127.0.0.1 {} 2\nsentinel down-after-milliseconds notes 60000\n",
        proxy.port()
    );
    let sentinel = Server::start_sentinel(&watch);
    // It would look at the primary through the proxy, which counts what is asked.
    let never = "1000000000";
    for period in ["info-period", "ping-period", "publish-period", "ask-period"] {
        let _: () = sentinel.ask(&["SENTINEL", "DEBUG", period, never]);
    }
    // And it looks again and again, until it has seen it once.
    eventually("the sentinel sees the primary", || {
        let told: HashMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", "notes"]);
        !told["runid"].is_empty()
    });
    stand(proxy, Kind::Sentinel { primary, sentinel })
}

pub(crate) fn memcached() -> Stand {
    let server = Memcached::start(&[]);
    stand(Proxy::to(server.port()), Kind::Memcached(server))
}

/// Two servers that share the keys, of which the first is behind the proxy.
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
    // Others use it too, and an earlier run has left its own there.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    stand.prefix = format!("{}-{number}", now.unwrap().as_nanos());
    stand
}

/// The port and the database of the server that `KT_URL` names on this machine.
#[cfg(kt_url)]
fn live() -> (u16, String) {
    let path = env!("KT_URL").strip_prefix("kt://").unwrap();
    let (host, database) = path.split_once('/').unwrap_or((path, "0"));
    let port = host.rsplit_once(':').unwrap().1;
    (port.parse().unwrap(), database.to_owned())
}

impl Stand {
    /// The store's URL, through the proxy.
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

    /// The URL of the server behind the proxy.
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

    /// What every line of the log has that is about the failing server.
    pub(crate) fn marker(&self) -> String {
        match &self.kind {
            Kind::Sentinel { sentinel, .. } => sentinel.port().to_string(),
            _ => self.proxy.port().to_string(),
        }
    }

    /// A cache that reaches the failing server through the proxy.
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

    /// The same, with an error for whatever fails.
    pub(crate) fn raising(&self) -> Cache {
        let builder = self.builder().on_error(OnError::Raise);
        builder.build().unwrap().blocking()
    }

    /// The same, for tests in which nothing hangs: it waits for a busy machine.
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

    /// A cache that reaches the failing server itself, and says so if it does not.
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

    /// Asks the failing server something that only a Redis understands. Whether it is one.
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

    /// Whether the failing server can be told to be a replica.
    pub(crate) fn has_replicas(&self) -> bool {
        matches!(self.kind, Kind::Redis(_) | Kind::Sentinel { .. })
    }

    /// A key like `name` that the failing server holds.
    pub(crate) fn key(&self, name: &str) -> String {
        match &self.kind {
            // Of its slots, by the part in braces.
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

    /// So many of them.
    pub(crate) fn keys(&self, count: usize) -> Vec<String> {
        (0..count)
            .map(|number| self.key(&format!("key:{number}")))
            .collect()
    }

    /// A key that another server holds, if there is one.
    pub(crate) fn key_elsewhere(&self) -> Option<&'static str> {
        match &self.kind {
            // By CLUSTER KEYSLOT 12739, which the last third holds.
            Kind::Cluster(_) => Some("123456789"),
            _ => None,
        }
    }

    /// Puts an empty server behind the proxy, as a restart does.
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
            // A node has to be the one that the others know.
            Kind::Cluster(cluster) => {
                let node = &cluster.servers[0];
                let run = |told: &str| {
                    let line = told.lines().find(|line| line.starts_with("run_id:"));
                    line.map(str::to_owned)
                };
                let info = || node.try_ask::<String>(&["INFO", "server"]);
                let before = run(&info().unwrap());
                let _ = node.try_ask::<()>(&["DEBUG", "RESTART"]);
                eventually("the restart", || {
                    let told = node.try_ask::<String>(&["CLUSTER", "INFO"]);
                    told.is_ok_and(|told| told.contains("cluster_state:ok"))
                        && info().is_ok_and(|told| run(&told) != before)
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

    /// The network fails like this from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.proxy.fail(fault);
    }

    /// Nothing fails any more, and it is time to try again.
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

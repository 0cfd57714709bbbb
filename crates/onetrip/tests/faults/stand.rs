//! A real server, the proxy in front of it, and caches on both.

use std::time::{Duration, Instant};

use onetrip::blocking::Cache;
use onetrip::{Builder, OnError};

use crate::memcached::Memcached;
use crate::proxy::{Fault, Proxy};
use crate::server::Server;

/// Short, so that waiting for it is cheap, and long enough for a busy machine to answer in.
pub(crate) const TRIP_TIMEOUT: Duration = Duration::from_millis(250);

/// A server, and the way to it that fails on demand.
pub(crate) struct Stand {
    pub(crate) proxy: Proxy,
    server: Running,
    scheme: &'static str,
}

/// A server of one kind or another.
enum Running {
    Redis(Server),
    Memcached(Memcached),
}

impl Running {
    fn start(scheme: &str) -> Self {
        match scheme {
            "memcached" => Self::Memcached(Memcached::start(&[])),
            _ => Self::Redis(Server::start()),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Redis(server) => server.port(),
            Self::Memcached(server) => server.port(),
        }
    }
}

fn stand(scheme: &'static str) -> Stand {
    let server = Running::start(scheme);
    Stand {
        proxy: Proxy::to(server.port()),
        server,
        scheme,
    }
}

pub(crate) fn redis() -> Stand {
    stand("redis")
}

pub(crate) fn memcached() -> Stand {
    stand("memcached")
}

impl Stand {
    /// A cache that reaches the server through the proxy.
    pub(crate) fn cache(&self) -> Cache {
        self.builder().build().unwrap().blocking()
    }

    pub(crate) fn builder(&self) -> Builder {
        onetrip::Cache::builder(format!("{}://127.0.0.1:{}", self.scheme, self.proxy.port()))
            .trip_timeout(TRIP_TIMEOUT)
            .connect_timeout(TRIP_TIMEOUT)
    }

    /// The same, for tests in which nothing hangs: it waits for a busy machine, and raises.
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

    /// A cache that reaches the server itself, and says so if it does not.
    pub(crate) fn direct(&self) -> Cache {
        onetrip::Cache::builder(format!(
            "{}://127.0.0.1:{}",
            self.scheme,
            self.server.port()
        ))
        .on_error(OnError::Raise)
        .build()
        .unwrap()
        .blocking()
    }

    /// The server itself, if it is a Memcached.
    pub(crate) fn memcached(&self) -> &Memcached {
        match &self.server {
            Running::Memcached(server) => server,
            Running::Redis(_) => panic!("it is a Redis"),
        }
    }

    /// Puts an empty server behind the proxy, as a restart does.
    pub(crate) fn restart(&mut self) {
        let fresh = Running::start(self.scheme);
        self.proxy.redirect(fresh.port());
        self.server = fresh;
    }

    /// Fails like this for one trip, and opens the breaker with it.
    pub(crate) fn fail(&self, fault: Fault) {
        self.proxy.fail(fault);
    }
}

/// Repeats `attempt` until it holds: recovery takes as long as the breaker pauses.
pub(crate) fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !attempt() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

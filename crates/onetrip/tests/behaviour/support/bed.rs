//! A store for one test, with its own prefix and clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onetrip::internals::entry::Kind;
use onetrip::trip::Op;
use onetrip::{Builder, Cache, Clock, ErrorKind, OnError, Serializer};

use super::memcached::{self, Life};
use super::server::shared;
use super::{Blob, Cluster, Driver, Face, Folder, Outcome, Server, Watched, turn};

/// Long enough for a machine that is busy building.
const PATIENCE: Duration = Duration::from_secs(20);

/// The environment of a test: a store, a prefix that no other test uses, and a face.
#[derive(Debug)]
pub(crate) struct Bed {
    url: String,
    prefix: String,
    blocking: bool,
    own: Option<Server>,
    folder: Option<Folder>,
    clock: Clock,
    /// A shared memory store ends with its last cache; this cache lasts as long as the test.
    keeper: OnceLock<Cache>,
}

impl Bed {
    fn new(url: String, prefix: &str, own: Option<Server>) -> Self {
        Self {
            url,
            prefix: prefix.to_owned(),
            blocking: false,
            own,
            folder: None,
            clock: Clock::manual(),
            keeper: OnceLock::new(),
        }
    }

    /// Returns a cache on this bed that raises errors.
    pub(crate) fn cache(&self) -> Face {
        self.open(self.builder())
    }

    /// Returns its options, to change and [open](Self::open).
    pub(crate) fn builder(&self) -> Builder {
        Cache::builder(&self.url)
            .prefix(&self.prefix)
            .clock(self.clock.clone())
            .connect_timeout(PATIENCE)
            .trip_timeout(PATIENCE)
            .on_error(OnError::Raise)
    }

    pub(crate) fn open(&self, builder: Builder) -> Face {
        self.keeper.get_or_init(|| {
            let keeper = Cache::builder(&self.url).clock(self.clock.clone());
            keeper.build().expect("the URL names a store")
        });
        let cache = builder.build().expect("the options are good");
        if self.blocking {
            Face::Blocking(cache.blocking())
        } else {
            Face::Awaited(cache)
        }
    }

    /// Returns the clock of scopes, and of entries in local stores.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Gives access to entries as stored bytes.
    pub(crate) fn raw(&self) -> Raw {
        Raw(self.open(self.builder().serializer(Serializer::Raw)))
    }

    /// Acts on entries as another process would.
    pub(crate) fn elsewhere(&self) -> Elsewhere {
        Elsewhere(self.cache())
    }

    /// Returns a cache that posts what its scopes compute, and treats failures as misses.
    pub(crate) fn posting(&self) -> Face {
        self.open(self.builder().on_error(OnError::Miss))
    }

    /// Returns whether the store can remove a prefix.
    pub(crate) fn clears(&self) -> bool {
        !self.url.starts_with("memcached")
    }

    /// Clears the cache and returns the count. If the store cannot clear, checks its error.
    pub(crate) async fn clear(&self, cache: &Face) -> onetrip::Result<Option<u64>> {
        if self.clears() {
            return cache.clear().await.map(Some);
        }
        let error = cache.clear().await.expect_err("the store cannot do this");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains("change the cache's prefix"),
            "{error}"
        );
        Ok(None)
    }

    /// Returns what a clear of `count` entries returns.
    pub(crate) fn cleared(&self, count: u64) -> Option<u64> {
        self.clears().then_some(count)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of `key` in the store.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }

    /// Returns the server that counts its commands, for this test alone.
    pub(crate) fn server(&self) -> &Server {
        self.own.as_ref().expect("the test runs on_every_server!")
    }

    /// Checks that the entry of `key` lives for `span` from now: by the bed's clock if the store
    /// follows it, otherwise by what the server says.
    pub(crate) async fn assert_lives(&self, cache: &Face, key: &str, span: Duration) -> Outcome {
        if cache.cache().is_local() {
            let instant = Duration::from_micros(1);
            self.clock.advance(span - instant);
            assert!(cache.contains(key).await?, "ended before {span:?}");
            self.clock.advance(instant);
            assert!(!cache.contains(key).await?, "lives beyond {span:?}");
            return Ok(());
        }
        if self.is_memcached() && memcached::outlives(span) {
            return self.assert_lives_on(cache, key).await;
        }
        let left = self.left(key).expect("a TTL");
        // Memcached's clock ticks in seconds, counted from its start.
        let tick = Duration::from_secs(if self.is_memcached() { 2 } else { 0 });
        assert!(left <= span + tick, "lives {left:?}, not {span:?}");
        // Longer than a machine stands still, and shorter than the difference between any two spans
        // in use.
        assert!(left + Duration::from_secs(60) > span, "lives {left:?} only");
        Ok(())
    }

    /// Checks that the entry of `key` never expires.
    pub(crate) async fn assert_lives_on(&self, cache: &Face, key: &str) -> Outcome {
        if cache.cache().is_local() {
            self.clock
                .advance(Duration::from_secs(1_000 * 365 * 24 * 60 * 60));
        } else {
            assert_eq!(self.left(key), None);
        }
        assert!(cache.contains(key).await?);
        Ok(())
    }

    fn is_memcached(&self) -> bool {
        self.url.starts_with("memcached")
    }

    /// Returns the server's remaining ttl of the entry of `key`.
    fn left(&self, key: &str) -> Option<Duration> {
        #[cfg(kt_url)]
        if self.url == super::kyoto::URL {
            return super::kyoto::left(&self.name(key));
        }
        if !self.is_memcached() {
            let name = self.name(key);
            let server = match self.url.split_once("://") {
                Some(("redis+cluster", _)) => Cluster::shared().holder(&name),
                Some(("redis+sentinel", _)) => &Watched::shared().primary,
                _ => shared(),
            };
            return server.milliseconds_left(&name);
        }
        let servers = memcached::shared_by(&self.url);
        let lives: Vec<_> = servers
            .iter()
            .filter_map(|server| server.life(&self.name(key)))
            .collect();
        let [life] = lives[..] else {
            panic!("{key} is on {} of the servers", lives.len());
        };
        match life {
            Life::ForEver => None,
            Life::Seconds(left) => Some(Duration::from_secs(left)),
        }
    }
}

/// Another process: its writes end nothing that this process holds.
#[derive(Debug)]
pub(crate) struct Elsewhere(Face);

impl Elsewhere {
    fn name(&self, key: &str) -> Bytes {
        let prefix = self.0.cache().prefix();
        format!("{prefix}:{key}").into()
    }

    pub(crate) async fn set(&self, key: &str, text: &str) -> Outcome {
        self.write(key, text, None).await
    }

    pub(crate) async fn set_for(&self, key: &str, text: &str, life: Duration) -> Outcome {
        self.write(key, text, Some(life)).await
    }

    async fn write(&self, key: &str, text: &str, ttl: Option<Duration>) -> Outcome {
        let text = |out: &mut Vec<u8>| {
            out.extend_from_slice(text.as_bytes());
            onetrip::Result::Ok(Kind::Str)
        };
        let entry = self.0.cache().policy().seal(key.as_bytes(), text)?;
        let name = self.name(key);
        self.0.send(&Op::Set { name, entry, ttl }.into()).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, key: &str) -> Outcome {
        let name = self.name(key);
        self.0.send(&Op::Delete { name }.into()).await?;
        Ok(())
    }

    /// Waits until the store holds the posted `text`. Nothing orders a post and what another
    /// process does.
    pub(crate) async fn sees(&self, key: &str, text: &str) -> Outcome {
        let until = Instant::now() + Duration::from_secs(60);
        while self.get(key).await?.as_deref() != Some(text) {
            assert!(Instant::now() < until, "{text} does not arrive under {key}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Returns what the store holds now.
    pub(crate) async fn get(&self, key: &str) -> onetrip::Result<Option<String>> {
        self.0.get(key).await
    }
}

/// The entries of a bed as bytes.
#[derive(Debug)]
pub(crate) struct Raw(Face);

impl Raw {
    pub(crate) async fn get(&self, key: impl AsRef<[u8]>) -> onetrip::Result<Option<Vec<u8>>> {
        Ok(self.0.get::<Blob>(key).await?.map(|Blob(bytes)| bytes))
    }

    pub(crate) async fn set(&self, key: impl AsRef<[u8]>, entry: &[u8]) -> Outcome {
        self.0.set(key, &Blob(entry.to_vec())).await
    }
}

/// Turns the name of a test into a unique prefix that is also a host name.
fn slug(test: &str) -> String {
    test.replace("::", "-").replace('_', "-")
}

pub(crate) fn memory(test: &str) -> Bed {
    let name = slug(test);
    Bed::new(format!("memory://{name}"), &name, None)
}

pub(crate) fn disk(test: &str) -> Bed {
    let folder = Folder::new();
    let mut bed = Bed::new(folder.url(), &slug(test), None);
    bed.folder = Some(folder);
    bed
}

pub(crate) fn redis(test: &str) -> Bed {
    Bed::new(shared().url(), &slug(test), None)
}

pub(crate) fn redis_unix(test: &str) -> Bed {
    Bed::new(shared().socket_url(), &slug(test), None)
}

pub(crate) fn redis_sentinel(test: &str) -> Bed {
    Bed::new(Watched::shared().url(), &slug(test), None)
}

pub(crate) fn redis_cluster(test: &str) -> Bed {
    Bed::new(Cluster::shared().url(), &slug(test), None)
}

pub(crate) fn memcached(test: &str) -> Bed {
    Bed::new(memcached::one().url(), &slug(test), None)
}

pub(crate) fn memcached_unix(test: &str) -> Bed {
    Bed::new(memcached::on_socket().url(), &slug(test), None)
}

pub(crate) fn memcached_two(test: &str) -> Bed {
    Bed::new(memcached::two(), &slug(test), None)
}

#[cfg(kt_url)]
pub(crate) fn kyoto(test: &str) -> Bed {
    // The server outlives this run, so keep apart from earlier runs.
    let run = super::kyoto::run();
    let prefix = format!("{run}-{}", slug(test));
    Bed::new(super::kyoto::URL.into(), &prefix, None)
}

pub(crate) fn own_redis(test: &str) -> Bed {
    let server = Server::start();
    Bed::new(server.url(), &slug(test), Some(server))
}

pub(crate) fn own_redis_unix(test: &str) -> Bed {
    let server = Server::start();
    Bed::new(server.socket_url(), &slug(test), Some(server))
}

/// Runs a test as a task.
pub(crate) fn run_awaited<F: Future<Output = Outcome>>(bed: Bed, test: fn(Bed) -> F) {
    let _turn = turn();
    Driver::task().run(test(bed)).expect("no error");
}

/// Runs a test on this thread, without a runtime.
pub(crate) fn run_blocking<F: Future<Output = Outcome>>(mut bed: Bed, test: fn(Bed) -> F) {
    let _turn = turn();
    bed.blocking = true;
    Driver::Thread.run(test(bed)).expect("no error");
}

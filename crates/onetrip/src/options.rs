//! How a cache is set up. Every default is here, and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::{Cache, Inner};
use crate::clock::Clock;
use crate::compress::Compression;
use crate::dispatch::OnError;
use crate::entry::Sealer;
use crate::error::{Error, Result};
use crate::key::Keyspace;
use crate::learn::{Budget, Learner};
use crate::pages::PageMode;
use crate::policy::Policy;
use crate::shared_store::SharedStore;
use crate::stats::Counters;
use crate::store::{self, Store, StoreOptions};

/// The store of a cache that names none.
pub const DEFAULT_URL: &str = "memory://";

/// How values become payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Serializer {
    /// MessagePack with extension types: data only, the same in every language.
    #[default]
    Native,
    /// Whatever Python can pickle. Needs a secret, since unpickling runs code.
    Pickle,
    /// Bytes as they are, without a header, for entries that other programs read and write.
    Raw,
}

/// Sets up a [`Cache`]; made by [`Cache::builder`].
///
/// ```
/// use std::time::Duration;
/// use onetrip::Cache;
///
/// let cache = Cache::builder("memory://?size=64MiB")
///     .prefix("blog")
///     .ttl(Some(Duration::from_secs(60)))
///     .build()?;
/// # Ok::<(), onetrip::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Builder {
    url: String,
    store: Option<Arc<dyn Store>>,
    prefix: String,
    ttl: Option<Duration>,
    pub(crate) serializer: Serializer,
    secrets: Vec<Vec<u8>>,
    compression: Option<Compression>,
    compression_min: usize,
    on_error: OnError,
    connect_timeout: Duration,
    trip_timeout: Duration,
    scope_max_age: Duration,
    read_max_age: Duration,
    debug: bool,
    pages: PageMode,
    page_budget: Budget,
    clock: Clock,
}

/// Without the URL and the secrets: both may open something.
impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("prefix", &self.prefix)
            .field("ttl", &self.ttl)
            .field("serializer", &self.serializer)
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}

/// The options of a cache in memory.
impl Default for Builder {
    fn default() -> Self {
        Self::new(DEFAULT_URL)
    }
}

impl Builder {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            store: None,
            prefix: String::new(),
            ttl: Some(Duration::from_secs(300)),
            serializer: Serializer::default(),
            secrets: Vec::new(),
            compression: None,
            compression_min: 1024,
            on_error: OnError::default(),
            connect_timeout: Duration::from_secs(1),
            trip_timeout: Duration::from_secs(1),
            scope_max_age: Duration::from_secs(10),
            read_max_age: Duration::from_millis(100),
            debug: false,
            pages: PageMode::default(),
            page_budget: Budget::default(),
            clock: Clock::system(),
        }
    }

    /// Opens the cache over `store`, whatever its URL. Caches may share one store.
    ///
    /// `connect_timeout` and `trip_timeout` do not limit it: a store has its own timeouts.
    ///
    /// See [`Store`] for the laws that it has to keep.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// What the keys of this cache are named under in the store, as in `prefix:key`; the empty
    /// string, the default, names them as they are.
    ///
    /// [`Cache::clear`] removes what begins with `prefix:`, so one cache's prefix should not be
    /// the beginning of another's (`blog` and `blog:en`).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long entries live unless told otherwise: 300 seconds by default; `None` until they
    /// are evicted.
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    /// How values become payloads: [`Serializer::Native`] by default.
    pub fn serializer(mut self, serializer: Serializer) -> Self {
        self.serializer = serializer;
        self
    }

    /// Signs every entry with the first secret, and accepts those that any of them signed
    /// (HMAC-SHA256, RFC 2104). None by default. Integers of 64 bits are not signed: the store
    /// itself adds to them.
    pub fn secrets<S: Into<Vec<u8>>>(mut self, secrets: impl IntoIterator<Item = S>) -> Self {
        self.secrets = secrets.into_iter().map(Into::into).collect();
        self
    }

    /// Compresses payloads; `None`, the default, does not. Each codec has a feature.
    pub fn compression(mut self, compression: Option<Compression>) -> Self {
        self.compression = compression;
        self
    }

    /// The fewest bytes of a payload that are worth compressing: 1024 by default.
    pub fn compression_min(mut self, bytes: usize) -> Self {
        self.compression_min = bytes;
        self
    }

    /// What becomes of a failure of the store: [`OnError::Miss`] by default.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// The longest that connecting may take: one second by default.
    pub fn connect_timeout(mut self, span: Duration) -> Self {
        self.connect_timeout = span;
        self
    }

    /// The longest that a trip may take, connecting not counted: one second by default.
    pub fn trip_timeout(mut self, span: Duration) -> Self {
        self.trip_timeout = span;
        self
    }

    /// The oldest piece that a scope answers with before it asks the store again: ten seconds by
    /// default. Pieces are what fetches make and what is preloaded by name.
    pub fn scope_max_age(mut self, span: Duration) -> Self {
        self.scope_max_age = span;
        self
    }

    /// The oldest answer of a learned page's snapshot to a plain read, and the oldest piece once a
    /// response is being sent: 0.1 seconds by default. Zero reads all state from the store.
    pub fn read_max_age(mut self, span: Duration) -> Self {
        self.read_max_age = span;
        self
    }

    /// Whether to cache nothing at all: every read is a miss and every write is dropped. False by
    /// default.
    pub fn debug(mut self, debug: bool) -> Self {
        self.debug = debug;
        self
    }

    /// What pages do with what they learn: [`PageMode::Preload`] by default.
    pub fn pages(mut self, mode: PageMode) -> Self {
        self.pages = mode;
        self
    }

    /// The most keys that a page's first trip brings before they are read: 512 by default.
    pub fn page_keys(mut self, keys: usize) -> Self {
        self.page_budget.keys = keys;
        self
    }

    /// The most bytes of entries that a page's first trip brings before they are read, by what they
    /// were when they were last seen: 1 MiB by default.
    pub fn page_bytes(mut self, bytes: usize) -> Self {
        self.page_budget.bytes = bytes;
        self
    }

    /// Where expiry and age are read from: the system's clock by default.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the cache. Nothing connects until its first trip.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the URL names no store,
    /// options contradict one another, or either needs a feature that is off.
    pub fn build(self) -> Result<Cache> {
        self.check()?;
        let options = StoreOptions {
            clock: self.clock.clone(),
            connect_timeout: self.connect_timeout,
            trip_timeout: self.trip_timeout,
        };
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => store::open(&self.url, &options)?,
        };
        let shared = SharedStore::new(store, self.on_error);
        Ok(self.over(shared))
    }

    /// Makes the cache over an open store.
    pub(crate) fn over(self, store: Arc<SharedStore>) -> Cache {
        let sealer = match self.serializer {
            Serializer::Raw => Sealer::bare(),
            Serializer::Native => self.sealer(),
            Serializer::Pickle => self.sealer().with_pickle(),
        };
        let dispatcher = &store.dispatcher;
        let counters = Arc::<Counters>::default();
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let inner = Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            policy: Policy {
                keyspace: Keyspace::new(&self.prefix),
                // Whatever entries are, workers and the command line read records alike. Not
                // compressed: what was written by anybody is not expanded.
                record_sealer: Sealer::new(&self.secrets, None, 0),
                sealer,
                clock: self.clock.clone(),
                late: dispatcher.posts().then(|| dispatcher.late(&counters)),
                store: dispatcher.store_id(),
                costs: Arc::default(),
                counters,
                ttl: self.ttl,
                max_age: self.scope_max_age,
                read_max_age: self.read_max_age,
                disabled: self.debug,
                page_mode: self.pages,
                learner: Learner::new(self.page_budget),
            },
            builder: self,
            store,
        };
        Cache(Arc::new(inner))
    }

    /// Returns whether `other` has a store of the same URL.
    pub(crate) fn names_store_of(&self, other: &Self) -> bool {
        match (&self.store, &other.store) {
            (None, None) => self.url == other.url,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Returns the longest that one exchange takes, connecting included.
    pub(crate) fn patience(&self) -> Duration {
        self.connect_timeout.saturating_add(self.trip_timeout)
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(&self.secrets, self.compression, self.compression_min)
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::configuration(message));
        if self.secrets.iter().any(Vec::is_empty) {
            return refuse(
                "secret is empty, and would vouch for anybody; give a long random one, or none",
            );
        }
        if let Some(feature) = self.compression.and_then(Compression::missing_feature) {
            let what = format!("compression=\"{feature}\"");
            return Err(Error::feature_missing(&what, feature));
        }
        match self.serializer {
            Serializer::Pickle if self.secrets.is_empty() => refuse(
                "serializer=\"pickle\" needs secret=: unpickling runs code, so entries must be signed",
            ),
            Serializer::Raw if !self.secrets.is_empty() || self.compression.is_some() => refuse(
                "serializer=\"raw\" stores bytes as they are; it takes neither secret= nor compression=",
            ),
            _ if self.connect_timeout.is_zero() || self.trip_timeout.is_zero() => {
                refuse("connect_timeout and trip_timeout are in seconds, and above zero")
            }
            _ => Ok(()),
        }
    }
}

//! The cache, as asynchronous Rust sees it.

mod scopes;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::scopes::Visiting;
use crate::blocking_runtimes;
use crate::codec::{self, Presence, Serde};
use crate::context::{Context, task};
use crate::dispatch::Dispatched;
use crate::drive::Fetching;
use crate::error::{Error, Result};
use crate::latch::Latch;
use crate::options::{Builder, Serializer};
use crate::policy::{Policy, Step, Ttl};
use crate::scope::{Reading, Scope};
use crate::shared_store::SharedStore;
use crate::stats::Stats;
use crate::trip::{Replies, ScopeId, Trip};

/// A cache: a store, the keys in it under one prefix, and what its options say of them.
///
/// Clones share everything. All methods are to be awaited within a Tokio runtime;
/// [`blocking`](Self::blocking) has the same ones for threads.
///
/// ```
/// use onetrip::Cache;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = Cache::builder("memory://").prefix("blog").build()?;
/// cache.set("note:1", "<p>Hello</p>").await?;
/// cache.set("note:2", "<p>World</p>").await?;
///
/// let (page, seen) = cache
///     .watch(cache.preload(["note:1", "note:2"], async {
///         let first: Option<String> = cache.get("note:1").await?;
///         let second: Option<String> = cache.get("note:2").await?;
///         Ok::<_, onetrip::Error>(format!("{}{}", first.unwrap(), second.unwrap()))
///     }))
///     .await;
///
/// assert_eq!(page?, "<p>Hello</p><p>World</p>");
/// assert_eq!(seen.trips(), 1);
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Cache(pub(crate) Arc<Inner>);

/// A trip that was begun.
pub enum Begun {
    /// Answered without waiting: by a local store, or by the breaker of one that failed just now.
    Answered(Result<Replies>),
    /// Waits for its answer on whatever thread calls this, as
    /// [`send_blocking`](Cache::send_blocking) does. Uncalled, nothing is sent.
    Waiting(Box<dyn FnOnce() -> Result<Replies> + Send>),
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answered(_) => "Answered",
            Self::Waiting(_) => "Waiting",
        })
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<Replies>> + Send>>;

pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) policy: Policy,
    pub(crate) store: Arc<SharedStore>,
    /// The options that caches of other prefixes are built with.
    pub(crate) builder: Builder,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("store", self.store.dispatcher.label())
            .field("prefix", self.policy.keyspace.prefix())
            .finish_non_exhaustive()
    }
}

/// Opening.
impl Cache {
    /// A cache with the default options over the store that `url` names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if it names none.
    pub fn open(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).build()
    }

    /// The options of a cache over the store that `url` names.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url)
    }

    /// Returns a cache of other keys over the same connections: keys under `prefix` within the prefix
    /// of this cache. Of a cache with the prefix `blog`, `with_prefix("notes")` names its keys
    /// `blog:notes:…`.
    ///
    /// Both share the store, its breaker and its pending deletes. Options are the same. Counters,
    /// scopes, watches and learned pages are each cache's own. The key `notes:5` of the outer cache
    /// is the key `5` of the inner one. [`clear`](Self::clear) of the inner cache leaves the keys of
    /// the outer one; `clear` of the outer cache removes those of the inner one too.
    ///
    /// ```
    /// use onetrip::Cache;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let blog = Cache::builder("memory://").prefix("blog").build()?;
    /// let notes = blog.with_prefix("notes");
    /// assert_eq!(notes.prefix(), "blog:notes");
    ///
    /// blog.set("5", "blog").await?;
    /// notes.set("5", "note").await?;
    /// notes.clear().await?;
    /// assert_eq!(blog.get::<String>("5").await?.as_deref(), Some("blog"));
    /// # Ok::<(), onetrip::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        let prefix = match self.prefix() {
            "" => prefix.to_owned(),
            outer => format!("{outer}:{prefix}"),
        };
        let builder = self.0.builder.clone().prefix(prefix);
        builder.over(Arc::clone(&self.0.store))
    }

    /// The same cache for threads that may block.
    #[must_use]
    pub fn blocking(&self) -> crate::blocking::Cache {
        crate::blocking::Cache::new(self.clone())
    }

    /// The counters of this cache, over all its clones.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.policy.counters.read()
    }

    /// Sets all counters to zero.
    pub fn reset_stats(&self) {
        self.0.policy.counters.reset();
    }

    /// The store, as messages name it: its URL without password.
    #[must_use]
    pub fn label(&self) -> &str {
        self.0.store.dispatcher.label()
    }

    /// The prefix of its keys, without the colon behind it; empty if it has none.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.policy().keyspace.text()
    }

    /// Closes the connections that blocking callers left idle, once the replies to what was posted
    /// on them are read. The next trip opens a new one.
    pub fn close_idle(&self) {
        self.settle_blocking(None);
        self.0.store.blocking_runtimes.close();
    }
}

/// For [`internals`](crate::internals): how trips are made.
#[doc(hidden)]
impl Cache {
    /// How this cache was told to write values.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.0.builder.serializer
    }

    /// The meaning of this cache's operations, for faces in other languages.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Whether every trip is answered at once, without leaving this process.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.store.dispatcher.is_local()
    }

    /// Whether `other` is a clone of this cache.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes a trip.
    ///
    /// # Errors
    ///
    /// What is wrong with the operations, and under [`OnError::Raise`](crate::OnError::Raise)
    /// failures of the store.
    pub async fn send(&self, at: &Context, trip: &Trip) -> Result<Replies> {
        self.depart(at, trip).answer().await
    }

    fn depart<'a>(
        &'a self,
        at: &'a Context,
        trip: &'a Trip,
    ) -> Dispatched<impl Future<Output = Result<Replies>> + Send + 'a> {
        if let Some(scope) = at.scope().filter(|_| trip.reads()) {
            scope.count_trip();
        }
        let check = |replies| self.check_replies(trip.own(), replies);
        match self
            .0
            .store
            .dispatcher
            .depart(&self.0.policy.counters, at, trip)
        {
            Dispatched::Ready(answer) => Dispatched::Ready(answer.and_then(check)),
            Dispatched::Pending(answer) => Dispatched::Pending(async move { check(answer.await?) }),
        }
    }

    pub(crate) async fn carry(&self, at: &Context, trip: &Trip) -> Result<Replies> {
        let counters = &self.0.policy.counters;
        self.0
            .store
            .dispatcher
            .depart(counters, at, trip)
            .answer()
            .await
    }

    pub(crate) fn check_replies(&self, own: usize, replies: Replies) -> Result<Replies> {
        self.0.store.dispatcher.check_replies(own, replies)
    }

    /// Makes a trip on the calling thread, in a blocking runtime if the store is remote.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send); [`ErrorKind::Configuration`](crate::ErrorKind::Configuration)
    /// within a task of a Tokio runtime if the store is remote.
    pub fn send_blocking(&self, at: &Context, trip: &Trip) -> Result<Replies> {
        match self.depart(at, trip) {
            Dispatched::Ready(answer) => answer,
            Dispatched::Pending(answer) => self.0.store.blocking_runtimes.wait(answer),
        }
    }

    /// Begins a trip on the calling thread: its answer, or what has to wait for it.
    ///
    /// For callers who must not block, and know a thread that may.
    #[must_use]
    pub fn begin(&self, at: Context, trip: Trip) -> Begun {
        let cache = self.clone();
        let mut work: Waiting = Box::pin(async move { cache.send(&at, &trip).await });
        match blocking_runtimes::poll_once(work.as_mut()) {
            Poll::Ready(answer) => Begun::Answered(answer),
            Poll::Pending => {
                let cache = self.clone();
                Begun::Waiting(Box::new(move || cache.0.store.blocking_runtimes.wait(work)))
            }
        }
    }

    /// Closes a scope that [`enter`](Self::enter) opened, on this thread. What tasks posted in it is
    /// read by their own runtime, which this thread may belong to.
    pub(crate) fn leave_blocking(&self, within: &Context, opened: Option<Arc<Scope>>) {
        if let Some(scope) = opened {
            let closed = self.travel_blocking(within, self.policy().close(&scope));
            self.tell_of_close(closed);
        }
    }

    /// Waits on this thread until a post is over, no longer than an exchange takes.
    pub fn await_post(&self, post: &Latch) {
        let _ = post.wait(self.0.builder.patience());
    }

    /// Reads the replies to what `scope` posted, or to all that is posted, at most `trip_timeout`
    /// long. Makes no trip.
    pub async fn drain(&self, scope: Option<ScopeId>) {
        self.0.store.dispatcher.drain(scope).await;
    }

    /// The same on the calling thread. Within a task of a Tokio runtime, which must not be blocked,
    /// it does nothing.
    pub fn settle_blocking(&self, scope: Option<ScopeId>) {
        self.0.store.drain(scope);
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.0.store.blocking_runtimes.run(work)
    }

    pub(crate) fn here(&self) -> Context {
        task::with(self.0.id, Context::clone)
    }

    pub(crate) async fn travel<T, F: FnOnce(Replies) -> T>(
        &self,
        at: &Context,
        step: Step<T, F>,
    ) -> Result<T> {
        match step {
            Step::Done(answer) => Ok(answer),
            Step::Ask(trip, finish) => Ok(finish(self.send(at, &trip).await?)),
        }
    }

    pub(crate) fn travel_blocking<T, F: FnOnce(Replies) -> T>(
        &self,
        at: &Context,
        step: Step<T, F>,
    ) -> Result<T> {
        match step {
            Step::Done(answer) => Ok(answer),
            Step::Ask(trip, finish) => Ok(finish(self.send_blocking(at, &trip)?)),
        }
    }
}

/// Reading.
impl Cache {
    /// The value of `key`; `None` if there is none, or none that can be read as a `T`.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        // A hit is not to pay for a step that has room for a trip.
        match self.held(key) {
            Some(value) => Ok(value),
            None => {
                let (at, serde) = (self.here(), Serde::new());
                let reading = Reading::Plain(at.hold());
                let step = self.policy().get_from_store(&at, key, reading, &serde);
                self.travel(&at, step).await
            }
        }
    }

    /// Answers a plain read from the scope; `None` where the store has to be asked.
    pub(crate) fn held<T: DeserializeOwned>(&self, key: &[u8]) -> Option<Option<T>> {
        task::with(self.0.id, |at| {
            let reading = Reading::Plain(at.hold());
            let read = self.policy().held(at, key, reading, &Serde::new())?;
            Some(read.found())
        })
    }

    /// The values of many keys, in their order, in one trip.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn get_many<T: DeserializeOwned, K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<T>>> {
        let (at, serde) = (self.here(), Serde::new());
        self.travel(&at, self.policy().get_many(&at, keys, &serde))
            .await
    }

    /// Whether there is an entry for `key`.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let at = self.here();
        let found = self
            .travel(&at, self.policy().get(&at, key.as_ref(), &Presence))
            .await?;
        Ok(found.is_some())
    }

    /// Returns the value of `key`. On a miss, computes it by `make` and stores it for `ttl`.
    ///
    /// Callers who miss the key together, in this process, compute it once. If another process
    /// stored a value meanwhile, that one is kept and returned. One trip on a hit, two on a miss.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialization`](crate::ErrorKind::Serialization) if the value cannot be
    /// stored; under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use onetrip::{Cache, Ttl};
    ///
    /// let cache = Cache::open("memory://")?;
    /// let title: String = cache
    ///     .get_or_insert_with("title:5", Ttl::Default, async || "Hello".into())
    ///     .await?;
    /// assert_eq!(title, "Hello");
    /// # Ok::<(), onetrip::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_insert_with<T: Serialize + DeserializeOwned, F: Future<Output = T>>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        make: impl FnOnce() -> F,
    ) -> Result<T> {
        let make = || {
            let value = make();
            async { Ok(value.await) }
        };
        self.try_get_or_insert_with(key, ttl, make).await
    }

    /// Returns the value of `key`. On a miss, computes it by `make`, which may fail, and stores it
    /// for `ttl`. Nothing is stored of an error.
    ///
    /// Otherwise as [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Errors
    ///
    /// Those of `make`, and those of [`get_or_insert_with`](Self::get_or_insert_with).
    pub async fn try_get_or_insert_with<T, E, F>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        make: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: Future<Output = Result<T, E>>,
    {
        let what = Fetching::new(key.as_ref(), ttl.into()).adding();
        self.fetch_awaiting(what, make, |error| Err(error.into()))
            .await
    }
}

/// Writing.
impl Cache {
    fn entry<T: Serialize + ?Sized>(&self, key: &[u8], value: &T) -> Result<Bytes> {
        self.policy().seal(key, |out| codec::encode(value, out))
    }

    pub(crate) fn piece<T: Serialize>(&self, key: &[u8], value: &T, ttl: Ttl) -> Result<Bytes> {
        let encode = |out: &mut Vec<u8>| codec::encode(value, out);
        self.policy().seal_piece(key, ttl, encode)
    }

    /// Stores `value` under `key`, for as long as the cache's default says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialization`](crate::ErrorKind::Serialization) if it cannot be stored; under
    /// [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.set_for(key, value, Ttl::Default).await
    }

    /// Stores `value` under `key` for `ttl`.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub async fn set_for<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        let (at, key) = (self.here(), key.as_ref());
        let entry = self.entry(key, value)?;
        self.travel(&at, self.policy().set_many(&at, [(key, entry)], ttl.into()))
            .await
    }

    /// Stores many values for `ttl`, in one trip.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set); then nothing is stored.
    pub async fn set_many<K: AsRef<[u8]>, T: Serialize>(
        &self,
        values: impl IntoIterator<Item = (K, T)>,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        let at = self.here();
        let entries = values
            .into_iter()
            .map(|(key, value)| {
                let entry = self.entry(key.as_ref(), &value)?;
                Ok((key, entry))
            })
            .collect::<Result<Vec<_>>>()?;
        self.travel(&at, self.policy().set_many(&at, entries, ttl.into()))
            .await
    }

    /// Stores `value` under `key` if there is nothing; whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub async fn add<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<bool> {
        let (at, key) = (self.here(), key.as_ref());
        let entry = self.entry(key, value)?;
        self.travel(&at, self.policy().add(&at, key, entry, ttl.into()))
            .await
    }

    /// Adds `delta` to the integer under `key`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotANumber`](crate::ErrorKind::NotANumber) if the entry holds something else
    /// or the sum leaves 64 bits; under [`OnError::Raise`](crate::OnError::Raise), failures of the
    /// store.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<Option<i64>> {
        let at = self.here();
        self.travel(&at, self.policy().incr(&at, key.as_ref(), delta))
            .await
    }

    /// Gives the entry of `key` a new time to live, from now on; whether there was one.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool> {
        Ok(self.touch_many(&[key], ttl).await? > 0)
    }

    /// Gives many entries a new time to live, in one trip; how many there were.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn touch_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: impl Into<Ttl>,
    ) -> Result<usize> {
        let at = self.here();
        self.travel(&at, self.policy().touch_many(&at, keys, ttl.into()))
            .await
    }

    /// Removes the entry of `key`; whether there was one.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    /// Removes many entries in one trip; how many there were.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<usize> {
        let at = self.here();
        self.travel(&at, self.policy().delete_many(&at, keys)).await
    }

    /// Removes every entry under this cache's prefix; how many there were.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot; under
    /// [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn clear(&self) -> Result<u64> {
        let at = self.here();
        self.travel(&at, self.policy().clear(&at)).await
    }
}

//! The cache, as threads that may block see it.
//!
//! Every method is the asynchronous one of the same name, driven on the calling thread where it has
//! to wait.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache as Asynchronous, Visiting};
use crate::codec::Serde;
use crate::context::task;
use crate::drive::Fetching;
use crate::error::{Error, Result};
use crate::learn::{Page, PageReport};
use crate::policy::Ttl;
use crate::scope::Reading;
use crate::stats::Stats;
use crate::watch::Watch;
use crate::write_batch::WriteBatch;

/// The same cache as [`onetrip::Cache`](crate::Cache), method for method, for threads.
///
/// Within a task of a Tokio runtime, a call that has to wait for the store fails with
/// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration); each method returns otherwise
/// the errors of its asynchronous twin.
///
/// ```
/// let cache = onetrip::Cache::open("memory://")?.blocking();
/// cache.set("greeting", "hello")?;
///
/// let (greeting, seen) = cache.watch(|| cache.preload(["greeting"], || cache.get("greeting")));
///
/// let greeting: Option<String> = greeting?;
/// assert_eq!(greeting.as_deref(), Some("hello"));
/// assert_eq!(seen.trips(), 1);
/// # Ok::<(), onetrip::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cache(Asynchronous);

macro_rules! driven {
    ($($(#[$doc:meta])* fn $name:ident $([$($generics:tt)+])? ($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// Those of the [type](Self) and of the asynchronous method of this name.
            pub fn $name $(<$($generics)+>)? (&self, $($argument: $type),*) -> Result<$output> {
                self.0.run(self.0.$name($($argument),*))
            }
        )+
    };
}

impl Cache {
    pub(crate) fn new(cache: Asynchronous) -> Self {
        Self(cache)
    }

    /// The same cache for tasks.
    #[must_use]
    pub fn asynchronous(&self) -> &Asynchronous {
        &self.0
    }

    /// Returns a cache of other keys over the same connections. See
    /// [`onetrip::Cache::with_prefix`](crate::Cache::with_prefix).
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        Self(self.0.with_prefix(prefix))
    }

    /// Returns the counters of this cache, over all its clones.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Sets all counters to zero.
    pub fn reset_stats(&self) {
        self.0.reset_stats();
    }

    /// Returns what was learned of each route, those that are visited most first.
    #[must_use]
    pub fn pages(&self) -> Vec<PageReport> {
        self.0.pages()
    }

    /// Calls `page` in a scope that holds the entries of `keys`, read in one trip. Returns the output
    /// of `page`.
    ///
    /// # Errors
    ///
    /// Those of [`onetrip::Cache::preload`](crate::Cache::preload).
    pub fn preload<K: AsRef<[u8]>, T, E: From<Error>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        page: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let keys: Vec<K> = keys.into_iter().collect();
        let (within, opened) = self.0.enter();
        let preload = self.0.policy().preload(&within, &keys);
        self.0.travel_blocking(&within, preload)?;
        let output = task::within_blocking(self.0.0.id, within.clone(), page);
        self.0.leave_blocking(&within, opened);
        output
    }

    /// Calls `page` in a scope that holds nothing yet. Returns the output of `page`.
    pub fn scope<T>(&self, page: impl FnOnce() -> T) -> T {
        let (within, opened) = self.0.enter();
        let output = task::within_blocking(self.0.0.id, within.clone(), page);
        self.0.leave_blocking(&within, opened);
        output
    }

    /// Calls `page` in a scope whose plain reads, too, are answered by what it holds, for `max_age`.
    /// Returns the output of `page`.
    pub fn scope_holding<T>(&self, max_age: Duration, page: impl FnOnce() -> T) -> T {
        self.scope(|| {
            let at = self.0.here().with_hold(max_age);
            task::within_blocking(self.0.0.id, at, page)
        })
    }

    /// Calls `work` in a scope whose first read brings what visits to `page` are likely to read.
    /// Learns from this visit, unless `work` panics. Returns the output of `work`.
    ///
    /// ```
    /// use onetrip::{Cache, Page};
    ///
    /// let cache = Cache::open("memory://")?.blocking();
    /// let note = cache.page(Page::new("note").arg("id", 5), || cache.get::<String>("note:5"))?;
    /// assert_eq!(note, None);
    /// assert_eq!(cache.pages()[0].visits, 1);
    /// # Ok::<(), onetrip::Error>(())
    /// ```
    pub fn page<T>(&self, page: Page, work: impl FnOnce() -> T) -> T {
        self.scope(|| {
            let at = self.0.here();
            let visit = Visiting::begin(&self.0, &at, page);
            let output = work();
            visit.end();
            output
        })
    }

    /// Calls `work`, whose plain `set`s leave in one trip. Returns the output of `work`.
    ///
    /// # Errors
    ///
    /// Those of [`onetrip::Cache::batch`](crate::Cache::batch).
    pub fn batch<T, E: From<Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (cache, batch) = (&self.0, Arc::<WriteBatch>::default());
        let at = cache.here().with_batch(Arc::clone(&batch));
        let output = task::within_blocking(cache.0.id, at.clone(), work);
        batch.close();
        let flushed = cache.travel_blocking(&at, cache.policy().flush(&at));
        cache.flushed(output, flushed)
    }

    /// Ends the snapshot of the scope that this is called in.
    pub fn fresh(&self) {
        self.0.fresh();
    }

    /// Calls `work` and tells which trips it made, on this thread.
    pub fn watch<T>(&self, work: impl FnOnce() -> T) -> (T, Arc<Watch>) {
        let watch = Arc::new(Watch::default());
        let at = self.0.here().with_watch(Arc::clone(&watch));
        (task::within_blocking(self.0.0.id, at, work), watch)
    }

    /// The value of `key`; `None` if there is none, or none that can be read as a `T`.
    ///
    /// # Errors
    ///
    /// Those of the [type](Self) and of the asynchronous method of this name.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        // The most frequent of all calls is not to pay for a future.
        if let Some(value) = self.0.held(key) {
            return Ok(value);
        }
        let (at, serde) = (self.0.here(), Serde::new());
        let reading = Reading::Plain(at.hold());
        let step = self.0.policy().get_from_store(&at, key, reading, &serde);
        self.0.travel_blocking(&at, step)
    }

    /// Returns the value of `key`. On a miss, computes it by `make` and stores it for `ttl`.
    ///
    /// # Errors
    ///
    /// Those of the [type](Self) and of
    /// [`onetrip::Cache::get_or_insert_with`](crate::Cache::get_or_insert_with).
    pub fn get_or_insert_with<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        make: impl FnOnce() -> T,
    ) -> Result<T> {
        self.try_get_or_insert_with(key, ttl, || Ok(make()))
    }

    /// Returns the value of `key`. On a miss, computes it by `make`, which may fail, and stores it
    /// for `ttl`. Nothing is stored of an error.
    ///
    /// # Errors
    ///
    /// Those of `make`, of the [type](Self) and of
    /// [`onetrip::Cache::try_get_or_insert_with`](crate::Cache::try_get_or_insert_with).
    pub fn try_get_or_insert_with<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let what = Fetching::new(key.as_ref(), ttl.into()).adding();
        self.0.fetch_blocking(what, make, |error| Err(error.into()))
    }

    driven! {
        /// What the workers of a site know of each route, as they told it each other.
        fn shared_pages() -> Vec<PageReport>;

        /// The values of many keys, in their order, in one trip.
        fn get_many [T: DeserializeOwned, K: AsRef<[u8]>] (keys: &[K]) -> Vec<Option<T>>;

        /// Whether there is an entry for `key`.
        fn contains(key: impl AsRef<[u8]>) -> bool;

        /// Adds `delta` to the integer under `key`; `None` if there is none.
        fn incr(key: impl AsRef<[u8]>, delta: i64) -> Option<i64>;

        /// Gives the entry of `key` a new time to live, from now on; whether there was one.
        fn touch(key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> bool;

        /// Gives many entries a new time to live, in one trip; how many there were.
        fn touch_many [K: AsRef<[u8]>] (keys: &[K], ttl: impl Into<Ttl>) -> usize;

        /// Removes the entry of `key`; whether there was one.
        fn delete(key: impl AsRef<[u8]>) -> bool;

        /// Removes many entries in one trip; how many there were.
        fn delete_many [K: AsRef<[u8]>] (keys: &[K]) -> usize;

        /// Stores `value` under `key`, for as long as the cache's default says.
        fn set [T: Serialize + ?Sized] (key: impl AsRef<[u8]>, value: &T) -> ();

        /// Stores `value` under `key` for `ttl`.
        fn set_for [T: Serialize + ?Sized] (key: impl AsRef<[u8]>, value: &T, ttl: impl Into<Ttl>) -> ();

        /// Stores many values for `ttl`, in one trip.
        fn set_many [K: AsRef<[u8]>, T: Serialize] (values: impl IntoIterator<Item = (K, T)>, ttl: impl Into<Ttl>) -> ();

        /// Stores `value` under `key` if there is nothing; whether it did.
        fn add [T: Serialize + ?Sized] (key: impl AsRef<[u8]>, value: &T, ttl: impl Into<Ttl>) -> bool;

        /// Removes every entry under this cache's prefix; how many there were.
        fn clear() -> u64;
    }
}

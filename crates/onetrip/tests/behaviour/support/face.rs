//! One interface to both faces of the cache.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use onetrip::__private::{fetch, fetch_blocking};
use onetrip::trip::{Replies, Trip};
use onetrip::{Cache, Result, Stats, Ttl, Watch, blocking};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A cache that is awaited in a task, or called on a thread.
///
/// Every method of a [`Face::Blocking`] is ready at its first poll, so a test drives it without a
/// runtime.
#[derive(Clone, Debug)]
pub(crate) enum Face {
    Awaited(Cache),
    Blocking(blocking::Cache),
}

macro_rules! both {
    ($(fn $name:ident $([$($generics:tt)+])? ($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        $(
            pub(crate) async fn $name $(<$($generics)+>)? (&self, $($argument: $type),*) -> Result<$output> {
                match self {
                    Self::Awaited(cache) => cache.$name($($argument),*).await,
                    Self::Blocking(cache) => cache.$name($($argument),*),
                }
            }
        )+
    };
}

impl Face {
    both! {
        fn get[T: DeserializeOwned](key: impl AsRef<[u8]>) -> Option<T>;
        fn get_many[T: DeserializeOwned, K: AsRef<[u8]>](keys: &[K]) -> Vec<Option<T>>;
        fn contains(key: impl AsRef<[u8]>) -> bool;
        fn set[T: Serialize + ?Sized](key: impl AsRef<[u8]>, value: &T) -> ();
        fn set_for[T: Serialize + ?Sized](key: impl AsRef<[u8]>, value: &T, timeout: impl Into<Ttl>) -> ();
        fn set_many[K: AsRef<[u8]>, T: Serialize](values: impl IntoIterator<Item = (K, T)>, timeout: impl Into<Ttl>) -> ();
        fn add[T: Serialize + ?Sized](key: impl AsRef<[u8]>, value: &T, timeout: impl Into<Ttl>) -> bool;
        fn incr(key: impl AsRef<[u8]>, delta: i64) -> Option<i64>;
        fn touch(key: impl AsRef<[u8]>, timeout: impl Into<Ttl>) -> bool;
        fn touch_many[K: AsRef<[u8]>](keys: &[K], timeout: impl Into<Ttl>) -> usize;
        fn delete(key: impl AsRef<[u8]>) -> bool;
        fn delete_many[K: AsRef<[u8]>](keys: &[K]) -> usize;
        fn clear() -> u64;
    }

    pub(crate) async fn get_or_insert_with<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
        timeout: impl Into<Ttl>,
        make: impl FnOnce() -> T,
    ) -> Result<T> {
        match self {
            Self::Awaited(cache) => {
                let make = || async { make() };
                cache.get_or_insert_with(key, timeout, make).await
            }
            Self::Blocking(cache) => cache.get_or_insert_with(key, timeout, make),
        }
    }

    /// Calls what `#[onetrip::cached]` generates. Unlike `get_or_insert_with`, it overwrites the
    /// stored value, and in a scope it posts.
    pub(crate) async fn cached<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        timeout: impl Into<Ttl>,
        make: impl FnOnce() -> T,
    ) -> Result<T> {
        self.fetch(key, timeout.into(), false, make).await
    }

    /// Calls the `…_refresh` of a cached function.
    pub(crate) async fn refresh<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        timeout: impl Into<Ttl>,
        make: impl FnOnce() -> T,
    ) -> Result<T> {
        self.fetch(key, timeout.into(), true, make).await
    }

    async fn fetch<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        timeout: Ttl,
        refresh: bool,
        make: impl FnOnce() -> T,
    ) -> Result<T> {
        match self {
            Self::Awaited(cache) => {
                let make = || async { Ok(make()) };
                fetch(cache, key, timeout, refresh, make, Err).await
            }
            Self::Blocking(cache) => {
                let (cache, make) = (cache.asynchronous(), || Ok(make()));
                fetch_blocking(cache, key, timeout, refresh, make, Err)
            }
        }
    }

    /// Sends a trip without the cache's policy, as another process would.
    pub(crate) async fn send(&self, trip: &Trip) -> Result<Replies> {
        let at = onetrip::internals::Context::default();
        match self {
            Self::Awaited(cache) => cache.send(&at, trip).await,
            Self::Blocking(cache) => cache.asynchronous().send_blocking(&at, trip),
        }
    }

    /// Runs `page` in a scope that preloads `keys`. Merges errors of the scope and of the page.
    pub(crate) async fn preload<K: AsRef<[u8]>, T>(
        &self,
        keys: impl IntoIterator<Item = K>,
        page: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self {
            Self::Awaited(cache) => cache.preload(keys, page).await,
            Self::Blocking(cache) => cache.preload(keys, || drive(page)),
        }
    }

    /// Runs `page` in a new scope.
    pub(crate) async fn scope<T>(&self, page: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Awaited(cache) => cache.scope(page).await,
            Self::Blocking(cache) => cache.scope(|| drive(page)),
        }
    }

    /// Runs `page` in a scope that holds plain answers.
    pub(crate) async fn scope_holding<T>(
        &self,
        max_age: Duration,
        page: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self {
            Self::Awaited(cache) => cache.scope_holding(max_age, page).await,
            Self::Blocking(cache) => cache.scope_holding(max_age, || drive(page)),
        }
    }

    /// Runs `work` and batches its plain sets.
    pub(crate) async fn batch<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Awaited(cache) => cache.batch(work).await,
            Self::Blocking(cache) => cache.batch(|| drive(work)),
        }
    }

    pub(crate) fn fresh(&self) {
        self.cache().fresh();
    }

    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> (T, Arc<Watch>) {
        match self {
            Self::Awaited(cache) => cache.watch(work).await,
            Self::Blocking(cache) => cache.watch(|| drive(work)),
        }
    }

    /// Returns how many trips `work` makes.
    pub(crate) async fn trips(&self, work: impl Future<Output = Result<()>>) -> Result<usize> {
        let (done, seen) = self.watch(work).await;
        done.map(|()| seen.trips())
    }

    /// Returns a driver for this face's futures on another thread.
    pub(crate) fn driver(&self) -> Driver {
        match self {
            Self::Awaited(_) => Driver::task(),
            Self::Blocking(_) => Driver::Thread,
        }
    }

    pub(crate) fn cache(&self) -> &Cache {
        match self {
            Self::Awaited(cache) => cache,
            Self::Blocking(cache) => cache.asynchronous(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.cache().stats()
    }
}

/// Runs futures on a thread, as a face needs it.
#[derive(Debug)]
pub(crate) enum Driver {
    Task(tokio::runtime::Runtime),
    Thread,
}

impl Driver {
    pub(crate) fn task() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self::Task(runtime.enable_all().build().expect("a runtime"))
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Task(runtime) => runtime.block_on(work),
            Self::Thread => drive(work),
        }
    }
}

/// Returns the output of a future that never waits.
fn drive<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the blocking face left something to wait for"),
    }
}

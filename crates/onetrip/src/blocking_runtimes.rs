//! Current-thread Tokio runtimes that blocking callers borrow, each for one trip.
//!
//! A connection belongs to the runtime that made it. The caller polls the trip on its own thread:
//! handing it to another thread costs several times as much as a trip to a near server.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread::LocalKey;

use arc_swap::ArcSwapOption;
#[cfg(any(feature = "memcached", feature = "redis"))]
use futures_util::future::join_all;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};
use crate::process::{self, PerProcess};

/// The idle runtimes of a cache: as many as it ever used at once. They are used last in, first out,
/// so that few stay warm.
#[derive(Debug)]
pub(crate) struct BlockingRuntimes(Arc<Idle>);

type Idle = PerProcess<Mutex<Vec<Runtime>>>;

/// The idle runtimes of every open cache. Has no lock: a forked child could find a lock held by a
/// thread that does not exist there.
static ALL: ArcSwapOption<Vec<Weak<Idle>>> = ArcSwapOption::const_empty();

thread_local! {
    /// Whether this thread polls a future that must not use a runtime yet.
    static POLLING_ONCE: Cell<bool> = const { Cell::new(false) };

    /// Whether this thread may block although it belongs to a runtime.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };

    /// How this thread polls the current future.
    static POLL_MODE: Cell<PollMode> = const { Cell::new(PollMode::Shared) };
}

/// How a future is polled, and so whether it may block its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollMode {
    /// In a runtime that runs other tasks too: it must not block.
    Shared,
    /// Alone in a blocking runtime: it may block the thread until it is done.
    Exclusive,
    /// In a blocking runtime, beside other futures of the same trip: it must not block them.
    #[cfg(any(feature = "memcached", feature = "redis"))]
    Concurrent,
}

/// Returns how the current future is polled.
#[cfg(feature = "_remote")]
pub(crate) fn poll_mode() -> PollMode {
    POLL_MODE.get()
}

/// Polls `work`, whose parts run concurrently: none of them may block the thread.
#[cfg(any(feature = "memcached", feature = "redis"))]
pub(crate) async fn concurrently<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let mode = match POLL_MODE.get() {
            PollMode::Exclusive => PollMode::Concurrent,
            mode => mode,
        };
        let _reset = Reset(&POLL_MODE, POLL_MODE.replace(mode));
        work.as_mut().poll(context)
    })
    .await
}

/// Runs all of `work` concurrently. A single future may block the thread.
#[cfg(any(feature = "memcached", feature = "redis"))]
pub(crate) async fn together<F: Future>(mut work: Vec<F>) -> Vec<F::Output> {
    match (work.pop(), work.is_empty()) {
        (None, _) => Vec::new(),
        (Some(only), true) => vec![only.await],
        (Some(last), false) => {
            work.push(last);
            concurrently(join_all(work)).await
        }
    }
}

/// Calls `body`, which may block, on a thread of a runtime's blocking pool.
pub(crate) fn may_block<T>(body: impl FnOnce() -> T) -> T {
    let _reset = Reset(&MAY_BLOCK, MAY_BLOCK.replace(true));
    body()
}

/// Returns whether this thread may block although it belongs to a runtime.
pub(crate) fn is_blockable() -> bool {
    MAY_BLOCK.get()
}

/// Returns whether this thread may block: it polls no task of a Tokio runtime.
pub(crate) fn may_wait() -> bool {
    // `Handle::try_current` does not tell Tokio's blocking threads from its tasks.
    Handle::try_current().is_err() || MAY_BLOCK.get()
}

impl BlockingRuntimes {
    /// Runs `work` on this thread. Polls it once without a runtime, which is enough for answers
    /// from a scope or a local store. Then runs it in a blocking runtime.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and [`ErrorKind::Configuration`] if it has to wait within a
    /// task of a Tokio runtime, which must not block.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        match poll_once(work.as_mut()) {
            Poll::Ready(done) => done,
            Poll::Pending => self.wait(work),
        }
    }

    /// Runs `work`, which has to wait, in a blocking runtime.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`run`](Self::run).
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if !may_wait() {
            return Err(Error::configuration(
                "a blocking call within an asynchronous task would block its runtime; await the cache's asynchronous methods there, or make the call in onetrip::spawn_blocking",
            ));
        }
        process::with_cached_pid(|| self.borrow(work))
    }

    /// Runs `work` in an idle runtime, or in a new one.
    fn borrow<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = match self.idle(Vec::pop) {
            Some(runtime) => runtime,
            None => Builder::new_current_thread().enable_all().build().map_err(|error| {
                Error::with_source(
                    ErrorKind::Unavailable,
                    format!("cannot start a runtime for a connection: {error}; is the limit of open files reached?"),
                    error,
                )
            })?,
        };
        let mut work = pin!(work);
        // Tasks that the runtime runs besides, such as opening a connection, are not alone in it.
        let done = runtime.block_on(std::future::poll_fn(|context| {
            let _reset = Reset(&POLL_MODE, POLL_MODE.replace(PollMode::Exclusive));
            work.as_mut().poll(context)
        }));
        self.idle(|idle| idle.push(runtime));
        done
    }

    /// Drops the idle runtimes and their connections.
    pub(crate) fn close(&self) {
        close(&self.0);
    }

    fn idle<T>(&self, change: impl FnOnce(&mut Vec<Runtime>) -> T) -> T {
        with(&self.0, change)
    }
}

impl Default for BlockingRuntimes {
    fn default() -> Self {
        let idle = Arc::<Idle>::default();
        ALL.rcu(|all| {
            let others = all.iter().flat_map(|all| all.iter());
            let open = others.filter(|other| other.strong_count() > 0).cloned();
            let all: Vec<_> = open.chain([Arc::downgrade(&idle)]).collect();
            Some(Arc::new(all))
        });
        Self(idle)
    }
}

/// Closes the idle runtimes of all caches.
pub(crate) fn close_all() {
    for idle in ALL.load().iter().flat_map(|all| all.iter()) {
        if let Some(idle) = idle.upgrade() {
            close(&idle);
        }
    }
}

fn close(idle: &Idle) {
    for runtime in with(idle, std::mem::take) {
        runtime.shutdown_background();
    }
}

fn with<T>(idle: &Idle, change: impl FnOnce(&mut Vec<Runtime>) -> T) -> T {
    idle.with(|idle| change(&mut idle.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The last clone of a cache may be dropped within a task, where dropping a runtime panics.
impl Drop for BlockingRuntimes {
    fn drop(&mut self) {
        self.close();
    }
}

/// Polls `work` once, without letting it use a runtime.
pub(crate) fn poll_once<F: Future + ?Sized>(work: Pin<&mut F>) -> Poll<F::Output> {
    let _reset = Reset(&POLLING_ONCE, POLLING_ONCE.replace(true));
    work.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Restores a flag of this thread when dropped.
struct Reset<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);

impl<T: Copy> Drop for Reset<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Waits for a runtime whose sockets and timers can be used. Must be awaited before opening any.
pub(crate) async fn runtime() {
    std::future::poll_fn(|_| match Handle::try_current() {
        Ok(_) if !POLLING_ONCE.get() => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
}

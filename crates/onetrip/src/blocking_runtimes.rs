//! Runtimes that blocking callers borrow, each for one trip.
//!
//! A lane is a current-thread Tokio runtime, and with it the connection that was made there. The
//! caller polls the trip on its own thread: handing it to another one costs several times what a
//! trip to a near server takes.

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

/// The idle lanes of a cache. There are as many as trips were ever under way at once; they are
/// used last in, first out, so that few stay warm.
#[derive(Debug)]
pub(crate) struct BlockingRuntimes(Arc<Idle>);

type Idle = PerProcess<Mutex<Vec<Runtime>>>;

/// The idle lanes of each cache that is open. Without a lock, which a forked child could find
/// taken by a thread that it does not have.
static ALL: ArcSwapOption<Vec<Weak<Idle>>> = ArcSwapOption::const_empty();

thread_local! {
    /// Whether this thread polls something that must not wait yet.
    static LOOKING: Cell<bool> = const { Cell::new(false) };

    /// Whether this thread may wait although it belongs to a runtime.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };

    /// Where what this thread polls is.
    static SEAT: Cell<Seat> = const { Cell::new(Seat::Elsewhere) };
}

/// Where a future is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// In a runtime that others use too.
    Elsewhere,
    /// On a lane, with nobody beside it: it may hold up the thread until it is done.
    Alone,
    /// On a lane, where others of the same trip must go on while it waits.
    #[cfg(any(feature = "memcached", feature = "redis"))]
    Beside,
}

/// Where this is polled.
#[cfg(feature = "_remote")]
pub(crate) fn seat() -> Seat {
    SEAT.get()
}

/// Polls `work`, whose parts go on side by side: none of them holds up the thread.
#[cfg(any(feature = "memcached", feature = "redis"))]
pub(crate) async fn side_by_side<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let seat = match SEAT.get() {
            Seat::Alone => Seat::Beside,
            seat => seat,
        };
        let _reset = Reset(&SEAT, SEAT.replace(seat));
        work.as_mut().poll(context)
    })
    .await
}

/// Polls them all side by side until each is done. One alone may hold up the thread.
#[cfg(any(feature = "memcached", feature = "redis"))]
pub(crate) async fn together<F: Future>(mut work: Vec<F>) -> Vec<F::Output> {
    match (work.pop(), work.is_empty()) {
        (None, _) => Vec::new(),
        (Some(only), true) => vec![only.await],
        (Some(last), false) => {
            work.push(last);
            side_by_side(join_all(work)).await
        }
    }
}

/// Calls `body` on a thread that a runtime keeps for what blocks.
pub(crate) fn may_block<T>(body: impl FnOnce() -> T) -> T {
    let _reset = Reset(&MAY_BLOCK, MAY_BLOCK.replace(true));
    body()
}

/// Whether this thread may wait although it belongs to a runtime.
pub(crate) fn is_blockable() -> bool {
    MAY_BLOCK.get()
}

/// Returns whether this thread may wait: it polls no task of a Tokio runtime.
pub(crate) fn may_wait() -> bool {
    // Tokio's threads for what blocks look like its tasks.
    Handle::try_current().is_err() || MAY_BLOCK.get()
}

impl BlockingRuntimes {
    /// Polls `work` on this thread until it is done: once as it is, which is enough for what a
    /// scope or a local store answers, and then on a lane.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`ErrorKind::Configuration`] if it has to wait within a task of a Tokio
    /// runtime, which must not be blocked.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        match look(work.as_mut()) {
            Poll::Ready(done) => done,
            Poll::Pending => self.wait(work),
        }
    }

    /// Polls `work`, which has to wait, on a lane.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if !may_wait() {
            return Err(Error::configuration(
                "a blocking call within an asynchronous task would hold up its runtime; await the cache's asynchronous methods there, or make the call in onetrip::spawn_blocking",
            ));
        }
        process::steady(|| self.borrow(work))
    }

    /// Polls `work` on an idle lane, or a new one.
    fn borrow<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let lane = match self.idle(Vec::pop) {
            Some(lane) => lane,
            None => Builder::new_current_thread().enable_all().build().map_err(|error| {
                Error::with_source(
                    ErrorKind::Unavailable,
                    format!("no runtime for a connection: {error}; is the limit of open files reached?"),
                    error,
                )
            })?,
        };
        let mut work = pin!(work);
        // What a lane runs besides, such as the making of a connection, is not alone on it.
        let done = lane.block_on(std::future::poll_fn(|context| {
            let _reset = Reset(&SEAT, SEAT.replace(Seat::Alone));
            work.as_mut().poll(context)
        }));
        self.idle(|idle| idle.push(lane));
        done
    }

    /// Drops the idle lanes, and their connections with them.
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

/// Closes the idle lanes of all caches.
pub(crate) fn close_all() {
    for idle in ALL.load().iter().flat_map(|all| all.iter()) {
        if let Some(idle) = idle.upgrade() {
            close(&idle);
        }
    }
}

fn close(idle: &Idle) {
    for lane in with(idle, std::mem::take) {
        lane.shutdown_background();
    }
}

fn with<T>(idle: &Idle, change: impl FnOnce(&mut Vec<Runtime>) -> T) -> T {
    idle.with(|idle| change(&mut idle.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The last of a cache's clones may be dropped within a task, where a runtime must not be.
impl Drop for BlockingRuntimes {
    fn drop(&mut self) {
        self.close();
    }
}

/// Polls `work` once, without a runtime to wait in.
pub(crate) fn look<F: Future + ?Sized>(work: Pin<&mut F>) -> Poll<F::Output> {
    let _reset = Reset(&LOOKING, LOOKING.replace(true));
    work.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Sets a flag of this thread back to what it was, however the work ends.
struct Reset<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);

impl<T: Copy> Drop for Reset<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Waits for a runtime whose sockets and timers can be used. Whatever opens one comes after this.
pub(crate) async fn runtime() {
    std::future::poll_fn(|_| match Handle::try_current() {
        Ok(_) if !LOOKING.get() => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
}

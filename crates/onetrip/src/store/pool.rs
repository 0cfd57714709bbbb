//! The connection pool for one server in one runtime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The most connections to one server from one runtime. Callers wait while all are in use.
const MOST: usize = 32;

/// A pool of idle connections: at most as many as were ever in use at once.
///
/// A connection is taken out for an exchange and put back after success. If the exchange ends early
/// (by an error, a timeout or a dropped future), its connection is dropped.
#[derive(Debug)]
pub(super) struct Pool<C> {
    /// Used last in, first out, so that few stay warm.
    idle: Mutex<Vec<C>>,
    turns: Arc<Semaphore>,
}

/// Permission to use a connection or to open one.
pub(super) type Turn = OwnedSemaphorePermit;

impl<C> Pool<C> {
    pub(super) fn new() -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            turns: Arc::new(Semaphore::new(MOST)),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<C>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, at most for `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> Option<Turn> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        tokio::time::timeout(patience, turn).await.ok()?.ok()
    }

    /// Takes an idle connection for which `is_in_step` returns `true`. Closes the others that it
    /// tries.
    pub(super) fn take(&self, is_in_step: impl Fn(&mut C) -> bool) -> Option<C> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if is_in_step(&mut connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Puts back a connection after a successful exchange.
    pub(super) fn put(&self, connection: C) {
        self.idle().push(connection);
    }
}

impl<C: Send + 'static> Pool<C> {
    /// Waits for `opening`. If the caller is dropped meanwhile, opening continues and keeps its
    /// turn, and the connection goes to the pool for later callers. Returns `None` if the runtime
    /// ends.
    pub(super) async fn open<E: Send + 'static>(
        self: &Arc<Self>,
        turn: Turn,
        opening: impl Future<Output = Result<C, E>> + Send + 'static,
    ) -> Option<(Result<C, E>, Turn)> {
        let (sender, receiver) = oneshot::channel();
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            let unclaimed = sender.send((opening.await, turn)).err();
            if let (Some((Ok(connection), _turn)), Some(pool)) = (unclaimed, pool.upgrade()) {
                pool.put(connection);
            }
        });
        receiver.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Waker};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn an_opened_connection_goes_to_its_caller() {
        run(async {
            let pool = Arc::new(Pool::new());
            let turn = pool.turn(PATIENCE).await.unwrap();
            let opened = pool.open(turn, async { Ok::<_, Infallible>(5) }).await;
            assert_eq!(opened.unwrap().0, Ok(5));
            assert_eq!(pool.take(|_| true), None);
        });
    }

    #[test]
    fn a_connection_whose_caller_is_gone_goes_to_the_pool() {
        run(async {
            let pool = Arc::new(Pool::new());
            let (open, opens) = oneshot::channel();
            let turn = pool.turn(PATIENCE).await.unwrap();
            let mut asked = Box::pin(pool.open(turn, opens));
            let mut context = Context::from_waker(Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
            drop(asked);
            // It keeps its turn until it is open.
            assert_eq!(pool.turns.available_permits(), MOST - 1);
            open.send(5).unwrap();
            while pool.turns.available_permits() < MOST {
                tokio::task::yield_now().await;
            }
            assert_eq!(pool.take(|_| true), Some(5));
        });
    }

    #[test]
    fn turns_are_limited() {
        run(async {
            let pool = Pool::<()>::new();
            let mut turns = Vec::new();
            for _ in 0..MOST {
                turns.push(pool.turn(Duration::ZERO).await.unwrap());
            }
            assert!(pool.turn(Duration::ZERO).await.is_none());
            turns.pop();
            assert!(pool.turn(Duration::ZERO).await.is_some());
        });
    }
}

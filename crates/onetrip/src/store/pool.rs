//! The connections to one server from one runtime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The most connections to one server from one runtime. Whoever comes when all are in use waits.
const MOST: usize = 32;

/// Connections that wait for use, no more than were ever in use at once.
///
/// One is taken out for an exchange and put back when that has ended well. Whatever cuts it short
/// (an error, a timeout, a future that is dropped) drops the connection with it.
#[derive(Debug)]
pub(super) struct Pool<C> {
    /// Used last in, first out, so that few stay warm.
    idle: Mutex<Vec<C>>,
    turns: Arc<Semaphore>,
}

/// The right to use a connection, or to open one.
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

    /// Waits for a turn, but no longer than `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> Option<Turn> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        tokio::time::timeout(patience, turn).await.ok()?.ok()
    }

    /// A connection that is in step still, as far as `is_in_step` can see. The others are closed.
    pub(super) fn take(&self, is_in_step: impl Fn(&mut C) -> bool) -> Option<C> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if is_in_step(&mut connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended well.
    pub(super) fn put(&self, connection: C) {
        self.idle().push(connection);
    }
}

impl<C: Send + 'static> Pool<C> {
    /// Waits for `opening`, which goes on if the caller is dropped meanwhile, and in its turn: what
    /// callers without patience began is there for those that follow. `None` if the runtime ends.
    pub(super) async fn open<E: Send + 'static>(
        self: &Arc<Self>,
        turn: Turn,
        opening: impl Future<Output = Result<C, E>> + Send + 'static,
    ) -> Option<(Result<C, E>, Turn)> {
        let (told, tells) = oneshot::channel();
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            let unheard = told.send((opening.await, turn)).err();
            if let (Some((Ok(connection), _turn)), Some(pool)) = (unheard, pool.upgrade()) {
                pool.put(connection);
            }
        });
        tells.await.ok()
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
    fn what_is_opened_goes_to_who_asked() {
        run(async {
            let pool = Arc::new(Pool::new());
            let turn = pool.turn(PATIENCE).await.unwrap();
            let opened = pool.open(turn, async { Ok::<_, Infallible>(5) }).await;
            assert_eq!(opened.unwrap().0, Ok(5));
            assert_eq!(pool.take(|_| true), None);
        });
    }

    #[test]
    fn what_nobody_waits_for_is_kept() {
        run(async {
            let pool = Arc::new(Pool::new());
            let (open, opens) = oneshot::channel();
            let turn = pool.turn(PATIENCE).await.unwrap();
            let mut asked = Box::pin(pool.open(turn, opens));
            let mut context = Context::from_waker(Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
            drop(asked);
            // It takes its turn until it is open.
            assert_eq!(pool.turns.available_permits(), MOST - 1);
            open.send(5).unwrap();
            while pool.turns.available_permits() < MOST {
                tokio::task::yield_now().await;
            }
            assert_eq!(pool.take(|_| true), Some(5));
        });
    }

    #[test]
    fn there_are_no_more_than_so_many_turns() {
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

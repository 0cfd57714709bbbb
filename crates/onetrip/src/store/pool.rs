//! The connections to one server from one runtime.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

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
    turns: Semaphore,
}

impl<C> Pool<C> {
    pub(super) fn new() -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            turns: Semaphore::new(MOST),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<C>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to use a connection, but no longer than `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let turn = tokio::time::timeout(patience, self.turns.acquire());
        turn.await.ok()?.ok()
    }

    /// A connection that is in step still, as far as `is_in_step` can see. The others are closed.
    pub(super) fn take(&self, is_in_step: impl Fn(&C) -> bool) -> Option<C> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if is_in_step(&connection) {
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

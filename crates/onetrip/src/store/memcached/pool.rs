//! The connections to one server from one runtime.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::Connection;

/// The most connections to one server from one runtime. Whoever comes when all are in use waits.
const MOST: usize = 32;

/// Connections that wait for use, no more than were ever in use at once.
///
/// One is taken out for an exchange and put back when that has ended well. Whatever cuts it short
/// (an error, a timeout, a future that is dropped) drops the connection with it.
#[derive(Debug)]
pub(super) struct Pool {
    /// Used last in, first out, so that few stay warm.
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            idle: Mutex::default(),
            turns: Semaphore::new(MOST),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
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

    /// A connection that seems to be good still.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if connection.is_in_step() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended well.
    pub(super) fn put(&self, connection: Connection) {
        self.idle().push(connection);
    }
}

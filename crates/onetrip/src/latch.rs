//! An event that happens once, for threads and tasks to wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A latch: once set, it stays set.
#[derive(Debug, Default)]
pub struct Latch {
    state: Mutex<State>,
    set: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_set: bool,
    wakers: Vec<Waker>,
}

impl Latch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.state().is_set
    }

    /// Sets it and wakes all waiters.
    pub fn set(&self) {
        let wakers = {
            let mut state = self.state();
            state.is_set = true;
            std::mem::take(&mut state.wakers)
        };
        self.set.notify_all();
        // Outside of the lock: a waker is foreign code.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Blocks this thread until it is set, at most for `patience`. Returns whether it is set.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let end = Instant::now().checked_add(patience);
        let mut state = self.state();
        while !state.is_set {
            let left = end.map_or(Duration::MAX, |end| {
                end.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return false;
            }
            let waited = self.set.wait_timeout(state, left.min(LONG));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Is ready once it is set. Wakes the task then.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_set {
            return Poll::Ready(());
        }
        if !state
            .wakers
            .iter()
            .any(|waker| waker.will_wake(context.waker()))
        {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The longest single wait: some systems refuse longer ones.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

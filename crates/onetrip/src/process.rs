//! State that must not be shared with a forked child.

use std::cell::Cell;
use std::sync::Arc;

use arc_swap::ArcSwap;

thread_local! {
    /// The id of this process while [`with_cached_pid`] runs, else 0.
    static PID: Cell<u32> = const { Cell::new(0) };
}

/// Calls `body`, which does not fork. Asks the system for the process id once, where a trip would
/// ask many times.
pub(crate) fn with_cached_pid<T>(body: impl FnOnce() -> T) -> T {
    struct Reset(u32);
    impl Drop for Reset {
        fn drop(&mut self) {
            PID.set(self.0);
        }
    }
    let _reset = Reset(PID.replace(id()));
    body()
}

fn id() -> u32 {
    match PID.get() {
        0 => std::process::id(),
        known => known,
    }
}

/// A value per process: a forked child starts with a new one.
///
/// The child neither drops nor locks its parent's value. The sockets in it are the parent's, its
/// epoll sets are shared with the parent, and its locks may be held by threads that the child does
/// not have.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    current: ArcSwap<Owned<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Owned<T> {
    pid: u32,
    value: T,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(make: fn() -> T) -> Self {
        Self {
            current: ArcSwap::from_pointee(Owned::new(make)),
            make,
        }
    }

    /// Calls `body` with the value of this process.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let current = self.current.load();
        if current.pid == id() {
            body(&current.value)
        } else {
            body(&self.renew().value)
        }
    }

    /// Makes the value of a process that has none yet.
    fn renew(&self) -> Arc<Owned<T>> {
        let current = self.current.load_full();
        if current.pid == id() {
            return current;
        }
        let own = Arc::new(Owned::new(self.make));
        let before = self.current.compare_and_swap(&current, Arc::clone(&own));
        if Arc::ptr_eq(&before, &current) {
            std::mem::forget(current);
            own
        } else {
            // Another thread of this process came first.
            Arc::clone(&before)
        }
    }
}

impl<T> Owned<T> {
    fn new(make: fn() -> T) -> Self {
        Self {
            pid: id(),
            value: make(),
        }
    }
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

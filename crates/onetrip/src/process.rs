//! What must not be shared with a forked child.

use std::cell::Cell;
use std::sync::Arc;

use arc_swap::ArcSwap;

thread_local! {
    /// Which process this is, as long as [`steady`] knows; else nought.
    static PID: Cell<u32> = const { Cell::new(0) };
}

/// Calls `body`, which does not fork: the system is asked once which process this is, where a trip
/// would ask it many times.
pub(crate) fn steady<T>(body: impl FnOnce() -> T) -> T {
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

/// A value of which every process has its own: a forked child begins with a new one.
///
/// The parent's is left as it was, neither dropped nor locked. Its sockets are the parent's, its
/// epoll sets are shared with the parent, and its locks may be held by threads that the child
/// does not have.
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

    /// Calls `look` with this process' value.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let current = self.current.load();
        if current.pid == id() {
            look(&current.value)
        } else {
            look(&self.renew().value)
        }
    }

    /// The value of a process that has none yet.
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

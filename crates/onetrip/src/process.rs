//! What must not be shared with a forked child.

use std::sync::Arc;

use arc_swap::ArcSwap;

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
        let mut current = self.current.load_full();
        if current.pid != std::process::id() {
            let own = Arc::new(Owned::new(self.make));
            let before = self.current.compare_and_swap(&current, Arc::clone(&own));
            if Arc::ptr_eq(&before, &current) {
                std::mem::forget(current);
                current = own;
            } else {
                // Another thread of this process came first.
                current = Arc::clone(&before);
            }
        }
        look(&current.value)
    }
}

impl<T> Owned<T> {
    fn new(make: fn() -> T) -> Self {
        Self {
            pid: std::process::id(),
            value: make(),
        }
    }
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

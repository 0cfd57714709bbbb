//! A value for each Tokio runtime, such as its connections.
//!
//! A socket belongs to the runtime that polls it and to the process that made it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

use crate::process::PerProcess;

/// One `T` for each runtime. It is dropped with the runtime or with this table.
#[derive(Debug)]
pub(super) struct ByRuntime<T> {
    slots: PerProcess<Mutex<Slots<T>>>,
}

type Slots<T> = HashMap<Id, Slot<T>>;

#[derive(Debug)]
struct Slot<T> {
    /// Owned by an idle task, since tasks end with their runtime.
    made: Weak<T>,
    owner: AbortHandle,
}

impl<T: Send + Sync + 'static> ByRuntime<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: PerProcess::default(),
        }
    }

    /// Returns the value of the current runtime, made by `make` if there is none.
    pub(super) fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.with(|slots| {
            let runtime = Handle::current();
            let slot = slots.get(&runtime.id());
            if let Some(found) = slot.and_then(|slot| slot.made.upgrade()) {
                return found;
            }
            slots.retain(|_, slot| slot.made.strong_count() > 0);
            let made = Arc::new(make());
            let owned = Arc::clone(&made);
            let owner = runtime.spawn(async move {
                let _owned = owned;
                std::future::pending::<()>().await;
            });
            let slot = Slot {
                made: Arc::downgrade(&made),
                owner: owner.abort_handle(),
            };
            slots.insert(runtime.id(), slot);
            made
        })
    }
}

impl<T> ByRuntime<T> {
    fn with<R>(&self, body: impl FnOnce(&mut Slots<T>) -> R) -> R {
        self.slots
            .with(|slots| body(&mut slots.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T> Drop for ByRuntime<T> {
    fn drop(&mut self) {
        self.with(|slots| slots.values().for_each(|slot| slot.owner.abort()));
    }
}

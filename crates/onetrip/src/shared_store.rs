//! A store and the runtimes that wait for it. Caches of different prefixes share it.

use std::sync::Arc;

use crate::blocking_runtimes::BlockingRuntimes;
use crate::dispatch::{Dispatcher, OnError};
use crate::drain;
use crate::store::Store;
use crate::trip::ScopeId;

/// A store with its connections.
#[derive(Debug)]
pub(crate) struct SharedStore {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) blocking_runtimes: BlockingRuntimes,
}

impl SharedStore {
    pub(crate) fn new(store: Arc<dyn Store>, on_error: OnError) -> Arc<Self> {
        let shared = Arc::new(Self {
            dispatcher: Dispatcher::new(store, on_error),
            blocking_runtimes: BlockingRuntimes::default(),
        });
        drain::register(&shared);
        shared
    }

    /// Reads the replies to what `scope` posted, or to all that is posted.
    pub(crate) fn drain(&self, scope: Option<ScopeId>) {
        let draining = async {
            self.dispatcher.drain(scope).await;
            Ok(())
        };
        // Within a task nobody waits. What is unread stays so.
        let _ = self.blocking_runtimes.run(draining);
    }
}

/// A socket that is closed with replies unread may take what was posted with it.
impl Drop for SharedStore {
    fn drop(&mut self) {
        drain::last(self);
    }
}

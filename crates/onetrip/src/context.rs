//! The context of a call: its scope, and whatever else is open around it.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::scope::Scope;
use crate::single_flight::Computing;
use crate::trip::Op;
use crate::watch::Watch;
use crate::write_batch::WriteBatch;

/// The scope, watches, batches and flights around a piece of code, for one cache.
///
/// A context is a value: entering a scope makes a new one, and leaving the scope restores the old
/// one. Rust keeps it in a task-local, Python in a `ContextVar`, so two requests never share one.
#[derive(Clone, Debug, Default)]
pub struct Context {
    scope: Option<Arc<Scope>>,
    watches: Vec<Arc<Watch>>,
    hold: Option<Duration>,
    batches: SmallVec<[Arc<WriteBatch>; 1]>,
    computing: Option<Arc<Computing>>,
}

impl Context {
    /// Returns the innermost scope, which may be closed already.
    #[must_use]
    pub fn scope(&self) -> Option<&Arc<Scope>> {
        self.scope.as_ref()
    }

    /// Returns the watches, outermost first.
    #[must_use]
    pub fn watches(&self) -> &[Arc<Watch>] {
        &self.watches
    }

    /// Returns how long the scope holds plain answers, if the program chose that.
    #[must_use]
    pub fn hold(&self) -> Option<Duration> {
        self.hold
    }

    /// Returns the innermost batch, which gathers plain writes.
    #[must_use]
    pub fn batch(&self) -> Option<&Arc<WriteBatch>> {
        self.batches.last()
    }

    /// Takes out the writes of all batches, in the order in which they were made.
    pub(crate) fn take_gathered(&self) -> Vec<Op> {
        self.batches.iter().flat_map(|batch| batch.take()).collect()
    }

    pub(crate) fn computing(&self) -> Option<&Arc<Computing>> {
        self.computing.as_ref()
    }

    /// Returns this context within `scope`.
    #[must_use]
    pub fn with_scope(&self, scope: Arc<Scope>) -> Self {
        Self {
            scope: Some(scope),
            ..self.clone()
        }
    }

    /// Returns this context with `watch` added.
    #[must_use]
    pub fn with_watch(&self, watch: Arc<Watch>) -> Self {
        let mut context = self.clone();
        context.watches.push(watch);
        context
    }

    /// Returns this context with a scope that holds plain answers for `hold`.
    #[must_use]
    pub fn with_hold(&self, hold: Duration) -> Self {
        Self {
            hold: Some(hold),
            ..self.clone()
        }
    }

    /// Returns this context with plain writes gathered by `batch`.
    #[must_use]
    pub fn with_batch(&self, batch: Arc<WriteBatch>) -> Self {
        let mut context = self.clone();
        context.batches.push(batch);
        context
    }

    /// Returns this context for code that computes missed values.
    #[must_use]
    pub fn with_computing(&self, computing: Arc<Computing>) -> Self {
        Self {
            computing: Some(computing),
            ..self.clone()
        }
    }
}

/// The contexts of the current task, one for each cache that has something open in it.
pub(crate) mod task {
    use std::sync::Arc;

    use super::Context;

    tokio::task_local! {
        static CONTEXTS: Contexts;
    }

    /// The contexts of one task, by the id of the cache.
    pub(crate) type Contexts = Arc<[(u64, Context)]>;

    /// Returns the contexts of this task, to be carried to another thread.
    pub(crate) fn all() -> Contexts {
        CONTEXTS.try_with(Arc::clone).unwrap_or_default()
    }

    /// Calls `body` with exactly these contexts.
    pub(crate) fn within_all<T>(contexts: Contexts, body: impl FnOnce() -> T) -> T {
        CONTEXTS.sync_scope(contexts, body)
    }

    /// Calls `body` with the context of cache `id` in this task.
    pub(crate) fn with<T>(id: u64, body: impl FnOnce(&Context) -> T) -> T {
        // Cloned and not borrowed: `body` may decode a value by the program's code, which may enter
        // a scope.
        let contexts = CONTEXTS.try_with(Arc::clone);
        let contexts = contexts.as_deref().unwrap_or_default();
        match contexts.iter().find(|(of, _)| *of == id) {
            Some((_, context)) => body(context),
            None => body(&Context::default()),
        }
    }

    fn changed(id: u64, context: Context) -> Contexts {
        let contexts = all();
        let others = contexts.iter().filter(|(of, _)| *of != id).cloned();
        others.chain([(id, context)]).collect()
    }

    /// Runs `future` with `context` as the context of cache `id`.
    pub(crate) async fn within<F: Future>(id: u64, context: Context, future: F) -> F::Output {
        CONTEXTS.scope(changed(id, context), future).await
    }

    /// Calls `body` with `context` as the context of cache `id`.
    pub(crate) fn within_blocking<T>(id: u64, context: Context, body: impl FnOnce() -> T) -> T {
        CONTEXTS.sync_scope(changed(id, context), body)
    }
}

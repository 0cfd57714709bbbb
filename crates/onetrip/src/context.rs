//! Where a call is made from: the scope that it is in and what else is open around it.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::scope::Scope;
use crate::single_flight::Computing;
use crate::trip::Op;
use crate::watch::Watch;
use crate::write_batch::WriteBatch;

/// What is open around a piece of code, for one cache.
///
/// A context is a value: entering a scope makes a new one, and leaving goes back to the old. Each
/// face keeps it where its language keeps such things: Rust in a task-local, Python in a
/// `ContextVar`. Two requests therefore never share one.
#[derive(Clone, Debug, Default)]
pub struct Context {
    scope: Option<Arc<Scope>>,
    watches: Vec<Arc<Watch>>,
    hold: Option<Duration>,
    batches: SmallVec<[Arc<WriteBatch>; 1]>,
    computing: Option<Arc<Computing>>,
}

impl Context {
    /// The innermost scope, which may have closed meanwhile.
    #[must_use]
    pub fn scope(&self) -> Option<&Arc<Scope>> {
        self.scope.as_ref()
    }

    /// The watches, outermost first.
    #[must_use]
    pub fn watches(&self) -> &[Arc<Watch>] {
        &self.watches
    }

    /// How long the scope holds plain answers, if the program said so.
    #[must_use]
    pub fn hold(&self) -> Option<Duration> {
        self.hold
    }

    /// What gathers plain writes: the innermost batch.
    #[must_use]
    pub fn batch(&self) -> Option<&Arc<WriteBatch>> {
        self.batches.last()
    }

    /// Takes what waits in all batches, in the order in which it was written.
    pub(crate) fn take_gathered(&self) -> Vec<Op> {
        self.batches.iter().flat_map(|batch| batch.take()).collect()
    }

    pub(crate) fn computing(&self) -> Option<&Arc<Computing>> {
        self.computing.as_ref()
    }

    /// Returns this context, within `scope`.
    #[must_use]
    pub fn with_scope(&self, scope: Arc<Scope>) -> Self {
        Self {
            scope: Some(scope),
            ..self.clone()
        }
    }

    /// Returns this context, seen by `watch` as well.
    #[must_use]
    pub fn with_watch(&self, watch: Arc<Watch>) -> Self {
        let mut context = self.clone();
        context.watches.push(watch);
        context
    }

    /// Returns this context, whose scope holds plain answers for `hold`.
    #[must_use]
    pub fn with_hold(&self, hold: Duration) -> Self {
        Self {
            hold: Some(hold),
            ..self.clone()
        }
    }

    /// Returns this context, whose plain writes `batch` gathers.
    #[must_use]
    pub fn with_batch(&self, batch: Arc<WriteBatch>) -> Self {
        let mut context = self.clone();
        context.batches.push(batch);
        context
    }

    /// Returns this context, for code that computes what was missed.
    #[must_use]
    pub fn with_computing(&self, computing: Arc<Computing>) -> Self {
        Self {
            computing: Some(computing),
            ..self.clone()
        }
    }
}

/// The contexts of the running task, one for each cache that has a scope or a watch open in it.
pub(crate) mod task {
    use std::sync::Arc;

    use super::Context;

    tokio::task_local! {
        static CONTEXTS: Contexts;
    }

    /// What one task knows of every cache.
    pub(crate) type Contexts = Arc<[(u64, Context)]>;

    /// The contexts of all caches in this task, to go on with elsewhere.
    pub(crate) fn all() -> Contexts {
        CONTEXTS.try_with(Arc::clone).unwrap_or_default()
    }

    /// Calls `body` with these contexts and no others.
    pub(crate) fn within_all<T>(contexts: Contexts, body: impl FnOnce() -> T) -> T {
        CONTEXTS.sync_scope(contexts, body)
    }

    /// Calls `look` with the context of cache `id` in this task.
    pub(crate) fn with<T>(id: u64, look: impl FnOnce(&Context) -> T) -> T {
        // Not borrowed meanwhile: `look` may decode a value, and what the program does then may
        // enter a scope.
        let contexts = CONTEXTS.try_with(Arc::clone);
        let contexts = contexts.as_deref().unwrap_or_default();
        match contexts.iter().find(|(of, _)| *of == id) {
            Some((_, context)) => look(context),
            None => look(&Context::default()),
        }
    }

    fn changed(id: u64, context: Context) -> Contexts {
        let contexts = all();
        let others = contexts.iter().filter(|(of, _)| *of != id).cloned();
        others.chain([(id, context)]).collect()
    }

    /// Runs `future` with `context` as that of cache `id`.
    pub(crate) async fn within<F: Future>(id: u64, context: Context, future: F) -> F::Output {
        CONTEXTS.scope(changed(id, context), future).await
    }

    /// Calls `body` with `context` as that of cache `id`.
    pub(crate) fn within_blocking<T>(id: u64, context: Context, body: impl FnOnce() -> T) -> T {
        CONTEXTS.sync_scope(changed(id, context), body)
    }
}

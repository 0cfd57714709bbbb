//! The scope around one request.

use std::sync::Arc;

use crate::cache::Cache;
use crate::context::{Context, task};
use crate::learn;
use crate::scope::{Scope, Work};

use super::naming::Named;

/// The scope of one request: opened by it, or found open around it.
///
/// If it is dropped before it is closed, the request was given up: the visit is not learned from.
#[derive(Debug)]
pub(super) struct Page {
    cache: Cache,
    at: Context,
    scope: Arc<Scope>,
    /// Whether this page opened the scope and must close it.
    opened: bool,
    /// Its name, and whether to learn from the visit.
    visit: Option<(Arc<learn::Page>, bool)>,
}

impl Page {
    /// Opens a page in the current task; `safe` if the request's method changes nothing.
    pub(super) fn open(cache: Cache, safe: bool) -> Self {
        let at = cache.here();
        let work = match safe {
            true => Work::SafeRequest,
            false => Work::Request,
        };
        let (scope, opened) = cache.policy().enter(&at, work);
        let at = at.with_scope(Arc::clone(&scope));
        Self {
            cache,
            at,
            scope,
            opened,
            visit: None,
        }
    }

    /// Sets the page's name, unless an outer layer did.
    pub(super) fn name(&mut self, named: Named) {
        if !self.scope.is_visited() {
            let policy = self.cache.policy();
            let page = policy.begin_visit(&self.scope, named.page);
            self.visit = Some((page, named.learns));
        }
    }

    /// Discards the visit: it failed, or was not completed.
    pub(super) fn discard(&mut self) {
        self.end_visit(false);
    }

    fn end_visit(&mut self, whole: bool) {
        if let Some((page, learns)) = self.visit.take() {
            let policy = self.cache.policy();
            policy.end_visit(&self.scope, &page, learns && whole);
        }
    }

    /// Calls `body` in the scope.
    pub(super) fn within_blocking<T>(&self, body: impl FnOnce() -> T) -> T {
        task::within_blocking(self.cache.0.id, self.at.clone(), body)
    }

    /// Runs `future` in the scope.
    pub(super) async fn within<F: Future>(&self, future: F) -> F::Output {
        task::within(self.cache.0.id, self.at.clone(), future).await
    }

    /// Notes that sending the response begins, which may take long.
    pub(super) fn begin_sending(&self) {
        self.scope.begin_sending();
    }

    /// Closes the scope.
    pub(super) async fn close(mut self) {
        self.end_visit(true);
        if self.opened {
            self.cache.close(&self.at, &self.scope).await;
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.discard();
        if self.opened {
            // A thread that the request started may still hold the scope; it must not read old
            // answers.
            self.scope.close();
        }
    }
}

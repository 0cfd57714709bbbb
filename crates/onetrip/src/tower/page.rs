//! The scope around one request.

use std::sync::Arc;

use crate::cache::Cache;
use crate::context::{Context, task};
use crate::learn;
use crate::scope::{Scope, Work};

use super::naming::Named;

/// A scope that one request opened, or found open around itself.
///
/// Dropped before it is closed, it is not learned from: the request was given up.
#[derive(Debug)]
pub(super) struct Page {
    cache: Cache,
    at: Context,
    scope: Arc<Scope>,
    /// Whether it is this page's to close.
    opened: bool,
    /// What it is named, and whether that is learned from.
    visit: Option<(Arc<learn::Page>, bool)>,
}

impl Page {
    /// Opens a page in the running task. `safe` says that its request changes nothing.
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

    /// Says which page it is, unless a layer around this one did.
    pub(super) fn name(&mut self, named: Named) {
        if !self.scope.is_visited() {
            let policy = self.cache.policy();
            let page = policy.begin_visit(&self.scope, named.page);
            self.visit = Some((page, named.learns));
        }
    }

    /// Learns nothing from it: it failed, or was not made to its end.
    pub(super) fn discard(&mut self) {
        self.end_visit(false);
    }

    fn end_visit(&mut self, whole: bool) {
        if let Some((page, learns)) = self.visit.take() {
            let policy = self.cache.policy();
            policy.end_visit(&self.scope, &page, learns && whole);
        }
    }

    /// Calls `body` within it.
    pub(super) fn within_blocking<T>(&self, body: impl FnOnce() -> T) -> T {
        task::within_blocking(self.cache.0.id, self.at.clone(), body)
    }

    /// Runs `future` within it.
    pub(super) async fn within<F: Future>(&self, future: F) -> F::Output {
        task::within(self.cache.0.id, self.at.clone(), future).await
    }

    /// Notes that the response begins to be sent, which may go on for long.
    pub(super) fn begin_sending(&self) {
        self.scope.begin_sending();
    }

    /// Ends the page.
    pub(super) async fn close(mut self) {
        self.end_visit(true);
        if self.opened
            && let Err(error) = self.cache.close(&self.at, &self.scope).await
        {
            // The response is made by now, so an error has no other way to be told.
            log::error!("a page of {} did not close: {error}", self.cache.label());
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.discard();
        if self.opened {
            // A thread that the request began may still hold it, and is not to find old answers.
            self.scope.close();
        }
    }
}

//! The scope around one request.

use std::sync::Arc;

use crate::cache::Cache;
use crate::context::{Context, task};
use crate::learn;
use crate::scope::Scope;

use super::naming::Named;

/// A scope that one request opened, or found open around itself.
///
/// Dropped before it is closed, it lets go what waits to be written: the request was given up.
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
    /// A page in the running task.
    pub(super) fn open(cache: Cache) -> Self {
        let at = cache.here();
        let (scope, opened) = cache.policy().enter(&at);
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

    /// Sends what waits to be written. The page goes on, and keeps what it knows.
    pub(super) async fn flush(&self) {
        if self.opened {
            let sent = self
                .cache
                .travel(&self.at, self.cache.policy().flush(&self.scope));
            self.tell(sent.await);
        }
    }

    /// Ends the page: what was written in it leaves.
    pub(super) async fn close(mut self) {
        self.end_visit(true);
        if self.opened {
            let sent = self
                .cache
                .travel(&self.at, self.cache.policy().close(&self.scope));
            self.tell(sent.await);
        }
    }

    /// The response is made by now, so an error has no other way to be told.
    fn tell(&self, sent: crate::Result<()>) {
        if let Err(error) = sent {
            log::error!(
                "what a page wrote to {} is lost: {error}",
                self.cache.label()
            );
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.discard();
        if self.opened {
            // Whoever still holds the scope, such as a thread that the request began, shall not
            // write into what never leaves.
            drop(self.scope.close());
        }
    }
}

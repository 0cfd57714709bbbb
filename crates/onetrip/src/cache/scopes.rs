//! Scopes, pages and watches around a future.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Cache, Inner};
use crate::context::{Context, task};
use crate::error::{Error, Result};
use crate::learn::{Page, PageReport};
use crate::policy::Policy;
use crate::scope::{Arrival, Companion, Scope, Work};
use crate::trip::Trip;
use crate::watch::Watch;
use crate::write_batch::WriteBatch;

/// A visit to the page of a scope. Ends when it is dropped; is learned from if it was made to its
/// end.
pub(crate) struct Visiting<'a>(Option<Visit<'a>>);

struct Visit<'a> {
    policy: &'a Policy,
    scope: &'a Scope,
    page: Arc<Page>,
}

impl<'a> Visiting<'a> {
    /// Begins a visit in the scope of `at`.
    pub(crate) fn begin(cache: &'a Cache, at: &'a Context, page: Page) -> Self {
        let policy = cache.policy();
        Self(at.scope().map(|scope| Visit {
            policy,
            scope,
            page: policy.begin_visit(scope, page),
        }))
    }

    /// Ends the visit and learns from it.
    pub(crate) fn end(mut self) {
        self.over(true);
    }

    fn over(&mut self, learn: bool) {
        if let Some(visit) = self.0.take() {
            visit.policy.end_visit(visit.scope, &visit.page, learn);
        }
    }
}

impl Drop for Visiting<'_> {
    fn drop(&mut self) {
        self.over(false);
    }
}

/// A scope of another cache, whose keys come along with a trip.
struct Linked {
    cache: Weak<Inner>,
    scope: Weak<Scope>,
}

impl Companion for Linked {
    fn bring(&self, trip: &mut Trip) -> Option<Arrival> {
        let (cache, scope) = (self.cache.upgrade()?, self.scope.upgrade()?);
        // Pending deletes of its store travel only with trips of its own.
        if cache.store.dispatcher.may_have_pending_deletes() {
            return None;
        }
        let ahead = cache.policy.accompany(&scope, trip)?;
        Some(Box::new(move |mut replies| {
            cache.policy.arrive(Some(&scope), Some(ahead), &mut replies);
        }))
    }
}

/// For [`internals`](crate::internals): scopes of several caches.
#[doc(hidden)]
impl Cache {
    /// Lets the first trip of a page in `scope` bring what it reads in `others`, too: open scopes of
    /// other caches. Those that have another URL are left alone.
    pub fn link(&self, scope: &Arc<Scope>, other: &Self, others: &Arc<Scope>) {
        let is_linkable = self.shares_store(other) && !self.is_same(other);
        if is_linkable && !self.is_local() {
            scope.accompany(other.linked(others));
            others.accompany(self.linked(scope));
        }
    }

    /// Returns whether both caches have one store, or stores of one URL.
    fn shares_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.store, &other.0.store)
            || self.0.builder.names_store_of(&other.0.builder)
    }

    fn linked(&self, scope: &Arc<Scope>) -> Arc<Linked> {
        Arc::new(Linked {
            cache: Arc::downgrade(&self.0),
            scope: Arc::downgrade(scope),
        })
    }
}

/// Scopes and watches.
impl Cache {
    /// Runs `page` in a scope that holds the entries of `keys`, read in one trip. Returns the output
    /// of `page`.
    ///
    /// Fetches and plain reads of these keys are answered by the scope for `scope_max_age`; those
    /// that are absent are absent for as long. What fetches compute in it is stored by posts, which
    /// nobody waits for until the scope closes.
    ///
    /// # Errors
    ///
    /// Those of `page`; under [`OnError::Raise`](crate::OnError::Raise), failures of the store in
    /// that trip. `page` then does not run.
    pub fn preload<K: AsRef<[u8]>, T, E: From<Error>, F: Future<Output = Result<T, E>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        page: F,
    ) -> impl Future<Output = Result<T, E>> {
        // Held in place, a page would be in this future four times over, and a page within
        // pages as often for each of them.
        let page = Box::pin(page);
        async move {
            let keys: Vec<K> = keys.into_iter().collect();
            let (within, opened) = self.enter();
            let preload = self.policy().preload(&within, &keys);
            self.travel(&within, preload).await?;
            let output = task::within(self.0.id, within.clone(), page).await;
            self.leave(&within, opened).await;
            output
        }
    }

    /// Runs `page` in a scope whose first read brings what visits to this page are likely to read,
    /// as they showed before; its own visit is learned from. Returns the output of `work`.
    ///
    /// Nothing is learned if the returned future is dropped before it is done. What `work` returns
    /// says nothing of the page: one that returns an error early is a visit that read little.
    ///
    /// ```
    /// use onetrip::{Cache, Page, Ttl};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let cache = Cache::open("memory://")?;
    /// for id in [1, 2, 3] {
    ///     let (markup, comments) = (format!("markup:{id}"), format!("comments:{id}"));
    ///     cache.set_many([(&markup, "<p>"), (&comments, "")], Ttl::Default).await?;
    ///     let visit = cache.page(Page::new("note").arg("id", id), async {
    ///         for key in [&markup, &comments] {
    ///             let make = async || String::new();
    ///             cache.get_or_insert_with(key, Ttl::Default, make).await?;
    ///         }
    ///         Ok::<_, onetrip::Error>(())
    ///     });
    ///     let (_, seen) = cache.watch(visit).await;
    ///     assert_eq!(seen.trips(), if id == 1 { 2 } else { 1 });
    /// }
    /// # Ok::<(), onetrip::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn page<F: Future>(&self, page: Page, work: F) -> impl Future<Output = F::Output> {
        let work = Box::pin(work);
        self.scope(async move {
            let at = self.here();
            let visit = Visiting::begin(self, &at, page);
            let output = work.await;
            visit.end();
            output
        })
    }

    /// What was learned of each route, those that are visited most first.
    #[must_use]
    pub fn pages(&self) -> Vec<PageReport> {
        self.policy().pages()
    }

    /// What the workers of a site know of each route that they visited of late, by name, as they
    /// told it each other through the store: visits and what came of them are those of late. Two
    /// trips.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn shared_pages(&self) -> Result<Vec<PageReport>> {
        let at = self.here();
        let routes = self.travel(&at, self.policy().shared_routes()).await?;
        self.travel(&at, self.policy().shared_pages(&routes)).await
    }

    /// Returns the context within a scope, and the scope if it was opened for that.
    pub(crate) fn enter(&self) -> (Context, Option<Arc<Scope>>) {
        let at = self.here();
        let (scope, opened) = self.policy().enter(&at, Work::Other);
        let within = at.with_scope(Arc::clone(&scope));
        (within, opened.then_some(scope))
    }

    /// Closes a scope that [`enter`](Self::enter) opened.
    pub(crate) async fn leave(&self, within: &Context, opened: Option<Arc<Scope>>) {
        if let Some(scope) = opened {
            self.close(within, &scope).await;
        }
    }

    /// Closes `scope`. Waits for what was posted in it, at most `trip_timeout`.
    pub(crate) async fn close(&self, at: &Context, scope: &Scope) {
        let closed = self.travel(at, self.policy().close(scope)).await;
        self.tell_of_close(closed);
        for post in scope.take_posts() {
            std::future::poll_fn(|context| post.poll(context)).await;
        }
    }

    /// Logs why a scope did not close. Its page is made by then, and its failed writes are counted.
    pub(crate) fn tell_of_close(&self, closed: Result<()>) {
        if let Err(error) = closed {
            log::error!("a scope of {} did not close: {error}", self.label());
        }
    }

    /// Runs `page` in a scope that holds nothing yet: what it fetches twice is asked for once, and
    /// what it computes is posted. Returns the output of `page`.
    pub fn scope<F: Future>(&self, page: F) -> impl Future<Output = F::Output> {
        let page = Box::pin(page);
        async move {
            let (within, opened) = self.enter();
            let output = task::within(self.0.id, within.clone(), page).await;
            self.leave(&within, opened).await;
            output
        }
    }

    /// Runs `page` in a scope whose plain reads, too, are answered by what it holds, for `max_age`.
    /// Absences are held as well. Returns the output of `page`.
    ///
    /// For work that can live with old answers: what other processes write meanwhile is not seen
    /// for as long. [`fresh`](Self::fresh) ends what is held.
    pub fn scope_holding<F: Future>(
        &self,
        max_age: Duration,
        page: F,
    ) -> impl Future<Output = F::Output> {
        let page = Box::pin(page);
        self.scope(async move {
            let at = self.here().with_hold(max_age);
            task::within(self.0.id, at, page).await
        })
    }

    /// Ends the snapshot of the scope that this is called in: the next plain read asks the store.
    /// For news that came another way than through this cache, such as a row lock or a message.
    pub fn fresh(&self) {
        task::with(self.0.id, |at| at.scope().map(|scope| scope.refresh()));
    }

    /// Runs `work`, whose plain `set`s leave in one trip: with the next operation of `work` that
    /// travels, at the latest when it is done. Returns the output of `work`.
    ///
    /// # Errors
    ///
    /// Those of `work`, whose writes until then are sent; under
    /// [`OnError::Raise`](crate::OnError::Raise), failures of the store in that last trip.
    pub fn batch<T, E: From<Error>, F: Future<Output = Result<T, E>>>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, E>> {
        let work = Box::pin(work);
        async move {
            let batch = Arc::<WriteBatch>::default();
            let at = self.here().with_batch(Arc::clone(&batch));
            let output = task::within(self.0.id, at.clone(), work).await;
            batch.close();
            let flushed = self.travel(&at, self.policy().flush(&at)).await;
            self.flushed(output, flushed)
        }
    }

    /// Returns the result of a batch. An error of its work says more than one of its last trip.
    pub(crate) fn flushed<T, E: From<Error>>(
        &self,
        output: Result<T, E>,
        flushed: Result<()>,
    ) -> Result<T, E> {
        if output.is_ok() {
            flushed?;
        } else if let Err(lost) = flushed {
            log::warn!(
                "writes of a failed batch to {} are lost: {lost}",
                self.label()
            );
        }
        output
    }

    /// Runs `work` and tells which trips it made, in this task.
    pub fn watch<F: Future>(&self, work: F) -> impl Future<Output = (F::Output, Arc<Watch>)> {
        let work = Box::pin(work);
        async move {
            let watch = Arc::new(Watch::default());
            let at = self.here().with_watch(Arc::clone(&watch));
            (task::within(self.0.id, at, work).await, watch)
        }
    }
}

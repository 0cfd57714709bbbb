//! Scopes, pages and watches around a future.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Cache, Inner};
use crate::context::{Context, task};
use crate::error::Result;
use crate::learn::{Page, Report};
use crate::policy::Policy;
use crate::scope::{Arrival, Companion, Scope, Work};
use crate::trip::Trip;
use crate::watch::Watch;
use crate::write_batch::WriteBatch;

/// A visit that ends when this is dropped, and is learned from if it was made to its end.
struct Visiting<'a> {
    policy: &'a Policy,
    scope: &'a Scope,
    page: Arc<Page>,
    whole: bool,
}

impl Drop for Visiting<'_> {
    fn drop(&mut self) {
        self.policy.end_visit(self.scope, &self.page, self.whole);
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
        if cache.dispatcher.may_have_pending_deletes() {
            return None;
        }
        let ahead = cache.policy.accompany(&scope, trip)?;
        Some(Box::new(move |mut replies| {
            cache.policy.arrive(Some(&scope), Some(ahead), &mut replies);
        }))
    }
}

/// Scopes and watches.
impl Cache {
    /// Lets the first trip of a page in `scope` bring what it reads in `others`, too: open scopes of
    /// other caches. Those that have another URL are left alone.
    pub fn link(&self, scope: &Arc<Scope>, other: &Self, others: &Arc<Scope>) {
        let is_linkable = self.0.url == other.0.url && !self.is_same(other);
        if is_linkable && !self.is_local() {
            scope.accompany(other.linked(others));
            others.accompany(self.linked(scope));
        }
    }

    fn linked(&self, scope: &Arc<Scope>) -> Arc<Linked> {
        Arc::new(Linked {
            cache: Arc::downgrade(&self.0),
            scope: Arc::downgrade(scope),
        })
    }

    /// Runs `page` in a scope that holds the entries of `keys`, read in one trip.
    ///
    /// Fetches and plain reads of these keys are answered by the scope for `scope_max_age`; those
    /// that are absent are absent for as long. What fetches compute in it is stored by posts, which
    /// nobody waits for until the scope closes.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store in that trip.
    pub fn preload<K: AsRef<[u8]>, F: Future>(
        &self,
        keys: impl IntoIterator<Item = K>,
        page: F,
    ) -> impl Future<Output = Result<F::Output>> {
        // Held in place, a page would be in this future four times over, and a page within
        // pages as often for each of them.
        let page = Box::pin(page);
        async move {
            let at = self.here();
            let (scope, opened) = self.policy().enter(&at, Work::Other);
            let within = at.with_scope(Arc::clone(&scope));
            let keys: Vec<K> = keys.into_iter().collect();
            self.travel(&within, self.policy().preload(&within, &keys))
                .await?;
            let output = task::within(self.0.id, within.clone(), page).await;
            if opened {
                self.close(&within, &scope).await?;
            }
            Ok(output)
        }
    }

    /// Runs `page` in a scope whose first read brings what visits to this page are likely to read,
    /// as they showed before; its own visit is learned from.
    ///
    /// Nothing is learned if the returned future is dropped before it is done. What `work` returns
    /// says nothing of the page: one that returns an error early is a visit that read little.
    ///
    /// # Errors
    ///
    /// Those of [`preload`](Self::preload).
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
    pub fn page<F: Future>(&self, page: Page, work: F) -> impl Future<Output = Result<F::Output>> {
        let work = Box::pin(work);
        self.scope(async move {
            let at = self.here();
            let Some(scope) = at.scope() else {
                return work.await;
            };
            let mut visit = Visiting {
                policy: self.policy(),
                scope,
                page: self.policy().begin_visit(scope, page),
                whole: false,
            };
            let output = work.await;
            visit.whole = true;
            output
        })
    }

    /// What was learned of each route, those that are visited most first.
    #[must_use]
    pub fn pages(&self) -> Vec<Report> {
        self.policy().pages()
    }

    /// What the workers of a site know of each route that they visited of late, by name, as they
    /// told it each other through the store: visits and what came of them are those of late. Two
    /// trips.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store.
    pub async fn shared_pages(&self) -> Result<Vec<Report>> {
        let at = self.here();
        let routes = self.travel(&at, self.policy().shared_routes()).await?;
        self.travel(&at, self.policy().shared_pages(&routes)).await
    }

    pub(crate) async fn close(&self, at: &Context, scope: &Scope) -> Result<()> {
        self.travel(at, self.policy().close(scope)).await?;
        for post in scope.take_posts() {
            std::future::poll_fn(|context| post.poll(context)).await;
        }
        Ok(())
    }

    /// Runs `page` in a scope that holds nothing yet: what it fetches twice is asked for once, and
    /// what it computes is posted.
    ///
    /// # Errors
    ///
    /// Those of [`preload`](Self::preload).
    pub fn scope<F: Future>(&self, page: F) -> impl Future<Output = Result<F::Output>> {
        self.preload::<&[u8], F>([], page)
    }

    /// Runs `page` in a scope whose plain reads, too, are answered by what it holds, for `max_age`.
    /// Absences are held as well.
    ///
    /// For work that can live with old answers: what other processes write meanwhile is not seen
    /// for as long. [`fresh`](Self::fresh) ends what is held.
    ///
    /// # Errors
    ///
    /// Those of [`preload`](Self::preload).
    pub fn scope_holding<F: Future>(
        &self,
        max_age: Duration,
        page: F,
    ) -> impl Future<Output = Result<F::Output>> {
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
    /// travels, at the latest when it is done.
    ///
    /// # Errors
    ///
    /// Under [`OnError::Raise`](crate::OnError::Raise), failures of the store in that last trip.
    pub fn batch<F: Future>(&self, work: F) -> impl Future<Output = Result<F::Output>> {
        let work = Box::pin(work);
        async move {
            let batch = Arc::<WriteBatch>::default();
            let at = self.here().with_batch(Arc::clone(&batch));
            let output = task::within(self.0.id, at.clone(), work).await;
            batch.close();
            self.travel(&at, self.policy().flush(&at)).await?;
            Ok(output)
        }
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

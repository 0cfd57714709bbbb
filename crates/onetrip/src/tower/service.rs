//! The layer, and the service that it makes of another.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;

use super::body::PageBody;
use super::naming::Naming;
use super::page::Page;
use crate::cache::Cache;
use crate::learn;

/// Gives each request a scope: what it fetches twice is asked for once, and what it computes is
/// posted. Plain reads and writes are exact.
///
/// A body that is made while it is sent stays within the scope. From its beginning, what the scope
/// holds is at most [`read_max_age`](crate::Builder::read_max_age) old.
///
/// Scopes nest: a [`preload`](Cache::preload) within the handler brings its answers into this one,
/// and a second layer for the same cache changes nothing. Tasks that the handler spawns have no
/// scope.
///
/// With the feature `axum`, the scope of a request that a route of axum took knows which page it
/// is for: by that route and its path parameters. It learns what such pages read, and brings it in
/// one trip the next time. Add the layer by `Router::layer`, which runs once the route is known.
/// For another framework, [`name`](Self::name) says it.
///
/// Nothing is learned from methods other than GET and HEAD, from responses of status 400 and more,
/// from errors, and from requests that were not made to their end. They are served as fast.
///
/// Failures at the end, under [`OnError::Raise`](crate::OnError::Raise), are logged: the response
/// is made by then.
#[derive(Clone, Debug)]
pub struct PageLayer {
    cache: Cache,
    naming: Naming,
}

impl PageLayer {
    /// A layer that opens scopes of `cache`.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        let naming = Naming::default();
        Self { cache, naming }
    }

    /// Names pages by what `name` makes of a request's head, and not by the route of axum: the
    /// route and its arguments, or `None` for what is no page.
    ///
    /// ```
    /// use onetrip::{Cache, Page};
    /// use onetrip::tower::PageLayer;
    ///
    /// let layer = PageLayer::new(Cache::open("memory://")?).name(|request| {
    ///     let id = request.uri.path().strip_prefix("/notes/")?;
    ///     Some(Page::new("note").arg("id", id))
    /// });
    /// # drop(layer);
    /// # Ok::<(), onetrip::Error>(())
    /// ```
    #[must_use]
    pub fn name(
        mut self,
        name: impl Fn(&Parts) -> Option<learn::Page> + Send + Sync + 'static,
    ) -> Self {
        self.naming.name = Arc::new(move |request| name(request));
        self
    }

    /// Counts the query parameters of these names among the arguments of a page; none by default.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.naming.query = names.into_iter().map(Into::into).collect();
        self
    }

    /// Counts what `facets` makes of a request's head among the arguments of a page: what its keys
    /// have in them and its URL has not, such as the user, the language or the tenant.
    #[must_use]
    pub fn facets<N: Into<String>, V: ToString, I: IntoIterator<Item = (N, V)>>(
        mut self,
        facets: impl Fn(&Parts) -> I + Send + Sync + 'static,
    ) -> Self {
        self.naming.facets = Some(Arc::new(move |request| {
            let facets = facets(request).into_iter();
            let facets = facets.map(|(name, value)| (name.into(), value.to_string()));
            facets.collect()
        }));
        self
    }

    /// Learns nothing from the visits of clients that `is_bot` knows by a request's head; they are
    /// served like others.
    #[must_use]
    pub fn bots(mut self, is_bot: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.naming.bots = Some(Arc::new(is_bot));
        self
    }
}

impl<S> tower_layer::Layer<S> for PageLayer {
    type Service = PageService<S>;

    fn layer(&self, inner: S) -> PageService<S> {
        PageService {
            inner,
            cache: self.cache.clone(),
            naming: self.naming.clone(),
        }
    }
}

/// A service whose every request has a scope; made by [`PageLayer`].
#[derive(Clone, Debug)]
pub struct PageService<S> {
    inner: S,
    cache: Cache,
    naming: Naming,
}

impl<S, R, B> tower_service::Service<Request<R>> for PageService<S>
where
    S: tower_service::Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Body + Send,
{
    type Response = Response<PageBody<B>>;
    type Error = S::Error;
    type Future = PageFuture<B, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut page = Page::open(self.cache.clone(), safe);
        let (mut head, body) = request.into_parts();
        if self.cache.policy().learns()
            && let Some(named) = self.naming.page(&mut head)
        {
            page.name(named);
        }
        let request = Request::from_parts(head, body);
        let response = page.within_blocking(|| self.inner.call(request));
        PageFuture(Box::pin(async move {
            match page.within(response).await {
                Ok(response) => Ok(finish(page, response).await),
                Err(error) => {
                    page.discard();
                    page.close().await;
                    Err(error)
                }
            }
        }))
    }
}

/// The statuses of errors, of the client and of the application, begin here.
const ERRORS: u16 = 400;

/// Ends the page, or hands it to the body where that is still to be made.
async fn finish<B: Body>(mut page: Page, response: Response<B>) -> Response<PageBody<B>> {
    let (head, body) = response.into_parts();
    if head.status.as_u16() >= ERRORS {
        page.discard();
    }
    let body = if body.size_hint().exact().is_some() {
        page.close().await;
        PageBody::whole(body)
    } else {
        page.begin_sending();
        PageBody::streaming(body, page, &head.headers)
    };
    Response::from_parts(head, body)
}

/// The response of a [`PageService`], on its way.
#[must_use = "futures do nothing unless polled"]
pub struct PageFuture<B: Body, E>(Pin<Box<dyn Future<Output = Answer<B, E>> + Send>>);

type Answer<B, E> = Result<Response<PageBody<B>>, E>;

impl<B: Body, E> fmt::Debug for PageFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageFuture").finish_non_exhaustive()
    }
}

impl<B: Body, E> Future for PageFuture<B, E> {
    type Output = Answer<B, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

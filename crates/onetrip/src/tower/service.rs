//! The layer, and the service that it wraps around another.

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

/// Gives each request a scope: a key fetched twice is asked for once, and computed results are
/// posted. Plain reads and writes stay exact.
///
/// A body that is streamed stays in the scope. Once streaming begins, the scope's answers are at
/// most [`read_max_age`](crate::Builder::read_max_age) old.
///
/// Scopes nest: a [`preload`](Cache::preload) in the handler adds its answers to this scope, and a
/// second layer for the same cache changes nothing. Tasks that the handler spawns have no scope.
///
/// With the feature `axum`, a request that an axum route matched has a page: the route and its path
/// parameters. The scope learns which keys such pages read, and brings them in one trip next time.
/// Add the layer with `Router::layer`, which runs after routing. For other frameworks, set
/// [`name`](Self::name).
///
/// Methods other than GET and HEAD, responses with status 400 or more, errors, and requests that
/// were not completed teach nothing. They are served just as fast.
///
/// Under [`OnError::Raise`](crate::OnError::Raise), failures at the end of a request are logged:
/// its response is complete by then.
#[derive(Clone, Debug)]
pub struct PageLayer {
    cache: Cache,
    naming: Naming,
}

impl PageLayer {
    /// Creates a layer that opens scopes of `cache`.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        let naming = Naming::default();
        Self { cache, naming }
    }

    /// Names pages by `name`, instead of by axum's route. It gets the request's head and returns
    /// the route and its arguments, or `None` if the request is for no page.
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

    /// Adds the query parameters with these names to the arguments of a page. Default: none.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.naming.query = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds what `facets` returns for a request's head to the arguments of a page: values that keys
    /// contain and the URL does not, such as the user, the language or the tenant.
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

    /// Learns nothing from requests for which `is_bot` returns `true`. They are served like others.
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

/// A service that gives each request a scope; made by [`PageLayer`].
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

/// Error statuses, of the client and of the server, begin here.
const ERRORS: u16 = 400;

/// Closes the page, or hands it to a body that is still being produced.
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

/// The future of a [`PageService`]'s response.
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

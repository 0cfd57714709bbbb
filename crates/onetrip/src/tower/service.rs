//! The layer, and the service that it makes of another.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use http::Response;
use http_body::Body;

use super::body::PageBody;
use super::page::Page;
use crate::cache::Cache;

/// Gives each request a scope: what it reads twice is asked for once, and what it writes leaves
/// together.
///
/// What the handler wrote leaves before the head of its response does, so that the next request of
/// the same reader sees it. A body that is made while it is sent stays within the scope, and what
/// it writes leaves when it ends. Where the client goes away before, or the handler panics, what
/// waits to be written is dropped.
///
/// Scopes nest: a [`preload`](Cache::preload) within the handler brings its answers into this one,
/// and a second layer for the same cache changes nothing. Tasks that the handler spawns have no
/// scope.
///
/// The failures of a trip at the end, under [`OnError::Raise`](crate::OnError::Raise), are logged:
/// the response is made by then.
#[derive(Clone, Debug)]
pub struct PageLayer {
    cache: Cache,
}

impl PageLayer {
    /// A layer that opens scopes of `cache`.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }
}

impl<S> tower_layer::Layer<S> for PageLayer {
    type Service = PageService<S>;

    fn layer(&self, inner: S) -> PageService<S> {
        PageService {
            inner,
            cache: self.cache.clone(),
        }
    }
}

/// A service whose every request has a scope; made by [`PageLayer`].
#[derive(Clone, Debug)]
pub struct PageService<S> {
    inner: S,
    cache: Cache,
}

impl<S, Q, B> tower_service::Service<Q> for PageService<S>
where
    S: tower_service::Service<Q, Response = Response<B>>,
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

    fn call(&mut self, request: Q) -> Self::Future {
        let page = Page::open(self.cache.clone());
        let response = page.within_blocking(|| self.inner.call(request));
        PageFuture(Box::pin(async move {
            match page.within(response).await {
                Ok(response) => Ok(finish(page, response).await),
                Err(error) => {
                    page.close().await;
                    Err(error)
                }
            }
        }))
    }
}

/// Ends the page, or hands it to the body where that is still to be made.
async fn finish<B: Body>(page: Page, response: Response<B>) -> Response<PageBody<B>> {
    let (head, body) = response.into_parts();
    let body = if body.size_hint().exact().is_some() {
        page.close().await;
        PageBody::whole(body)
    } else {
        page.flush().await;
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

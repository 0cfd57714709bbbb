//! Requests, and responses with several kinds of bodies.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use onetrip::Cache;
use onetrip::internals::entry::Kind;
use onetrip::tower::PageLayer;
use onetrip::trip::Op;
use tower::{Layer, Service};

pub(crate) type Answer = Result<Response<Body>, Infallible>;

/// Wraps `handler` in a layer that gives it a scope of `cache`.
pub(crate) fn page<H, F>(
    cache: &Cache,
    handler: H,
) -> impl Service<
    Request<Body>,
    Response = Response<onetrip::tower::PageBody<Body>>,
    Error = Infallible,
    Future: Send,
> + use<H, F>
where
    H: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    PageLayer::new(cache.clone()).layer(tower::service_fn(move |_| handler()))
}

pub(crate) fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// A body of one frame that `made` produces while it is sent.
pub(crate) fn made<F: Future<Output = &'static str> + Send + 'static>(made: F) -> Body {
    struct Made<F>(Option<Pin<Box<F>>>);

    impl<F: Future<Output = &'static str>> http_body::Body for Made<F> {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            let Some(made) = &mut self.0 else {
                return Poll::Ready(None);
            };
            made.as_mut().poll(cx).map(|text| {
                self.0 = None;
                Some(Ok(http_body::Frame::data(Bytes::from_static(
                    text.as_bytes(),
                ))))
            })
        }
    }

    Body::new(Made(Some(Box::pin(made))))
}

pub(crate) async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Reads the store outside any scope.
pub(crate) async fn stored(cache: &Cache, key: &str) -> Option<u32> {
    let cache = cache.clone();
    let key = key.to_owned();
    tokio::spawn(async move { cache.get(key).await.unwrap() })
        .await
        .unwrap()
}

/// Writes as another process would: this process's scopes keep what they hold.
pub(crate) async fn elsewhere(cache: &Cache, key: &str, text: &str) {
    let payload = |out: &mut Vec<u8>| {
        out.extend_from_slice(text.as_bytes());
        Ok::<_, onetrip::Error>(Kind::Str)
    };
    let entry = cache.policy().seal(key.as_bytes(), payload).unwrap();
    let (name, ttl) = (Bytes::copy_from_slice(key.as_bytes()), None);
    let set = Op::Set { name, entry, ttl }.into();
    cache
        .send(&onetrip::internals::Context::default(), &set)
        .await
        .unwrap();
}

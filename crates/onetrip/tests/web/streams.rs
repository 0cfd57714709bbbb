//! Streamed responses.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use http_body_util::BodyExt;
use onetrip::tower::PageLayer;
use onetrip::{Cache, Clock, Ttl};
use tower::ServiceExt;

use crate::requests::{elsewhere, request};
use crate::support::turn;

const INSTANT: Duration = Duration::from_micros(1);
const READ_MAX_AGE: Duration = Duration::from_millis(100);

fn slow(clock: &Clock) -> Cache {
    turn();
    let cache = Cache::builder("memory://?latency=10us").clock(clock.clone());
    cache.build().unwrap()
}

/// An app whose response streams the results of `read`, after a preload and a fetch.
fn app<F: Future<Output = String> + Send + 'static>(
    cache: &Cache,
    read: impl Fn(Cache) -> F + Clone + Send + Sync + 'static,
) -> Router {
    let handler = {
        let cache = cache.clone();
        async move || {
            cache
                .preload(["named"], async { Ok::<_, onetrip::Error>(()) })
                .await
                .unwrap();
            let _ = cache.get::<String>("plain").await;
            let _ = fetch(&cache).await;
            let read = move |()| {
                let (cache, read) = (cache.clone(), read.clone());
                async move { Some((Ok::<_, Infallible>(Bytes::from(read(cache).await)), ())) }
            };
            Body::from_stream(stream::unfold((), read))
        }
    };
    Router::new()
        .route("/", get(handler))
        .layer(PageLayer::new(cache.clone()))
}

async fn fetch(cache: &Cache) -> String {
    let make = async || "made".to_owned();
    let made = cache.get_or_insert_with("piece", Ttl::Default, make);
    made.await.unwrap()
}

async fn all(cache: &Cache, text: &str) {
    for key in ["named", "plain", "piece"] {
        elsewhere(cache, key, text).await;
    }
}

async fn frame<B: http_body::Body<Data = Bytes> + Unpin>(body: &mut B) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

async fn read_all(cache: Cache) -> String {
    let named: Option<String> = cache.get("named").await.unwrap();
    let plain: Option<String> = cache.get("plain").await.unwrap();
    let piece = fetch(&cache).await;
    format!("{} {} {piece}", named.unwrap(), plain.unwrap())
}

#[tokio::test]
async fn stream_sees_pieces_of_100_ms_at_most_and_exact_state() {
    let clock = Clock::manual();
    let cache = slow(&clock);
    all(&cache, "0").await;
    let response = app(&cache, read_all).oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    for round in 1..5 {
        let (old, new) = ((round - 1).to_string(), round.to_string());
        assert_eq!(frame(&mut body).await, format!("{old} {old} {old}"));
        all(&cache, &new).await;
        clock.advance(READ_MAX_AGE - INSTANT);
        assert_eq!(frame(&mut body).await, format!("{old} {new} {old}"));
        clock.advance(INSTANT);
        assert_eq!(frame(&mut body).await, format!("{new} {new} {new}"));
    }
}

/// Ten seconds are allowed before the response, and a tenth of a second in it: the limit also
/// applies to answers held before.
#[tokio::test]
async fn answers_held_before_the_stream_are_too_old() {
    let clock = Clock::manual();
    let cache = slow(&clock);
    all(&cache, "0").await;
    let response = app(&cache, read_all).oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    all(&cache, "1").await;
    clock.advance(READ_MAX_AGE);
    assert_eq!(frame(&mut body).await, "1 1 1");
}

/// A learned page has no snapshot once its response is being sent.
#[tokio::test]
async fn stream_has_no_snapshot() {
    let clock = Clock::manual();
    let cache = slow(&clock);
    all(&cache, "0").await;
    let app = app(&cache, read_all);
    for _ in 0..10 {
        let response = app.clone().oneshot(request()).await.unwrap();
        let mut body = response.into_body();
        frame(&mut body).await;
    }
    let mut body = app.oneshot(request()).await.unwrap().into_body();
    elsewhere(&cache, "plain", "1").await;
    assert_eq!(frame(&mut body).await, "0 1 0");
}

#[tokio::test]
async fn writes_of_a_stream_are_stored_at_once() {
    let cache = slow(&Clock::manual());
    let handler = async |cache: Cache| {
        cache.set("present", &1).await.unwrap();
        String::from("told")
    };
    let response = app(&cache, handler).oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(frame(&mut body).await, "told");
    // The stream continues.
    assert_eq!(cache.get("present").await.unwrap(), Some(1));
}

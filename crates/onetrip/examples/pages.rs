//! A scope for each request of axum: a handler that needs two pieces makes one trip, whether they
//! are there or are computed and posted.
//!
//! `cargo run --example pages`, then open what it prints.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use onetrip::Cache;
use onetrip::tower::PageLayer;

/// Part of a page: it knows nothing of requests, and asks the cache for itself.
#[onetrip::cached(timeout = "1m", key = "greeting:{language}")]
async fn greeting(cache: &Cache, language: &str) -> String {
    format!("Hello in {language}.\n")
}

async fn page(State(cache): State<Cache>) -> Result<String, String> {
    let keys = ["English", "German"].map(greeting_key);
    let made = async {
        let (english, german) = (greeting(&cache, "English"), greeting(&cache, "German"));
        english.await + &german.await
    };
    // The scope around the request holds the answers, and nobody waits until what was missing is
    // stored.
    let made = cache.preload(keys, made).await;
    made.map_err(|error| error.to_string())
}

fn app(cache: Cache) -> Router {
    Router::new()
        .route("/", get(page))
        .layer(PageLayer::new(cache.clone()))
        .with_state(cache)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::open("memory://")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app(cache)).await?)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_request_takes_one_trip_and_posts_what_it_computed() {
        let cache = Cache::open("memory://?latency=10us").unwrap();
        let app = app(cache.clone());
        for posted in [2, 0] {
            let request = app.clone().oneshot(Request::new(Body::empty()));
            let (response, seen) = cache.watch(request).await;
            let text = response.unwrap().into_body().collect().await.unwrap();
            assert_eq!(text.to_bytes(), "Hello in English.\nHello in German.\n");
            assert_eq!((seen.trips(), seen.posted()), (1, posted));
        }
    }
}

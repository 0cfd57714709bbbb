//! A scope for each axum request: a handler that needs two pieces makes one trip. Pieces that are
//! missing are computed and posted.
//!
//! Run `cargo run --example pages`, then open the printed address.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use onetrip::Cache;
use onetrip::tower::PageLayer;

/// One part of a page. It knows nothing of requests, and asks the cache itself.
#[onetrip::cached(timeout = "1m", key = "greeting:{language}")]
async fn greeting(cache: &Cache, language: &str) -> String {
    format!("Hello in {language}.\n")
}

async fn page(State(cache): State<Cache>) -> Result<String, String> {
    let keys = ["English", "German"].map(greeting_key);
    let made = async {
        let (english, german) = (greeting(&cache, "English"), greeting(&cache, "German"));
        Ok::<_, onetrip::Error>(english.await + &german.await)
    };
    // The scope of the request holds the answers, and nobody waits until computed ones are stored.
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
    async fn request_takes_one_trip_and_posts_its_results() {
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

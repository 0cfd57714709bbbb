//! Programs that coordinate with others through the cache. The layer changes none of them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::routing::{get, post};
use futures_util::future::join_all;
use onetrip::tower::PageLayer;
use onetrip::{Cache, Ttl};
use tokio::sync::{Barrier, Semaphore};
use tower::ServiceExt;

use crate::requests::{elsewhere, request, stored, text};
use crate::support::{remote, words};

fn to(method: Method, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::empty()).unwrap()
}

/// Visits pages of `app` until they have learned all they can.
async fn visit_often(app: &Router, path: &str) {
    for _ in 0..10 {
        let answer = app.clone().oneshot(to(Method::GET, path)).await;
        text(answer.unwrap()).await;
    }
}

/// Takes a lock by `add` around a read, an addition and a write.
async fn count_one(cache: &Cache) {
    while !cache.add("lock", &1, Ttl::Default).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let count: u32 = cache.get("count").await.unwrap().unwrap_or_default();
    tokio::task::yield_now().await;
    cache.set("count", &(count + 1)).await.unwrap();
    assert!(cache.delete("lock").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locked_counter_counts_all_forty_requests() {
    for method in [Method::GET, Method::POST] {
        let cache = remote();
        let handler = {
            let cache = cache.clone();
            async move || {
                // By now the page holds all that it may.
                let _: Option<u32> = cache.get("count").await.unwrap();
                count_one(&cache).await;
            }
        };
        let app = Router::new()
            .route("/", get(handler.clone()).post(handler))
            .layer(PageLayer::new(cache.clone()));
        visit_often(&app, "/").await;
        cache.delete("count").await.unwrap();
        let requests = (0..40).map(|_| {
            let app = app.clone();
            let method = method.clone();
            tokio::spawn(async move { app.oneshot(to(method, "/")).await })
        });
        for answer in join_all(requests).await {
            assert!(answer.unwrap().unwrap().status().is_success());
        }
        assert_eq!(stored(&cache, "count").await, Some(40), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn incr_limit_admits_the_right_number() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        async move || {
            cache.add("tries", &0, Ttl::Default).await.unwrap();
            let tries = cache.incr("tries", 1).await.unwrap();
            format!("{}", tries.unwrap() <= 5)
        }
    };
    let app = Router::new()
        .route("/", post(handler))
        .layer(PageLayer::new(cache.clone()));
    let requests = (0..40).map(|_| app.clone().oneshot(to(Method::POST, "/")));
    let mut let_through = 0;
    for answer in join_all(requests).await {
        let_through += u32::from(text(answer.unwrap()).await == "true");
    }
    assert_eq!(let_through, 5);
}

#[tokio::test]
async fn job_is_visible_before_the_response() {
    let cache = remote();
    let (set, taken) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (cache, set, taken) = (cache.clone(), Arc::clone(&set), Arc::clone(&taken));
        async move || {
            cache.set("job", &7).await.unwrap();
            set.add_permits(1);
            // Another process takes the job and answers.
            taken.acquire().await.unwrap().forget();
        }
    };
    let app = Router::new()
        .route("/", post(handler))
        .layer(PageLayer::new(cache.clone()));
    let answer = tokio::spawn(app.oneshot(to(Method::POST, "/")));
    set.acquire().await.unwrap().forget();
    assert_eq!(stored(&cache, "job").await, Some(7));
    taken.add_permits(1);
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn polling_handler_returns() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        async move || {
            let mut reads = 0;
            while cache.get::<String>("status").await.unwrap().as_deref() != Some("done") {
                reads += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            format!("{}", reads > 0)
        }
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(PageLayer::new(cache.clone()));
    // Also as a learned page: there a snapshot answers for a tenth of a second.
    elsewhere(&cache, "status", "done").await;
    visit_often(&app, "/").await;
    elsewhere(&cache, "status", "pending").await;
    let began = Instant::now();
    let finish = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        elsewhere(&cache, "status", "done").await;
    };
    let (answer, ()) = tokio::join!(app.oneshot(request()), finish);
    assert_eq!(text(answer.unwrap()).await, "true");
    // Far below the ten seconds of a piece, however busy the machine is.
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Two parties: each sets its own key and reads the other's.
#[tokio::test]
async fn one_of_two_setters_sees_the_other() {
    for method in [Method::GET, Method::POST] {
        let cache = remote();
        let both = Arc::new(Barrier::new(2));
        let handler = {
            let (cache, both) = (cache.clone(), Arc::clone(&both));
            move |request: Request<Body>| {
                let (cache, both) = (cache.clone(), Arc::clone(&both));
                async move {
                    let own = &request.uri().path()[1..];
                    let other = if own == "a" { "b" } else { "a" };
                    cache.get_many::<u32, _>(&["a", "b"]).await.unwrap();
                    both.wait().await;
                    cache.set(own, &1).await.unwrap();
                    cache.contains(other).await.unwrap().to_string()
                }
            }
        };
        let app = Router::new()
            .route("/{who}", get(handler.clone()).post(handler))
            .layer(PageLayer::new(cache.clone()));
        for _ in 0..10 {
            cache.delete_many(&["a", "b"]).await.unwrap();
            let (one, other) = tokio::join!(
                app.clone().oneshot(to(method.clone(), "/a")),
                app.clone().oneshot(to(method.clone(), "/b"))
            );
            let saw = [text(one.unwrap()).await, text(other.unwrap()).await];
            assert!(saw.iter().any(|saw| saw == "true"), "{method}: {saw:?}");
        }
    }
}

/// The scope of a GET joins a flight that began after it. The scope of a POST does not, since the
/// POST may change what the flight reads.
#[tokio::test]
async fn post_joins_no_flight() {
    for (method, computed) in [(Method::GET, 1), (Method::POST, 2)] {
        let cache = remote();
        let (began, both) = (Arc::new(Semaphore::new(0)), Arc::new(Barrier::new(2)));
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let handler = {
            let (cache, count) = (cache.clone(), Arc::clone(&count));
            let (began, both) = (Arc::clone(&began), Arc::clone(&both));
            async move || {
                both.wait().await;
                let make = async || {
                    began.add_permits(1);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
                };
                let _ = cache
                    .get_or_insert_with("waits:a", Ttl::Default, make)
                    .await;
            }
        };
        let app = Router::new()
            .route("/", get(handler.clone()).post(handler))
            .layer(PageLayer::new(cache.clone()));
        let ask = || app.clone().oneshot(to(method.clone(), "/"));
        let (one, other) = tokio::join!(ask(), ask());
        one.unwrap();
        other.unwrap();
        let computed_by = count.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(computed_by, computed, "{method}");
    }
}

/// Plain reads of a POST go to the store, whatever the page has learned.
#[tokio::test]
async fn post_has_no_snapshot() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        async move || {
            for key in ["a", "b", "a"] {
                let _: Option<String> = cache.get(key).await.unwrap();
            }
        }
    };
    let app = Router::new()
        .route("/", get(handler.clone()).post(handler))
        .layer(PageLayer::new(cache.clone()));
    elsewhere(&cache, "a", "1").await;
    elsewhere(&cache, "b", "1").await;
    visit_often(&app, "/").await;
    let visit = async |method| {
        let answer = app.clone().oneshot(to(method, "/"));
        cache.watch(answer).await.1
    };
    assert_eq!(visit(Method::GET).await.trips(), 1);
    assert_eq!(words(&visit(Method::POST).await), [["get"]; 3]);
}

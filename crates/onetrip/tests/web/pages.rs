//! Requests, each with its own scope.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Request, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use onetrip::Cache;
use onetrip::tower::PageLayer;
use tokio::sync::{Barrier, Mutex, Semaphore, mpsc};
use tower::{Layer, ServiceExt};

use crate::requests::{Answer, elsewhere, made, page, request, stored, text};
use crate::support::{remote, unlearned, words};

#[onetrip::cached(key = "n:{id}")]
async fn piece(cache: &Cache, id: u32) -> String {
    _ = cache;
    format!("{id}.")
}

#[tokio::test]
async fn request_takes_one_trip_and_posts_results() {
    let cache = unlearned();
    let handler = {
        let cache = cache.clone();
        async move || {
            let pieces = cache.preload((0..20).map(piece_key), async {
                let mut text = String::new();
                for id in 0..20 {
                    text += &piece(&cache, id).await;
                }
                Ok::<_, onetrip::Error>(text)
            });
            pieces.await.unwrap()
        }
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(PageLayer::new(cache.clone()));
    let visit = async || {
        let (response, seen) = cache.watch(app.clone().oneshot(request())).await;
        (text(response.unwrap()).await, seen)
    };
    let (cold, seen) = visit().await;
    assert_eq!((seen.trips(), seen.posted()), (1, 20));
    let (warm, seen) = visit().await;
    assert_eq!((seen.trips(), seen.posted()), (1, 0));
    assert_eq!(cold, warm);
}

#[tokio::test]
async fn posts_are_stored_once_the_response_is_complete() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                assert_eq!(piece(&cache, 1).await, "1.");
                Ok(Response::new(Body::from("whole")))
            }
        }
    };
    page(&cache, handler).oneshot(request()).await.unwrap();
    let stored: Option<String> = cache.get(piece_key(1)).await.unwrap();
    assert_eq!(stored.as_deref(), Some("1."));
}

#[tokio::test]
async fn streamed_body_stays_in_the_scope() {
    let cache = remote();
    elsewhere(&cache, "a", "old").await;
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache
                    .preload(["a"], async { Ok::<_, onetrip::Error>(()) })
                    .await
                    .unwrap();
                elsewhere(&cache, "a", "new").await;
                let body = made(async move {
                    let held: Option<String> = cache.get("a").await.unwrap();
                    assert_eq!(held.as_deref(), Some("old"));
                    cache.set("c", &3).await.unwrap();
                    assert_eq!(stored(&cache, "c").await, Some(3));
                    assert_eq!(piece(&cache, 2).await, "2.");
                    "made"
                });
                Ok(Response::new(body))
            }
        }
    };
    let response = page(&cache, handler).oneshot(request()).await.unwrap();
    let (body, seen) = cache.watch(text(response)).await;
    assert_eq!(body, "made");
    // The server polls the body outside the watch, so only the request's own watches count.
    assert_eq!(seen.trips(), 0);
    let posted: Option<String> = cache.get(piece_key(2)).await.unwrap();
    assert_eq!(posted.as_deref(), Some("2."));
}

#[tokio::test]
async fn server_that_stops_at_content_length_ends_the_scope() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                let body = made(async move {
                    piece(&cache, 1).await;
                    "made"
                });
                Ok(Response::builder()
                    .header(CONTENT_LENGTH, 4)
                    .body(body)
                    .unwrap())
            }
        }
    };
    let response = page(&cache, handler).oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "made");
    let posted: Option<String> = cache.get(piece_key(1)).await.unwrap();
    assert_eq!(posted.as_deref(), Some("1."));
}

#[tokio::test]
async fn concurrent_requests_never_share_a_scope() {
    const REQUESTS: usize = 8;
    let cache = remote();
    let (holds, turn) = (Arc::new(Barrier::new(REQUESTS)), Arc::new(Mutex::new(())));
    let handler = {
        let cache = cache.clone();
        move |request: Request<Body>| {
            let (cache, holds, turn) = (cache.clone(), Arc::clone(&holds), Arc::clone(&turn));
            async move {
                let own = request.uri().path().to_owned();
                // One after the other, each finds what the previous one left.
                let begin = turn.lock().await;
                elsewhere(&cache, "shared", &own).await;
                cache
                    .preload(["shared"], async { Ok::<_, onetrip::Error>(()) })
                    .await
                    .unwrap();
                drop(begin);
                holds.wait().await;
                let held: Option<String> = cache.get("shared").await.unwrap();
                assert_eq!(held, Some(own));
                "done"
            }
        }
    };
    let app: Router = Router::new()
        .fallback(handler)
        .layer(PageLayer::new(cache.clone()));
    // All in one task, where they would find each other's scopes most easily.
    let answers = futures_util::future::join_all((0..REQUESTS).map(|own| {
        let request = Request::builder().uri(format!("/{own}"));
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    }));
    for answer in answers.await {
        assert_eq!(text(answer.unwrap()).await, "done");
    }
}

#[tokio::test]
async fn second_layer_changes_nothing() {
    let cache = unlearned();
    let handler = {
        let cache = cache.clone();
        async move || piece(&cache, 1).await + &piece(&cache, 1).await
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(PageLayer::new(cache.clone()))
        .layer(PageLayer::new(cache.clone()));
    let (response, seen) = cache.watch(app.oneshot(request())).await;
    assert_eq!(text(response.unwrap()).await, "1.1.");
    assert_eq!(words(&seen), [["get"], ["set"]]);
}

#[tokio::test]
async fn outer_layer_holds_results_of_the_inner() {
    let cache = unlearned();
    let computing = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                assert_eq!(piece(&cache, 1).await, "1.");
                Ok(Response::new(Body::empty()))
            }
        }
    };
    let around = {
        let cache = cache.clone();
        move || {
            let (cache, inner) = (cache.clone(), page(&cache, computing.clone()));
            async move {
                inner.oneshot(request()).await?;
                let (held, seen) = cache.watch(piece(&cache, 1)).await;
                assert_eq!((held.as_str(), seen.trips()), ("1.", 0));
                Ok(Response::new(Body::empty()))
            }
        }
    };
    page(&cache, around).oneshot(request()).await.unwrap();
}

#[tokio::test]
async fn failing_request_keeps_its_writes() {
    let cache = remote();
    let failing = {
        let cache = cache.clone();
        tower::service_fn(move |_: Request<Body>| {
            let cache = cache.clone();
            async move {
                cache.set("a", &1).await.unwrap();
                Err::<Response<Body>, _>("failed")
            }
        })
    };
    let failed = PageLayer::new(cache.clone())
        .layer(failing)
        .oneshot(request())
        .await;
    assert_eq!(failed.err(), Some("failed"));
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
}

/// A handler that writes, signals that it did, and never ends.
fn endless(cache: &Cache, wrote: &Arc<Semaphore>) -> impl Fn() -> Endless + Clone + use<> {
    let (cache, wrote) = (cache.clone(), Arc::clone(wrote));
    move || {
        let (cache, wrote) = (cache.clone(), Arc::clone(&wrote));
        Box::pin(async move {
            cache.set("a", &1).await.unwrap();
            wrote.add_permits(1);
            std::future::pending().await
        })
    }
}

type Endless = Pin<Box<dyn Future<Output = Answer> + Send>>;

#[tokio::test]
async fn cancelled_request_leaves_no_scope() {
    let (cache, wrote) = (remote(), Arc::new(Semaphore::new(0)));
    let visit = tokio::spawn(page(&cache, endless(&cache, &wrote)).oneshot(request()));
    wrote.acquire().await.unwrap().forget();
    visit.abort();
    assert!(visit.await.unwrap_err().is_cancelled());
    assert_eq!(cache.get("a").await.unwrap(), Some(1), "the write was kept");
    cache.set("a", &2).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn panicking_handler_leaves_no_scope() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.set("a", &1).await.unwrap();
                panic!("as a handler may")
            }
        }
    };
    let visit = tokio::spawn(page(&cache, handler).oneshot(request()));
    assert!(visit.await.unwrap_err().is_panic());
    cache.set("a", &2).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn thread_that_outlives_its_request_holds_nothing() {
    let (cache, begun, ended) = (
        remote(),
        Arc::new(Semaphore::new(0)),
        std::sync::mpsc::channel(),
    );
    let (end, signal) = ended;
    let signal = Arc::new(std::sync::Mutex::new(Some(signal)));
    let (sender, mut receiver) = mpsc::channel(1);
    elsewhere(&cache, "a", "old").await;
    let handler = {
        let (cache, begun) = (cache.clone(), Arc::clone(&begun));
        move || {
            let (cache, begun, sender) = (cache.blocking(), Arc::clone(&begun), sender.clone());
            let signal = signal.lock().unwrap().take().unwrap();
            async move {
                let holds = cache
                    .asynchronous()
                    .preload(["a"], async { Ok::<_, onetrip::Error>(()) });
                holds.await.unwrap();
                let thread = onetrip::spawn_blocking(move || {
                    begun.add_permits(1);
                    signal.recv().unwrap();
                    let read: Option<String> = cache.get("a").unwrap();
                    sender.blocking_send(read).unwrap();
                });
                thread.await.unwrap();
                Ok(Response::new(Body::empty()))
            }
        }
    };
    let visit = tokio::spawn(page(&cache, handler).oneshot(request()));
    begun.acquire().await.unwrap().forget();
    visit.abort();
    assert!(visit.await.unwrap_err().is_cancelled());
    elsewhere(&cache, "a", "new").await;
    end.send(()).unwrap();
    let read = receiver.recv().await.unwrap();
    assert_eq!(read.as_deref(), Some("new"));
}

#[tokio::test]
async fn task_spawned_by_a_handler_has_no_scope() {
    let cache = remote();
    elsewhere(&cache, "a", "old").await;
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache
                    .preload(["a"], async { Ok::<_, onetrip::Error>(()) })
                    .await
                    .unwrap();
                elsewhere(&cache, "a", "new").await;
                let alone = cache.clone();
                let task = tokio::spawn(async move { alone.get::<String>("a").await });
                let read = task.await.unwrap().unwrap();
                assert_eq!(read.as_deref(), Some("new"));
                let held: Option<String> = cache.get("a").await.unwrap();
                assert_eq!(held.as_deref(), Some("old"));
                Ok(Response::new(Body::empty()))
            }
        }
    };
    page(&cache, handler).oneshot(request()).await.unwrap();
}

/// Over a real server and socket, which handle lengths and ends of bodies their own way.
#[tokio::test]
async fn real_server_behaves_the_same() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let cache = remote();
    let streamed = {
        let cache = cache.clone();
        async move || {
            made(async move {
                cache.set("a", &1).await.unwrap();
                "made"
            })
        }
    };
    let announced = {
        let cache = cache.clone();
        async move || {
            let body = made(async move {
                cache.set("b", &2).await.unwrap();
                "made"
            });
            ([(CONTENT_LENGTH, "4")], body)
        }
    };
    let app: Router = Router::new()
        .route("/streamed", get(streamed))
        .route("/announced", get(announced))
        .layer(PageLayer::new(cache.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    for (path, key, value) in [("streamed", "a", 1), ("announced", "b", 2)] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let asked = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("made"), "{answer}");
        assert_eq!(stored(&cache, key).await, Some(value), "{path}");
    }
    server.abort();
}

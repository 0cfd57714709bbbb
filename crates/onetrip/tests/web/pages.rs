//! Requests, each with a scope of its own.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Request, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use onetrip::Cache;
use onetrip::tower::PageLayer;
use tokio::sync::{Barrier, Semaphore, mpsc};
use tower::{Layer, Service, ServiceExt};

use crate::support::{remote, unlearned, words};

type Answer = Result<Response<Body>, Infallible>;

/// A page whose handler is `handler`, in a scope of `cache`.
fn page<H, F>(
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

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// A body of frames that are made when they are asked for.
fn stream(frames: mpsc::Receiver<Bytes>) -> Body {
    struct Frames(mpsc::Receiver<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            let frame = self.0.poll_recv(cx);
            frame.map(|frame| frame.map(|data| Ok(http_body::Frame::data(data))))
        }
    }

    Body::new(Frames(frames))
}

/// A body that is `made` while it is sent, as one frame.
fn made<F: Future<Output = &'static str> + Send + 'static>(made: F) -> Body {
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

async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Another reader of the same entries, without any scope.
async fn stored(cache: &Cache, key: &str) -> Option<u32> {
    let cache = cache.clone();
    let key = key.to_owned();
    tokio::spawn(async move { cache.get(key).await.unwrap() })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_takes_one_trip_in_and_one_out() {
    let cache = unlearned();
    let handler = {
        let cache = cache.clone();
        async move || {
            let keys: Vec<String> = (0..20).map(|id| format!("n:{id}")).collect();
            let pieces = cache.preload(&keys, async {
                let mut text = String::new();
                for key in &keys {
                    let make = async || key.clone();
                    let timeout = onetrip::Timeout::Default;
                    text += &cache.get_or_insert_with(key, timeout, make).await.unwrap();
                }
                text
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
    assert_eq!(words(&seen), [vec!["get"; 20], vec!["set"; 20]]);
    let (warm, seen) = visit().await;
    assert_eq!(words(&seen), [vec!["get"; 20]]);
    assert_eq!(cold, warm);
}

#[tokio::test]
async fn what_a_request_wrote_is_there_when_its_head_is() {
    let cache = remote();
    for streaming in [false, true] {
        let handler = {
            let cache = cache.clone();
            move || {
                let cache = cache.clone();
                async move {
                    cache.set("a", &1).await.unwrap();
                    assert_eq!(stored(&cache, "a").await, None, "it waits");
                    let (_sender, frames) = mpsc::channel(1);
                    Ok(Response::new(if streaming {
                        stream(frames)
                    } else {
                        Body::from("whole")
                    }))
                }
            }
        };
        let response = page(&cache, handler).oneshot(request()).await.unwrap();
        assert_eq!(stored(&cache, "a").await, Some(1), "streaming: {streaming}");
        drop(response);
        cache.delete("a").await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_is_made_while_it_is_sent_stays_in_the_scope() {
    let cache = remote();
    cache.set("a", &1).await.unwrap();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.preload(["a"], async {}).await.unwrap();
                cache.set("b", &2).await.unwrap();
                let body = made(async move {
                    assert_eq!(cache.get("a").await.unwrap(), Some(1));
                    assert_eq!(cache.get("b").await.unwrap(), Some(2));
                    cache.set("c", &3).await.unwrap();
                    assert_eq!(stored(&cache, "c").await, None, "it waits");
                    "made"
                });
                Ok(Response::new(body))
            }
        }
    };
    let response = page(&cache, handler).oneshot(request()).await.unwrap();
    let (body, seen) = cache.watch(text(response)).await;
    assert_eq!(body, "made");
    // The body is another's to poll, so nobody watches: the request's own watches do.
    assert_eq!(seen.trips(), 0);
    assert_eq!(stored(&cache, "c").await, Some(3));
}

#[tokio::test]
async fn a_streaming_request_takes_one_trip_for_each_of_its_ends() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.preload(["a", "b"], async {}).await.unwrap();
                cache.set("a", &1).await.unwrap();
                let body = made(async move {
                    for key in ["b", "c"] {
                        cache
                            .set(key, &cache.get::<u32>("a").await.unwrap())
                            .await
                            .unwrap();
                    }
                    "made"
                });
                Ok(Response::new(body))
            }
        }
    };
    let visit = async {
        let response = page(&cache, handler).oneshot(request()).await.unwrap();
        text(response).await
    };
    let (_, seen) = cache.watch(visit).await;
    assert_eq!(words(&seen), [vec!["get"; 2], vec!["set"], vec!["set"; 2]]);
}

#[tokio::test]
async fn a_server_that_stops_at_the_length_it_was_told_still_ends_the_scope() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                let body = made(async move {
                    cache.set("a", &1).await.unwrap();
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
    assert_eq!(stored(&cache, "a").await, Some(1));
}

#[tokio::test]
async fn two_requests_at_once_never_share_a_scope() {
    const REQUESTS: usize = 8;
    let cache = remote();
    let (wrote, read) = (
        Arc::new(Barrier::new(REQUESTS)),
        Arc::new(Barrier::new(REQUESTS)),
    );
    let handler = {
        let cache = cache.clone();
        move |request: Request<Body>| {
            let (cache, wrote, read) = (cache.clone(), Arc::clone(&wrote), Arc::clone(&read));
            async move {
                let own: usize = request.uri().path()[1..].parse().unwrap();
                cache.set("shared", &own).await.unwrap();
                cache.set(format!("own:{own}"), &own).await.unwrap();
                wrote.wait().await;
                assert_eq!(cache.get("shared").await.unwrap(), Some(own));
                for other in (0..REQUESTS).filter(|other| *other != own) {
                    let theirs: Option<usize> = cache.get(format!("own:{other}")).await.unwrap();
                    assert_eq!(theirs, None);
                }
                read.wait().await;
                "done"
            }
        }
    };
    let app: Router = Router::new()
        .fallback(handler)
        .layer(PageLayer::new(cache.clone()));
    // All in one task, where one would find another's scope soonest.
    let answers = futures_util::future::join_all((0..REQUESTS).map(|own| {
        let request = Request::builder().uri(format!("/{own}"));
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    }));
    for answer in answers.await {
        assert_eq!(text(answer.unwrap()).await, "done");
    }
    for own in 0..REQUESTS {
        assert_eq!(cache.get(format!("own:{own}")).await.unwrap(), Some(own));
    }
}

#[tokio::test]
async fn a_second_layer_changes_nothing() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        async move || {
            cache.set("a", &1).await.unwrap();
            cache
                .get::<u32>("a")
                .await
                .unwrap()
                .unwrap_or_default()
                .to_string()
        }
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(PageLayer::new(cache.clone()))
        .layer(PageLayer::new(cache.clone()));
    let (response, seen) = cache.watch(app.oneshot(request())).await;
    assert_eq!(text(response.unwrap()).await, "1");
    assert_eq!(words(&seen), [["set"]]);
}

#[tokio::test]
async fn what_an_inner_layer_wrote_leaves_with_the_outer_one() {
    let cache = remote();
    let writing = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.set("a", &1).await.unwrap();
                Ok(Response::new(Body::empty()))
            }
        }
    };
    let around = {
        let cache = cache.clone();
        move || {
            let (cache, inner) = (cache.clone(), page(&cache, writing.clone()));
            async move {
                inner.oneshot(request()).await?;
                assert_eq!(stored(&cache, "a").await, None, "it waits");
                assert_eq!(cache.get("a").await.unwrap(), Some(1));
                Ok(Response::new(Body::empty()))
            }
        }
    };
    page(&cache, around).oneshot(request()).await.unwrap();
    assert_eq!(stored(&cache, "a").await, Some(1));
}

#[tokio::test]
async fn a_request_that_fails_still_writes() {
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

/// A handler that writes, tells that it did, and never ends.
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
async fn a_request_that_is_given_up_writes_nothing() {
    let (cache, wrote) = (remote(), Arc::new(Semaphore::new(0)));
    let visit = tokio::spawn(page(&cache, endless(&cache, &wrote)).oneshot(request()));
    wrote.acquire().await.unwrap().forget();
    visit.abort();
    assert!(visit.await.unwrap_err().is_cancelled());
    assert_eq!(cache.get::<u32>("a").await.unwrap(), None);
    cache.set("a", &2).await.unwrap();
    assert_eq!(
        cache.get("a").await.unwrap(),
        Some(2),
        "no scope is left over"
    );
}

#[tokio::test]
async fn a_body_that_nobody_reads_to_its_end_writes_nothing_more() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.set("a", &1).await.unwrap();
                Ok(Response::new(made(async move {
                    cache.set("b", &2).await.unwrap();
                    std::future::pending().await
                })))
            }
        }
    };
    let response = page(&cache, handler).oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    assert!(futures_util::poll!(body.frame()).is_pending());
    drop(body);
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
    assert_eq!(cache.get::<u32>("b").await.unwrap(), None);
}

#[tokio::test]
async fn a_handler_that_panics_leaves_nothing_behind() {
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
    assert_eq!(cache.get::<u32>("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_thread_that_outlives_its_request_writes_at_once() {
    let (cache, begun, ended) = (
        remote(),
        Arc::new(Semaphore::new(0)),
        std::sync::mpsc::channel(),
    );
    let (end, told) = ended;
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let (sender, mut receiver) = mpsc::channel(1);
    let handler = {
        let (cache, begun) = (cache.clone(), Arc::clone(&begun));
        move || {
            let (cache, begun, sender) = (cache.blocking(), Arc::clone(&begun), sender.clone());
            let told = told.lock().unwrap().take().unwrap();
            async move {
                let thread = onetrip::spawn_blocking(move || {
                    begun.add_permits(1);
                    told.recv().unwrap();
                    cache.set("a", &1).unwrap();
                    sender.blocking_send(()).unwrap();
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
    end.send(()).unwrap();
    receiver.recv().await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_task_that_a_handler_starts_has_no_scope() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        move || {
            let cache = cache.clone();
            async move {
                cache.set("a", &1).await.unwrap();
                let alone = cache.clone();
                let task = tokio::spawn(async move { alone.set("b", &2).await });
                task.await.unwrap().unwrap();
                assert_eq!(stored(&cache, "b").await, Some(2));
                assert_eq!(stored(&cache, "a").await, None);
                Ok(Response::new(Body::empty()))
            }
        }
    };
    page(&cache, handler).oneshot(request()).await.unwrap();
}

/// Behind a real server, over a real socket: what it does with lengths and ends of bodies.
#[tokio::test]
async fn served_over_a_socket_it_is_the_same() {
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

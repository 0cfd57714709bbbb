//! Requests with named pages, which learn.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use onetrip::tower::PageLayer;
use onetrip::{Cache, Page};
use tower::{Layer, ServiceExt};

use crate::support::{remote, unlearned};

#[onetrip::cached(key = "{key}")]
async fn piece(cache: &Cache, key: &str) -> u32 {
    _ = (cache, key);
    1
}

/// Reads three pieces, as the page of a note does.
async fn note(cache: Cache, id: String) -> Response {
    for key in [&format!("markup:{id}"), &format!("comments:{id}"), "menu"] {
        piece(&cache, key).await;
    }
    match id.as_str() {
        "404" => (StatusCode::NOT_FOUND, "no such note").into_response(),
        _ => id.into_response(),
    }
}

fn app(cache: &Cache, layer: PageLayer) -> Router {
    let handler = {
        let cache = cache.clone();
        move |Path(id): Path<String>| note(cache.clone(), id)
    };
    let list = {
        let cache = cache.clone();
        async move || note(cache, "list".into()).await
    };
    Router::new()
        .route("/notes/{id}", get(handler.clone()).post(handler))
        .route("/", get(list))
        .layer(layer)
}

async fn answer(app: &Router, request: Request<Body>) -> StatusCode {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

fn ask(method: &str, path: &str, agent: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request
        .header("user-agent", agent)
        .body(Body::empty())
        .unwrap()
}

/// Returns how many trips a visit takes.
async fn visit(cache: &Cache, app: &Router, path: &str) -> usize {
    let (_, seen) = cache.watch(answer(app, ask("GET", path, "person"))).await;
    seen.trips()
}

/// Returns the learned routes with their numbers of visits.
fn routes(cache: &Cache) -> Vec<(String, u64)> {
    let pages = cache.pages().into_iter();
    let mut routes: Vec<_> = pages
        .map(|page| (page.route.to_string(), page.visits))
        .collect();
    routes.sort();
    routes
}

fn templates(cache: &Cache) -> Vec<String> {
    let page = cache.pages().swap_remove(0);
    let mut names: Vec<_> = page.templates.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn axum_route_and_its_parameters_name_a_page() {
    let cache = remote();
    let app = app(&cache, PageLayer::new(cache.clone()));
    assert_eq!(visit(&cache, &app, "/notes/5").await, 3);
    assert_eq!(visit(&cache, &app, "/notes/5").await, 1);
    for id in ["6", "7", "caf%C3%A9"] {
        assert_eq!(
            visit(&cache, &app, &format!("/notes/{id}")).await,
            1,
            "{id}"
        );
    }
    assert_eq!(templates(&cache), ["comments:{id}", "markup:{id}", "menu"]);
    assert_eq!(visit(&cache, &app, "/").await, 3);
    assert_eq!(visit(&cache, &app, "/").await, 1);
    let visits = [("/".to_owned(), 2), ("/notes/{id}".to_owned(), 5)];
    assert_eq!(routes(&cache), visits);
}

#[tokio::test]
async fn nested_route_has_its_full_path() {
    let cache = remote();
    let inner = app(&cache, PageLayer::new(cache.clone()));
    let app = Router::new().nest("/a", inner);
    for path in ["/a/notes/5", "/a/notes/6", "/a/notes/7"] {
        visit(&cache, &app, path).await;
    }
    assert_eq!(routes(&cache), [("/a/notes/{id}".to_owned(), 3)]);
    assert_eq!(visit(&cache, &app, "/a/notes/8").await, 1);
}

#[tokio::test]
async fn posts_and_failures_teach_nothing_and_are_not_slowed() {
    let cache = remote();
    let app = app(&cache, PageLayer::new(cache.clone()));
    for (method, path, status) in [
        ("POST", "/notes/5", StatusCode::OK),
        ("GET", "/notes/404", StatusCode::NOT_FOUND),
        ("GET", "/nowhere", StatusCode::NOT_FOUND),
    ] {
        for _ in 0..2 {
            assert_eq!(answer(&app, ask(method, path, "person")).await, status);
        }
        assert_eq!(routes(&cache), [], "{method} {path}");
    }
    answer(&app, ask("HEAD", "/notes/5", "person")).await;
    assert_eq!(visit(&cache, &app, "/notes/6").await, 1);
    // It brings no learned keys.
    let (_, seen) = cache
        .watch(answer(&app, ask("POST", "/notes/7", "person")))
        .await;
    assert!(seen.records().iter().all(|record| record.ops.len() == 1));
}

#[tokio::test]
async fn bots_teach_nothing_and_are_served_as_fast() {
    let cache = remote();
    let layer = PageLayer::new(cache.clone()).bots(|request| {
        let agent = request.headers.get("user-agent");
        agent.is_some_and(|agent| agent.as_bytes().starts_with(b"bot"))
    });
    let app = app(&cache, layer);
    let bot = async || {
        let visit = answer(&app, ask("GET", "/notes/5", "bot/1"));
        cache.watch(visit).await.1.trips()
    };
    assert_eq!([bot().await, bot().await], [3, 3]);
    assert_eq!(routes(&cache), []);
    for id in [6, 7] {
        visit(&cache, &app, &format!("/notes/{id}")).await;
    }
    assert_eq!(bot().await, 1);
    assert_eq!(routes(&cache), [("/notes/{id}".to_owned(), 2)]);
}

#[tokio::test]
async fn declared_parameters_and_facets_are_arguments() {
    let cache = remote();
    let handler = {
        let cache = cache.clone();
        async move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            let page = query.strip_prefix("page=").unwrap_or("1");
            let page = page.split('&').next().unwrap_or_default();
            for key in [&format!("list:{page}"), "menu:ada lovelace"] {
                piece(&cache, key).await;
            }
        }
    };
    let layer = PageLayer::new(cache.clone())
        .query(["page"])
        .facets(|_| [("user", "ada lovelace")]);
    let app = Router::new().route("/", get(handler)).layer(layer);
    for page in [21, 22, 23] {
        visit(&cache, &app, &format!("/?page={page}&token={page}0")).await;
    }
    assert_eq!(visit(&cache, &app, "/?page=24&token=5").await, 1);
    assert_eq!(templates(&cache), ["list:{page}", "menu:{user}"]);
}

#[tokio::test]
async fn application_may_name_its_pages() {
    let cache = remote();
    let layer = PageLayer::new(cache.clone()).name(|request| {
        let id = request.uri.path().strip_prefix("/notes/")?;
        Some(Page::new("note").arg("number", id))
    });
    let app = app(&cache, layer);
    for path in ["/notes/5", "/notes/6", "/"] {
        visit(&cache, &app, path).await;
    }
    assert_eq!(routes(&cache), [("note".to_owned(), 2)]);
    assert_eq!(visit(&cache, &app, "/notes/7").await, 1);
}

#[tokio::test]
async fn outer_of_two_layers_names_the_page() {
    let cache = remote();
    let app = app(&cache, PageLayer::new(cache.clone())).layer(PageLayer::new(cache.clone()));
    for id in [5, 6] {
        visit(&cache, &app, &format!("/notes/{id}")).await;
    }
    assert_eq!(routes(&cache), [("/notes/{id}".to_owned(), 2)]);
}

#[tokio::test]
async fn cancelled_and_failing_requests_teach_nothing() {
    let cache = remote();
    let named = || PageLayer::new(cache.clone()).name(|_| Some(Page::new("page")));
    let failing = {
        let cache = cache.clone();
        tower::service_fn(move |_: Request<Body>| {
            let cache = cache.clone();
            async move {
                cache.get::<u32>("a").await.unwrap();
                Err::<Response, _>("failed")
            }
        })
    };
    let failed = named().layer(failing).oneshot(ask("GET", "/", "person"));
    assert_eq!(failed.await.err(), Some("failed"));
    assert_eq!(routes(&cache), []);

    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let endless = {
        let (cache, begun) = (cache.clone(), Arc::clone(&begun));
        tower::service_fn(move |_: Request<Body>| {
            let (cache, begun) = (cache.clone(), Arc::clone(&begun));
            async move {
                cache.get::<u32>("a").await.unwrap();
                begun.add_permits(1);
                std::future::pending::<Result<Response, &str>>().await
            }
        })
    };
    let visit = named().layer(endless).oneshot(ask("GET", "/", "person"));
    let visit = tokio::spawn(visit);
    begun.acquire().await.unwrap().forget();
    visit.abort();
    assert!(visit.await.unwrap_err().is_cancelled());
    assert_eq!(routes(&cache), []);
}

#[tokio::test]
async fn cache_without_pages_asks_for_no_names() {
    let cache = unlearned();
    let layer = PageLayer::new(cache.clone()).name(|_| unreachable!("nobody learns"));
    let app = app(&cache, layer);
    assert_eq!(visit(&cache, &app, "/notes/5").await, 3);
    assert_eq!(routes(&cache), []);
}

use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Mutex;
use tower::ServiceExt;

use crate::comments::minute;
use crate::model::Notes;
use crate::settings::Settings;

const README: &str = "/notes/README.md";

/// Lets tests use the pages one at a time: a delete ends what every scope of the process holds
/// under that key, which would cost a test that counts trips an extra trip.
static TURN: Mutex<()> = Mutex::const_new(());

fn open() -> (Notes, Router) {
    let notes = Notes::open(&Settings::for_tests()).unwrap();
    (notes.clone(), crate::pages::app(notes).unwrap())
}

async fn read(app: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    answered(app, request).await
}

async fn write(app: &Router, path: &str, form: &'static str) -> (StatusCode, String) {
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form))
        .unwrap();
    answered(app, request).await
}

async fn answered(app: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn page_takes_one_trip_and_posts_its_results() {
    let _turn = TURN.lock().await;
    let (notes, app) = open();
    for path in ["/", README] {
        notes.cache.clear().await.unwrap();
        for is_cold in [true, false] {
            let ((status, page), seen) = notes.cache.watch(read(&app, path)).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            assert_eq!(seen.trips(), 1, "{path}");
            assert_eq!(seen.posted() > 0, is_cold, "{path}");
            let told = "<strong>1 trip</strong>";
            assert!(page.contains(told), "{page}");
        }
    }
    let pieces = 2 * notes.all().count();
    read(&app, "/").await;
    let (_, seen) = notes.cache.watch(read(&app, "/?preload=no")).await;
    assert_eq!(seen.trips(), pieces);
}

#[tokio::test]
async fn comment_shows_at_once_and_escaped() {
    let _turn = TURN.lock().await;
    let (notes, app) = open();
    assert!(read(&app, README).await.1.contains("No comments yet."));
    let (posted, seen) = notes
        .cache
        .watch(write(&app, README, "author=Ada&text=Well+%3Cb%3E"))
        .await;
    assert_eq!(posted.0, StatusCode::SEE_OTHER);
    assert_eq!(
        seen.records()[0].ops,
        [("delete", "notes:note_comments:README.md".to_owned())]
    );
    let (_, page) = read(&app, README).await;
    assert!(
        page.contains("<strong>Ada</strong>") && page.contains("Well &lt;b&gt;"),
        "{page}"
    );
}

#[tokio::test]
async fn missing_page_and_bad_comment_get_an_error_page() {
    let _turn = TURN.lock().await;
    let (_, app) = open();
    let (status, page) = read(&app, "/notes/no.md").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("There is no such note."), "{page}");
    let (status, page) = write(&app, README, "text=+").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("between 1 and 2000 characters"), "{page}");
    assert_eq!(read(&app, "/nowhere").await.0, StatusCode::NOT_FOUND);
}

#[test]
fn minute_is_written_as_in_python() {
    for (seconds, written) in [
        (0, "1970-01-01 00:00 UTC"),
        (951_782_399, "2000-02-28 23:59 UTC"),
        (951_868_799, "2000-02-29 23:59 UTC"),
        (951_868_800, "2000-03-01 00:00 UTC"),
        (1_798_761_599, "2026-12-31 23:59 UTC"),
        (4_107_542_400, "2100-03-01 00:00 UTC"),
    ] {
        assert_eq!(minute(UNIX_EPOCH + Duration::from_secs(seconds)), written);
    }
}

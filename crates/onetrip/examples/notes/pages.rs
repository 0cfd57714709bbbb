//! The pages. Each names its keys before it begins, and reads them in one trip.
//!
//! With `?preload=learned` a page names no keys and is known by its route: the keys that earlier
//! visits read come in one trip, even on a page that nobody has visited.
//!
//! `PageLayer` gives each request a scope, so computed results are posted: nobody waits until they
//! are stored.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use minijinja::{Environment, Value, context};
use onetrip::tower::PageLayer;
use serde::Deserialize;
use tower::ServiceExt;

use crate::model::Notes;
use crate::settings::project;
use crate::templates;

const LONGEST_COMMENT: usize = 2000;
const LONGEST_NAME: usize = 80;

#[derive(Clone)]
struct App {
    notes: Notes,
    templates: Arc<Environment<'static>>,
}

pub(crate) fn app(notes: Notes) -> Result<Router, String> {
    let style = std::fs::read_to_string(project().join("examples/notes/static/notes.css"))
        .map_err(|error| format!("the style of the pages cannot be read: {error}"))?;
    let style = ([(CONTENT_TYPE, "text/css; charset=utf-8")], style);
    let templates = Arc::new(templates::environment(notes.cache.clone()));
    let cache = notes.cache.clone();
    let without_scopes = Router::new()
        .route("/", get(index))
        .route("/notes/{*id}", get(show).post(comment))
        .route("/static/notes.css", get(async || style))
        .fallback(async |State(app): State<App>| {
            app.error(StatusCode::NOT_FOUND, "There is no such page.")
                .await
        })
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(App { notes, templates });
    let with_scopes = without_scopes.clone().layer(PageLayer::new(cache));
    // The same pages without scopes, to compare.
    Ok(Router::new().fallback(async move |request: Request| {
        let without = request.uri().query() == Some("preload=no");
        let pages = if without { without_scopes } else { with_scopes };
        pages.oneshot(request).await
    }))
}

#[derive(Deserialize)]
struct Asked {
    preload: Option<String>,
}

async fn index(State(app): State<App>, Query(asked): Query<Asked>) -> Response {
    let keys = app.notes.all().flat_map(|note| note.cache_keys()).collect();
    let notes: Vec<Value> = app.notes.all().map(templates::note).collect();
    let values = context! { title => "All notes", notes };
    app.page("index.html", keys, values, asked).await
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    let Some(note) = app.notes.get(&id) else {
        return app.no_such_note().await;
    };
    let values = context! { title => &note.title, note => templates::note(note) };
    app.page("note.html", note.cache_keys().into(), values, asked)
        .await
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    author: String,
    #[serde(default)]
    text: String,
}

async fn comment(
    State(app): State<App>,
    Path(id): Path<String>,
    Form(written): Form<Written>,
) -> Response {
    let Some(note) = app.notes.get(&id) else {
        return app.no_such_note().await;
    };
    let text = written.text.trim();
    if !(1..=LONGEST_COMMENT).contains(&text.chars().count()) {
        let message = format!("A comment has between 1 and {LONGEST_COMMENT} characters.");
        return app.error(StatusCode::BAD_REQUEST, &message).await;
    }
    let author: String = written.author.trim().chars().take(LONGEST_NAME).collect();
    let author = if author.is_empty() {
        "Anonymous"
    } else {
        &author
    };
    match note.add_comment(author, text).await {
        Ok(()) => {
            Redirect::to(&format!("{}#comments", templates::path_of(&note.id))).into_response()
        }
        Err(error) => {
            app.error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
                .await
        }
    }
}

impl App {
    /// Renders a page in a scope that preloads `keys`. Its footer counts the trips made so far.
    async fn page(
        &self,
        template: &'static str,
        keys: Vec<String>,
        values: Value,
        asked: Asked,
    ) -> Response {
        let cache = &self.notes.cache;
        let preloading = !matches!(asked.preload.as_deref(), Some("no" | "learned"));
        let asked =
            context! { request => context! { args => context! { preload => asked.preload } } };
        let values = context! { ..values, ..asked };
        let content = self.render(template, values.clone());
        let (content, seen) = cache
            .watch(async {
                match preloading {
                    true => cache.preload(keys, content).await,
                    false => content.await,
                }
            })
            .await;
        let records: Vec<Value> = seen.records().into_iter().map(templates::trip).collect();
        let seen = context! { trips => seen.trips(), posted => seen.posted(), records };
        let layout = async {
            let content = Value::from_safe_string(content?);
            self.render(
                "layout.html",
                context! { content, preloading, seen, ..values },
            )
            .await
        };
        match layout.await {
            Ok(page) => Html(page).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, told(&error)).into_response(),
        }
    }

    async fn render(
        &self,
        template: &'static str,
        values: Value,
    ) -> Result<String, minijinja::Error> {
        onetrip::minijinja::render(Arc::clone(&self.templates), template, values).await
    }

    async fn no_such_note(&self) -> Response {
        self.error(StatusCode::NOT_FOUND, "There is no such note.")
            .await
    }

    async fn error(&self, status: StatusCode, description: &str) -> Response {
        let name = status.canonical_reason().unwrap_or("Error");
        let values = context! {
            title => name,
            error => context! { name, description },
            request => context! { args => context! {} },
        };
        let page = async {
            let content = self.render("error.html", values.clone()).await?;
            let content = Value::from_safe_string(content);
            self.render("layout.html", context! { content, ..values })
                .await
        };
        let page = page.await.unwrap_or_else(|error| told(&error));
        (status, Html(page)).into_response()
    }
}

/// Returns a template's error with its place and its causes.
fn told(error: &minijinja::Error) -> String {
    format!("{error:#}")
}

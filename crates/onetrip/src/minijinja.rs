//! Cached fragments of minijinja templates.
//!
//! ```jinja
//! {% call cache(60, "note_comments", note.id) %} … {% endcall %}
//! ```
//!
//! renders its body at most once in 60 seconds for each `note.id`, under the key
//! `note_comments:<id>`. The first argument is the ttl in seconds; `none` never expires. All
//! arguments may be any expressions. Python's Jinja tag `{% cache 60, "note_comments", note.id %}`
//! shares the entry.
//!
//! ```
//! use std::sync::Arc;
//!
//! use minijinja::{Environment, context};
//! use onetrip::{Cache, fragment_key};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let cache = Cache::open("memory://")?;
//! let mut environment = Environment::new();
//! onetrip::minijinja::install(&mut environment, cache.clone());
//! environment.add_template(
//!     "note.html",
//!     r#"{% call cache(60, "note_comments", id) %}{{ comments | join(", ") }}{% endcall %}"#,
//! )?;
//! let environment = Arc::new(environment);
//!
//! let keys = [fragment_key("note_comments", [5])];
//! let page = cache.preload(keys, async {
//!     let values = context! { id => 5, comments => ["First!", "Second."] };
//!     onetrip::minijinja::render(environment, "note.html", values).await
//! });
//!
//! assert_eq!(page.await?, "First!, Second.");
//! let kept: Option<String> = cache.get("note_comments:5").await?;
//! assert_eq!(kept.as_deref(), Some("First!, Second."));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # In tasks
//!
//! Rendering a template does not await. A fragment that no scope holds must wait for the store,
//! which a task must not. So [`render`] renders on a thread that may wait, in the scopes of the
//! task. In a template rendered by the task itself, a fragment that no scope holds is a miss, and a
//! warning is logged.

use std::fmt::Display;
use std::ops::Deref;
use std::time::Duration;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::cache::Cache;
use crate::dispatch::OnError;
use crate::drive::Fetching;
use crate::fragment::fragment_key;
use crate::markup::Markup;
use crate::policy::Ttl;
use crate::python_text::{append_bool, append_float};
use crate::spawn::spawn_blocking;

/// Adds `cache(…)`, backed by `cache`, to the templates of `environment`.
pub fn install(environment: &mut Environment<'_>, cache: Cache) {
    environment.add_function(
        "cache",
        move |state: &mut State<'_, '_>, arguments: Rest<Value>, options: Kwargs| {
            fragment(&cache, state, &arguments, &options)
        },
    );
}

/// Renders a template on a thread that may wait for the store, in the scopes and under the watches
/// of the current task.
///
/// `environment` is an `Arc` or a `&'static` reference.
///
/// # Errors
///
/// Those of [`Environment::get_template`] and [`minijinja::Template::render`].
pub async fn render<E>(
    environment: E,
    template: impl Into<String>,
    values: impl Into<Value>,
) -> Result<String, Error>
where
    E: Deref<Target = Environment<'static>> + Send + 'static,
{
    let (template, values) = (template.into(), values.into());
    let rendered = spawn_blocking(move || environment.get_template(&template)?.render(values));
    match rendered.await {
        Ok(rendered) => rendered,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(mistake(
                "the runtime is shutting down, so no template can be rendered",
            )),
        },
    }
}

/// Implements `cache(ttl, name, vary_on…)` around the body of a `{% call %}`.
fn fragment(
    cache: &Cache,
    state: &mut State<'_, '_>,
    arguments: &[Value],
    options: &Kwargs,
) -> Result<Value, Error> {
    let [ttl, name, vary_on @ ..] = arguments else {
        return Err(mistake(
            "a fragment needs a ttl and a name: {% call cache(60, \"note_comments\", note.id) %}",
        ));
    };
    let Ok(body) = options.get::<Value>("caller") else {
        return Err(mistake(
            "cache(…) must be called as {% call cache(60, \"note_comments\", note.id) %} … {% endcall %}",
        ));
    };
    options.assert_all_used()?;
    let ttl = parse_ttl(ttl)?;
    let Some(name) = name.as_str() else {
        return Err(mistake(format!(
            "the name of a fragment must be a string, not {name:?}; write it after the ttl, as in cache(60, \"note_comments\", note.id)"
        )));
    };
    let parts = vary_on.iter().map(|part| text(name, part));
    let key = fragment_key(name, parts.collect::<Result<Vec<_>, _>>()?);

    let failed = |error| report(cache, &key, error);
    // Rendered output is markup, whether or not the template escapes.
    let render = || Ok(body.call(state, &[])?.to_string());
    let what = Fetching::new(key.as_bytes(), ttl);
    let markup: String = cache.fetch_blocking(what, render, failed)?;
    Ok(Value::from_safe_string(markup))
}

/// Reports an error of the cache. It ends the rendering only under [`OnError::Raise`]; otherwise
/// the page is rendered without the cache.
fn report(cache: &Cache, key: &str, error: crate::Error) -> Result<(), Error> {
    if cache.0.store.dispatcher.on_error() == OnError::Raise {
        let message = format!("the fragment {key:?}: {error}");
        return Err(mistake(message).with_source(error));
    }
    if error.kind() == crate::ErrorKind::Configuration {
        log::warn!(
            "the fragment {key:?} is not cached: no scope holds it, and a task cannot wait for the store; render with onetrip::minijinja::render, or preload the fragment's key"
        );
    } else {
        log::warn!("the fragment {key:?} is not cached: {error}");
    }
    Ok(())
}

fn parse_ttl(ttl: &Value) -> Result<Ttl, Error> {
    if ttl.is_none() {
        return Ok(Ttl::Never);
    }
    let seconds = match ttl.kind() {
        ValueKind::Number => f64::try_from(ttl.clone()).ok(),
        _ => None,
    };
    match seconds {
        // A negative ttl counts as zero.
        Some(seconds) if !seconds.is_nan() => {
            Ok(Duration::try_from_secs_f64(seconds.max(0.0)).map_or(Ttl::Never, Ttl::After))
        }
        _ => Err(mistake(format!(
            "the ttl of a fragment must be a number of seconds, or none to never expire, not {ttl:?}; write it first, as in cache(60, \"note_comments\", note.id)"
        ))),
    }
}

/// Returns the text of a value that a fragment varies on, as Python writes it.
fn text(name: &str, part: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match part.kind() {
        ValueKind::Undefined => {
            return Err(mistake(format!(
                "the fragment {name:?} varies on an undefined variable, so all pages would share one entry; correct its name, or define it"
            )));
        }
        ValueKind::None => text.push_str("None"),
        ValueKind::Bool => append_bool(part.is_true(), &mut text),
        ValueKind::Number if part.is_integer() => text = part.to_string(),
        ValueKind::Number => match f64::try_from(part.clone()) {
            Ok(number) => append_float(number, &mut text),
            Err(_) => text = part.to_string(),
        },
        ValueKind::String | ValueKind::Plain => text = part.to_string(),
        kind => {
            return Err(mistake(format!(
                "the fragment {name:?} varies on a {kind}, whose text differs between processes; use a string or a number, such as its id"
            )));
        }
    }
    Ok(text)
}

fn mistake(message: impl Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

/// Lets the code around a render fail with either error, as in [`Cache::preload`].
impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        mistake(&error).with_source(error)
    }
}

/// Converts to a string that templates do not escape.
impl From<Markup> for Value {
    fn from(markup: Markup) -> Self {
        Self::from_safe_string(markup.into_string())
    }
}

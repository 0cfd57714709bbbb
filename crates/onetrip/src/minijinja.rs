//! Cached pieces of minijinja templates.
//!
//! ```jinja
//! {% call cache(60, "note_comments", note.id) %} … {% endcall %}
//! ```
//!
//! renders its body at most once in 60 seconds for each `note.id`, under the key
//! `note_comments:<id>`. The first argument is the timeout in seconds, or `none` for ever; it and
//! the others may be any expressions. The entry is the one of Jinja's
//! `{% cache 60, "note_comments", note.id %}` in Python.
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
//! assert_eq!(page.await??, "First!, Second.");
//! let kept: Option<String> = cache.get("note_comments:5").await?;
//! assert_eq!(kept.as_deref(), Some("First!, Second."));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # In tasks
//!
//! Templates are rendered without awaiting. What a scope holds is read as it is; for anything else
//! the template has to wait for the store, which a task must not. [`render`] therefore renders on a
//! thread that may, within the scopes of the task. A template that is rendered in the task itself
//! takes a fragment that no scope holds for a miss, and says so in the log.

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

/// Makes `cache(…)` known to the templates of `environment`, with `cache` behind it.
pub fn install(environment: &mut Environment<'_>, cache: Cache) {
    environment.add_function(
        "cache",
        move |state: &mut State<'_, '_>, arguments: Rest<Value>, options: Kwargs| {
            fragment(&cache, state, &arguments, &options)
        },
    );
}

/// Renders a template on a thread that may wait for the store, within the scopes and under the
/// watches of this task.
///
/// `environment` is an `Arc` of one, or a `&'static`.
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
                "the runtime shuts down and renders no more templates",
            )),
        },
    }
}

/// `cache(ttl, name, vary_on…)` around the body of a `{% call %}`.
fn fragment(
    cache: &Cache,
    state: &mut State<'_, '_>,
    arguments: &[Value],
    options: &Kwargs,
) -> Result<Value, Error> {
    let [ttl, name, vary_on @ ..] = arguments else {
        return Err(mistake(
            "a fragment needs a timeout and a name: {% call cache(60, \"note_comments\", note.id) %}",
        ));
    };
    let Ok(body) = options.get::<Value>("caller") else {
        return Err(mistake(
            "cache(…) stands in {% call cache(60, \"note_comments\", note.id) %} … {% endcall %}, around what is cached",
        ));
    };
    options.assert_all_used()?;
    let ttl = parse_ttl(ttl)?;
    let Some(name) = name.as_str() else {
        return Err(mistake(format!(
            "the name of a fragment is a string, not {name:?}; it stands behind the ttl, as in cache(60, \"note_comments\", note.id)"
        )));
    };
    let parts = vary_on.iter().map(|part| text(name, part));
    let key = fragment_key(name, parts.collect::<Result<Vec<_>, _>>()?);

    let failed = |error| told(cache, &key, error);
    // What a template rendered is markup, whether or not it escapes.
    let render = || Ok(body.call(state, &[])?.to_string());
    let what = Fetching::new(key.as_bytes(), ttl);
    let markup: String = cache.fetch_blocking(what, render, failed)?;
    Ok(Value::from_safe_string(markup))
}

/// Takes an error of the cache. It ends the rendering only under [`OnError::Raise`]: a page is made
/// without its cache otherwise.
fn told(cache: &Cache, key: &str, error: crate::Error) -> Result<(), Error> {
    if cache.0.dispatcher.on_error() == OnError::Raise {
        let message = format!("the fragment {key:?}: {error}");
        return Err(mistake(message).with_source(error));
    }
    if error.kind() == crate::ErrorKind::Configuration {
        log::warn!(
            "the fragment {key:?} is not cached: it is rendered within a task, and no scope holds it; render with onetrip::minijinja::render, or preload the fragment's key"
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
        // Less than nothing is nothing.
        Some(seconds) if !seconds.is_nan() => {
            Ok(Duration::try_from_secs_f64(seconds.max(0.0)).map_or(Ttl::Never, Ttl::After))
        }
        _ => Err(mistake(format!(
            "a fragment lives for a number of seconds, or for ever with none, not {ttl:?}; it stands first, as in cache(60, \"note_comments\", note.id)"
        ))),
    }
}

/// What a fragment varies on, as Python would write it.
fn text(name: &str, part: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match part.kind() {
        ValueKind::Undefined => {
            return Err(mistake(format!(
                "the fragment {name:?} varies on a variable that is not defined, so all its pages would share one text; mend its name, or give it a value"
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
                "the fragment {name:?} varies on a {kind}, whose text is not the same everywhere; give strings and numbers, such as its id"
            )));
        }
    }
    Ok(text)
}

fn mistake(message: impl Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

/// Markup is not escaped.
impl From<Markup> for Value {
    fn from(markup: Markup) -> Self {
        Self::from_safe_string(markup.into_string())
    }
}

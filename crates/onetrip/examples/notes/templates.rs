//! The templates of `examples/notes`, unchanged except for the one with a cached fragment:
//! minijinja has no custom tags. Stands in for what the others expect from Flask.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, Serde, Value, from_args};
use minijinja::{Environment, Error, ErrorKind, State, path_loader};
use onetrip::{Cache, TripRecord};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::Note;
use crate::settings::project;

const OWN: &str = "examples/notes/templates";

/// Escapes everything but the characters that need no escape in the path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(crate) fn environment(cache: Cache) -> Environment<'static> {
    let mut environment = Environment::new();
    onetrip::minijinja::install(&mut environment, cache);
    let own = path_loader(Path::new(env!("CARGO_MANIFEST_DIR")).join(OWN));
    let shared = path_loader(project().join(OWN));
    environment.set_loader(move |name| match own(name)? {
        Some(template) => Ok(Some(template)),
        None => shared(name),
    });
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("url_for", url_for);
    environment.add_filter("excerpt", excerpt);
    environment.add_filter("truncate", truncate);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment
}

/// Returns the path of a note's page.
pub(crate) fn path_of(note_id: &str) -> String {
    format!("/notes/{}", utf8_percent_encode(note_id, PATH))
}

fn url_for(endpoint: &str, options: Kwargs) -> Result<String, Error> {
    let path = match endpoint {
        "index" => "/".to_owned(),
        "static" => format!("/static/{}", options.get::<&str>("filename")?),
        _ => path_of(options.get("note_id")?),
    };
    Ok(match options.get::<Option<&str>>("preload") {
        Ok(Some(preload)) => format!("{path}?preload={preload}"),
        _ => path,
    })
}

/// Returns the first paragraphs as plain text.
fn excerpt(markup: &str) -> String {
    let paragraphs = markup.split("<p>").skip(1);
    let paragraphs = paragraphs.filter_map(|rest| Some(rest.split_once("</p>")?.0));
    let text: Vec<&str> = paragraphs.take(3).collect();
    let text = minijinja_contrib::filters::striptags(text.join(" "));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Shortens a text to `length` characters, between words, as Jinja does.
fn truncate(text: &str, length: usize) -> String {
    const LEEWAY: usize = 5;
    const END: &str = "...";
    if text.chars().count() <= length + LEEWAY {
        return text.to_owned();
    }
    let cut: String = text.chars().take(length - END.len()).collect();
    cut.rsplit_once(' ')
        .map_or(cut.as_str(), |(whole, _)| whole)
        .to_owned()
        + END
}

/// Wraps a note for templates.
pub(crate) fn note(note: &Arc<Note>) -> Value {
    Value::from_object(Shown(Arc::clone(note)))
}

struct Shown(Arc<Note>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.id)
    }
}

impl Object for Shown {
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "id" => Some(Value::from(&self.0.id)),
            "title" => Some(Value::from(&self.0.title)),
            _ => None,
        }
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        let () = from_args(arguments)?;
        match method {
            "note_markup" => Ok(Value::from(self.0.note_markup())),
            "comments" => Ok(Value::from(Serde(self.0.comments()))),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Wraps a trip for templates. Its length is the number of its operations.
pub(crate) fn trip(record: TripRecord) -> Value {
    Value::from_object(Trip(record))
}

#[derive(Debug)]
struct Trip(TripRecord);

impl Object for Trip {
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let record = &self.0;
        Some(match key {
            "store" => Value::from(&*record.store),
            "seconds" => Value::from(record.took.as_secs_f64()),
            "bytes_in" => Value::from(record.bytes_in),
            "bytes_out" => Value::from(record.bytes_out),
            "failed" => Value::from(record.failed),
            "posted" => Value::from(record.posted),
            "ops" => Value::from(Serde(&record.ops)),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len)
    }
}

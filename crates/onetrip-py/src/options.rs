//! Passes Python's keyword options to the core's builder. Unset options keep the core's defaults.

use onetrip::internals::DEFAULT_URL;
use onetrip::{Builder, Cache, Compression, OnError, PageMode, Serializer, Ttl};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::error::{Result, configuration, shown};
use crate::timeout::{Timeout, span};

/// The options, in the order of the documentation.
const NAMES: &[&str] = &[
    "prefix",
    "timeout",
    "serializer",
    "secret",
    "compression",
    "compression_min",
    "on_error",
    "connect_timeout",
    "trip_timeout",
    "scope_max_age",
    "read_max_age",
    "debug",
    "pages",
    "page_keys",
    "page_bytes",
];

const TEXT: &str = "a string that UTF-8 can hold";

/// Opens a cache.
pub(crate) fn open(
    url: Option<&Bound<'_, PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> Result<Cache> {
    let url = url.map(|url| typed("url", url, TEXT)).transpose()?;
    let mut builder = Cache::builder(url.unwrap_or_else(|| DEFAULT_URL.to_owned()));
    for (name, value) in options.into_iter().flatten() {
        builder = apply(builder, &name.extract::<String>()?, &value)?;
    }
    Ok(builder.build()?)
}

fn apply(builder: Builder, name: &str, value: &Bound<'_, PyAny>) -> Result<Builder> {
    Ok(match name {
        "prefix" => builder.prefix(typed::<String>(name, value, TEXT)?),
        "timeout" => builder.ttl(match value.extract::<Timeout>()?.0 {
            Ttl::After(span) => Some(span),
            _ => None,
        }),
        "serializer" => builder.serializer(one_of(
            name,
            value,
            &[
                ("native", Serializer::Native),
                ("pickle", Serializer::Pickle),
                ("raw", Serializer::Raw),
            ],
        )?),
        "secret" => builder.secrets(secrets(value)?),
        "compression" if value.is_none() => builder.compression(None),
        "compression" => builder.compression(Some(one_of(
            name,
            value,
            &[("zstd", Compression::Zstd), ("lz4", Compression::Lz4)],
        )?)),
        "compression_min" => builder.compression_min(typed(name, value, "a number of bytes")?),
        "on_error" => builder.on_error(one_of(
            name,
            value,
            &[("miss", OnError::Miss), ("raise", OnError::Raise)],
        )?),
        "connect_timeout" => builder.connect_timeout(span(name, value)?),
        "trip_timeout" => builder.trip_timeout(span(name, value)?),
        "scope_max_age" => builder.scope_max_age(span(name, value)?),
        "read_max_age" => builder.read_max_age(span(name, value)?),
        "debug" => builder.debug(typed(name, value, "True or False")?),
        "pages" => builder.pages(one_of(
            name,
            value,
            &[
                ("preload", PageMode::Preload),
                ("shadow", PageMode::Shadow),
                ("off", PageMode::Off),
            ],
        )?),
        "page_keys" => builder.page_keys(typed(name, value, "a number of keys")?),
        "page_bytes" => builder.page_bytes(typed(name, value, "a number of bytes")?),
        _ => {
            return Err(configuration(format!(
                "Cache has no option {name:?}; it has {}",
                NAMES.join(", ")
            )));
        }
    })
}

fn typed<'py, T>(name: &str, value: &Bound<'py, PyAny>, expected: &str) -> Result<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value
        .extract()
        .map_err(|_| configuration(format!("{name}={} is not {expected}", shown(value))))
}

fn one_of<T: Copy>(name: &str, value: &Bound<'_, PyAny>, choices: &[(&str, T)]) -> Result<T> {
    let given = value.extract::<String>().ok();
    let chosen = choices
        .iter()
        .find(|(choice, _)| given.as_deref() == Some(choice));
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let known: Vec<String> = choices
            .iter()
            .map(|(choice, _)| format!("{choice:?}"))
            .collect();
        let given = shown(value);
        configuration(format!("{name}={given} is not one of {}", known.join(", ")))
    })
}

/// Returns the secrets: none, one, or several of which the first signs and all are accepted.
fn secrets(value: &Bound<'_, PyAny>) -> Result<Vec<Vec<u8>>> {
    if value.is_none() {
        return Ok(Vec::new());
    }
    if let Some(secret) = secret(value) {
        return Ok(vec![secret]);
    }
    let wrong = || {
        configuration(
            "secret= must be a string, bytes, or a list of these; the first one signs".into(),
        )
    };
    value
        .try_iter()
        .map_err(|_| wrong())?
        .map(|one| secret(&one?).ok_or_else(wrong))
        .collect()
}

fn secret(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Some(text.to_str().ok()?.as_bytes().to_vec());
    }
    Some(value.cast::<PyBytes>().ok()?.as_bytes().to_vec())
}

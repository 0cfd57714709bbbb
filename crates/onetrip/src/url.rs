//! The URLs that name stores, and the options in them.

use std::time::Duration;

use url::{ParseError, Url};

use crate::error::{Error, Result};

/// A parsed store URL. Each store takes the options it knows; one that is left over is an error.
#[derive(Clone, Debug)]
pub(crate) struct StoreUrl {
    url: Url,
    options: Vec<(String, String)>,
}

impl StoreUrl {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let url = Url::parse(text).or_else(|error| match error {
            // A socket has no host, but may have a user: the parser wants both or neither.
            ParseError::EmptyHost => Url::parse(&text.replacen("@/", "@localhost/", 1)),
            error => Err(error),
        });
        let url = url.map_err(|error| {
            Error::configuration(format!(
                "{:?} is not a URL of a store ({error}); write one such as \"memory://\" or \"redis://127.0.0.1:6379/0\"",
                without_login(text)
            ))
        })?;
        let options = url.query_pairs().into_owned().collect();
        Ok(Self { url, options })
    }

    pub(crate) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// The host, as an address or a name.
    pub(crate) fn host(&self) -> Option<String> {
        self.url
            .host_str()
            .map(|host| decode(host.trim_matches(['[', ']'])))
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.url.port()
    }

    pub(crate) fn path(&self) -> String {
        decode(self.url.path())
    }

    pub(crate) fn username(&self) -> Option<String> {
        let name = self.url.username();
        (!name.is_empty()).then(|| decode(name))
    }

    pub(crate) fn password(&self) -> Option<String> {
        self.url.password().map(decode)
    }

    /// The URL without its password and options, to be printed.
    pub(crate) fn label(&self) -> String {
        let mut url = self.url.clone();
        // Refused only by URLs that cannot have a password, which have none to hide.
        let _ = url.set_password(None);
        url.set_query(None);
        url.to_string()
    }

    /// Takes option `name`, if it is given.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.options.iter().position(|(given, _)| given == name)?;
        Some(self.options.remove(index).1)
    }

    /// Takes option `name` and reads it with `parse`, which says what it expects.
    pub(crate) fn take_as<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        parse(&value).map(Some).map_err(|expected| {
            Error::configuration(format!(
                "option {name}={value} of {}: expected {expected}",
                self.label()
            ))
        })
    }

    /// Ends taking: what is left is not an option of this store.
    pub(crate) fn finish(&self, known: &[&str]) -> Result<()> {
        match self.options.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::configuration(format!(
                "{} has no option {name:?}; it has {}",
                self.label(),
                list(known)
            ))),
        }
    }

    pub(crate) fn unknown_scheme(&self, known: &[&str]) -> Error {
        let known: Vec<String> = known.iter().map(|scheme| format!("{scheme}://")).collect();
        Error::configuration(format!(
            "no store is named {}://; onetrip has {}",
            self.scheme(),
            known.join(", ")
        ))
    }
}

/// What cannot be parsed, with whatever may be a password in it left out.
fn without_login(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.to_owned(),
    }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// A list of names for a message: `size, latency`.
pub(crate) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// Bytes, written as `1048576`, `64MB` or `256MiB`.
pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a size such as 64MB, 256MiB or 1GiB, of one byte or more";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(EXPECTED),
    };
    let number: u64 = digits.parse().map_err(|_| EXPECTED)?;
    number
        .checked_mul(unit)
        .filter(|size| *size > 0)
        .ok_or(EXPECTED)
}

/// A span of time, written as `500us`, `2ms` or `1.5s`.
pub(crate) fn span(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a span of time such as 500us, 2ms or 1.5s";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(EXPECTED),
    };
    let number: f64 = digits.parse().map_err(|_| EXPECTED)?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| EXPECTED)
}

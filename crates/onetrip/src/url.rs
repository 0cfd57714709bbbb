//! Parsing the URLs of stores and their options.

use std::borrow::Cow;
use std::time::Duration;

use url::{ParseError, Position, Url};

use crate::error::{Error, Result};

/// A parsed store URL. Each store takes the options it knows; one that is left over is an error.
#[derive(Clone, Debug)]
pub(crate) struct StoreUrl {
    /// The URL, of its first host alone.
    url: Url,
    /// The other hosts, each as a URL of nothing else.
    others: Vec<Url>,
    options: Vec<(String, String)>,
}

#[cfg_attr(
    not(all(feature = "redis", feature = "memcached")),
    allow(dead_code, reason = "each store reads its own parts of a URL")
)]
impl StoreUrl {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (first, others) = first_host(text);
        let url = parse(&first)?;
        let scheme = url.scheme();
        let others = others
            .into_iter()
            .map(|host| parse(&format!("{scheme}://{host}")))
            .collect::<Result<_>>()?;
        let options = url.query_pairs().into_owned().collect();
        Ok(Self {
            url,
            others,
            options,
        })
    }

    pub(crate) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// The host, as an address or a name; the first, if there is a list.
    pub(crate) fn host(&self) -> Option<String> {
        host(&self.url)
    }

    /// All hosts of a list such as `h1:11211,h2,[::1]:11211`, each with its port.
    pub(crate) fn hosts(&self) -> Vec<(String, Option<u16>)> {
        std::iter::once(&self.url)
            .chain(&self.others)
            .filter_map(|url| Some((host(url)?, url.port())))
            .collect()
    }

    /// This URL, if it has no list of hosts.
    pub(crate) fn of_one_host(&self) -> Result<&Self> {
        if self.others.is_empty() {
            return Ok(self);
        }
        Err(Error::configuration(format!(
            "{} has a list of hosts, and {}:// takes one",
            self.label(),
            self.scheme()
        )))
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
        let (mut label, path) = (
            url[..Position::AfterPort].to_owned(),
            &url[Position::AfterPort..],
        );
        for other in &self.others {
            label.push(',');
            label.push_str(&other[Position::BeforeHost..Position::AfterPort]);
        }
        label + path
    }

    /// Takes the option `name`. `None` if it is not given.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.options.iter().position(|(given, _)| given == name)?;
        Some(self.options.remove(index).1)
    }

    /// Takes the option `name` and parses it. The error of `parse` says what it expects.
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

    /// Checks that no option is left: it would not be one of this store's.
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

fn parse(text: &str) -> Result<Url> {
    let url = Url::parse(text).or_else(|error| match error {
        // A socket has no host, but may have a user: the parser wants both or neither.
        ParseError::EmptyHost => Url::parse(&text.replacen("@/", "@localhost/", 1)),
        error => Err(error),
    });
    url.map_err(|error| {
        Error::configuration(format!(
            "{:?} is not a URL of a store ({error}); write one such as \"memory://\" or \"redis://127.0.0.1:6379/0\"",
            without_login(text)
        ))
    })
}

/// Returns `text`, which cannot be parsed, without anything that may be a password.
fn without_login(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.to_owned(),
    }
}

/// Splits a URL with a list of hosts, which is no URL to others, into one of the first host and
/// the other hosts.
fn first_host(text: &str) -> (Cow<'_, str>, Vec<&str>) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return (text.into(), Vec::new());
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let login = authority.rfind('@').map_or(0, |at| at + 1);
    let (login, hosts) = authority.split_at(login);
    match hosts.split_once(',') {
        None => (text.into(), Vec::new()),
        Some((first, others)) => (
            format!("{scheme}://{login}{first}{path}").into(),
            others.split(',').collect(),
        ),
    }
}

fn host(url: &Url) -> Option<String> {
    url.host_str()
        .map(|host| decode(host.trim_matches(['[', ']'])))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// Returns a list of names for a message: `size, latency`.
pub(crate) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// Parses a number of bytes, such as `1048576`, `64MB` or `256MiB`.
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

/// Parses a span of time, such as `500us`, `2ms` or `1.5s`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_hosts_are_parsed() {
        let hosts = |text| StoreUrl::parse(text).unwrap().hosts();
        let host = |host: &str, port| (host.to_owned(), port);
        assert_eq!(hosts("x:///path"), []);
        assert_eq!(hosts("x://"), []);
        assert_eq!(hosts("x://h1"), [host("h1", None)]);
        assert_eq!(
            hosts("x://u:p,q@h1:1,[::1]:2,[fe80::1],h4/a,b?c=d,e"),
            [
                host("h1", Some(1)),
                host("::1", Some(2)),
                host("fe80::1", None),
                host("h4", None),
            ]
        );
        for wrong in [
            "x://a,b:port",
            "x://a:1,b:99999",
            "x://a,[::1",
            "x://a,b/,c:z,",
        ] {
            let read = StoreUrl::parse(wrong);
            assert_eq!(read.is_ok(), wrong.ends_with("z,"), "{wrong}");
        }
    }

    #[test]
    fn a_label_has_all_hosts_and_no_password() {
        let label = |text| StoreUrl::parse(text).unwrap().label();
        assert_eq!(
            label("x://u:s3cret@h1:1,[::1]:2,h3/a?b=c"),
            "x://u@h1:1,[::1]:2,h3/a"
        );
        assert_eq!(label("x+unix:///run/a,b.sock"), "x+unix:///run/a,b.sock");
        assert!(StoreUrl::parse("x://h1,h2").unwrap().of_one_host().is_err());
    }
}

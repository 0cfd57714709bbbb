//! Parsing the URLs of stores and their options.

use std::net::Ipv6Addr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// A parsed store URL. Each store takes the options it knows; one that is left over is an error.
///
/// These URLs are read here and not by the crate `url`. They may list hosts, as no other URL does,
/// and their hosts are never of the web, so tables of Unicode would come along for nothing.
#[derive(Clone, Debug)]
pub(crate) struct StoreUrl {
    scheme: String,
    username: Option<String>,
    password: Option<String>,
    hosts: Vec<(String, Option<u16>)>,
    path: String,
    options: Vec<(String, String)>,
    label: String,
}

#[cfg_attr(
    not(all(feature = "redis", feature = "memcached")),
    allow(dead_code, reason = "each store reads its own parts of a URL")
)]
impl StoreUrl {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        parse(text).map_err(|why| {
            Error::configuration(format!(
                "{:?} is not a URL of a store ({why}); write one such as \"memory://\" or \"redis://127.0.0.1:6379/0\"",
                without_login(text)
            ))
        })
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, as an address or a name; the first, if there is a list.
    pub(crate) fn host(&self) -> Option<String> {
        self.hosts.first().map(|(host, _)| host.clone())
    }

    /// All hosts of a list such as `h1:11211,h2,[::1]:11211`, each with its port.
    pub(crate) fn hosts(&self) -> Vec<(String, Option<u16>)> {
        self.hosts.clone()
    }

    /// This URL, if it has no list of hosts.
    pub(crate) fn of_one_host(&self) -> Result<&Self> {
        if self.hosts.len() <= 1 {
            return Ok(self);
        }
        Err(Error::configuration(format!(
            "{} has a list of hosts, and {}:// takes one",
            self.label(),
            self.scheme()
        )))
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.hosts.first().and_then(|(_, port)| *port)
    }

    pub(crate) fn path(&self) -> String {
        decode(&self.path)
    }

    pub(crate) fn username(&self) -> Option<String> {
        self.username.clone()
    }

    pub(crate) fn password(&self) -> Option<String> {
        self.password.clone()
    }

    /// The URL without its password and options, to be printed.
    pub(crate) fn label(&self) -> String {
        self.label.clone()
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
}

/// Reads `scheme://username:password@host:port,host:port/path?option=value`. Refuses with what is
/// wrong.
fn parse(text: &str) -> Result<StoreUrl, String> {
    let (scheme, rest) = text.split_once(':').ok_or("it has no scheme")?;
    let begins_well = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    if !begins_well || !scheme.chars().all(is_of_a_scheme) {
        return Err("it has no scheme".into());
    }
    let rest = match rest {
        "" => "",
        rest => rest
            .strip_prefix("//")
            .ok_or("\"//\" must follow its scheme")?,
    };
    if rest.contains('#') {
        return Err("a \"#\" in it must be written as %23".into());
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (login, list) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let scheme = scheme.to_ascii_lowercase();
    let at = if username.is_empty() { "" } else { "@" };
    Ok(StoreUrl {
        label: format!("{scheme}://{username}{at}{list}{path}"),
        scheme,
        username: some(username),
        password: some(password),
        hosts: list
            .split(',')
            .map(|host| {
                host_and_port(host).map_err(|why| match path.contains('@') {
                    // Then this is a part of the login.
                    true => "a \"/\" in its login must be written as %2F".to_owned(),
                    false => format!("{host:?} {why}"),
                })
            })
            .filter_map(Result::transpose)
            .collect::<Result<_, String>>()?,
        path: path.to_owned(),
        options: query.split('&').filter_map(option).collect(),
    })
}

fn is_of_a_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// The decoded text, unless it is empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| decode(text))
}

/// Reads one of a list of hosts; none, where there is nothing.
fn host_and_port(text: &str) -> Result<Option<(String, Option<u16>)>, &'static str> {
    const NO_PORT: &str = "has a port that is no number up to 65535";
    let text = text.trim();
    let (host, port) = if let Some(address) = text.strip_prefix('[') {
        let (address, port) = address.split_once(']').ok_or("lacks a \"]\"")?;
        let address: Ipv6Addr = address.parse().map_err(|_| "is no IPv6 address")?;
        (address.to_string(), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "[]<>\\^|".contains(c);
        if host.contains(is_odd) {
            return Err("has characters that no host has");
        }
        (decode(host), port)
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = match digits {
        "" => None,
        digits if is_number && port.starts_with(':') => Some(digits.parse().map_err(|_| NO_PORT)?),
        _ => return Err(NO_PORT),
    };
    match host.is_empty() {
        true if text.is_empty() => Ok(None),
        true => Err("has a port and no host"),
        false => Ok(Some((host, port))),
    }
}

/// Reads `name=value` of a query, where a space may be a plus.
fn option(text: &str) -> Option<(String, String)> {
    let plain = |text: &str| decode(&text.replace('+', " "));
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (!text.is_empty()).then(|| (plain(name), plain(value)))
}

/// Returns `text`, which cannot be parsed, without anything that may be a password.
fn without_login(text: &str) -> String {
    let Some((login, rest)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match (login.split_once("://"), login.split_once(':')) {
        (Some((scheme, _)), _) => format!("{scheme}://…@{rest}"),
        (None, Some((scheme, _))) => format!("{scheme}:…@{rest}"),
        (None, None) => format!("…@{rest}"),
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
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
    fn parts_are_decoded_and_a_login_needs_no_host() {
        let url = StoreUrl::parse(" X+Unix://u%40:p@q:@/a%20b?c=d+e&&f=%26 ").unwrap();
        assert_eq!(url.scheme(), "x+unix");
        assert_eq!(url.username().as_deref(), Some("u@"));
        assert_eq!(url.password().as_deref(), Some("p@q:"));
        assert_eq!((url.host(), url.port()), (None, None));
        assert_eq!(url.path(), "/a b");
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(url.options, [option("c", "d e"), option("f", "&")]);
    }

    #[test]
    fn what_is_no_url_is_told_why() {
        for (wrong, why) in [
            ("h1", "no scheme"),
            ("1x://h1", "no scheme"),
            ("h1:6379", "\"//\" must follow"),
            ("x://h1#a", "%23"),
            ("x://:1", "port and no host"),
            ("x://u@:1", "port and no host"),
            ("x://h1:+1", "port that is no number"),
            ("x://h1:65536", "port that is no number"),
            ("x://[::1]1", "port that is no number"),
            ("x://[::1%eth0]", "is no IPv6 address"),
            ("x://[::1", "lacks a \"]\""),
            ("x://a b", "characters"),
            ("x://a^b", "characters"),
        ] {
            let error = StoreUrl::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn errors_show_no_password() {
        for wrong in [
            "x:/u:s3cret@h",
            "x:u:s3cret@h",
            "u:s3cret@h",
            "x://u:s3cret#@h",
            "x://u:s3cret/@h",
            "x://u:s3cret@h:port",
            "x://u:s3cret@a b",
        ] {
            let error = StoreUrl::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{wrong}: {error}");
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

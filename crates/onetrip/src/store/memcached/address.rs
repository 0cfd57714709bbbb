//! Where Memcached's servers are, by their URL.

use std::fmt;
use std::path::PathBuf;

use super::ring::DEFAULT_PORT;
use crate::error::{Error, Result};
use crate::url::StoreUrl;

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Address {
    /// The host and port that its points on the ring are made from.
    pub(super) fn on_ring(&self) -> (String, u16) {
        match self {
            Self::Tcp(host, port) => (host.clone(), *port),
            Self::Unix(path) => (path.to_string_lossy().into_owned(), 0),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => {
                write!(f, "memcached://[{host}]:{port}")
            }
            Self::Tcp(host, port) => write!(f, "memcached://{host}:{port}"),
            Self::Unix(path) => write!(f, "memcached+unix://{}", path.display()),
        }
    }
}

/// The servers of `memcached://h1:11211,h2:11211`, or the one of `memcached+unix:///path`.
pub(super) fn addresses(url: &StoreUrl) -> Result<Vec<Address>> {
    let label = url.label();
    url.finish(&[])?;
    if url.username().is_some() || url.password().is_some() {
        return Err(Error::configuration(format!(
            "{label} has a login, and none is shown to Memcached; let its network keep others out"
        )));
    }
    let path = url.path();
    let path = path.trim_end_matches('/');
    if url.scheme().ends_with("+unix") {
        return match (path, url.host()) {
            ("", _) | (_, Some(_)) => Err(Error::configuration(format!(
                "{label} names no socket; write its path, as in memcached+unix:///run/memcached.sock"
            ))),
            (path, None) => Ok(vec![Address::Unix(path.into())]),
        };
    }
    if !path.is_empty() {
        return Err(Error::configuration(format!(
            "{label} has a path, and Memcached has no databases; give the cache a prefix"
        )));
    }
    let mut addresses: Vec<Address> = Vec::new();
    for (host, port) in url.hosts() {
        let address = Address::Tcp(host, port.unwrap_or(DEFAULT_PORT));
        if addresses.contains(&address) {
            return Err(Error::configuration(format!(
                "{label} names {address} twice"
            )));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        addresses.push(Address::Tcp("127.0.0.1".into(), DEFAULT_PORT));
    }
    Ok(addresses)
}

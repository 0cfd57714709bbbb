//! Redis URLs: where servers are, and what to show them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::slots::Address;
use super::tls::{self, Certificates};
use crate::error::{Error, Result};
use crate::url::StoreUrl;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What a URL names.
pub(super) enum Target {
    /// One server.
    Server(Door),
    /// The primary of a service, which these sentinels know.
    Service {
        sentinels: Vec<Door>,
        service: String,
        primary: Greeting,
    },
    /// A cluster, to be entered at any of these nodes.
    Cluster {
        seeds: Vec<Address>,
        greeting: Greeting,
    },
}

/// One server, and how to come in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) place: Endpoint,
    pub(super) greeting: Greeting,
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Host(Address),
    Path(PathBuf),
}

/// What to show to a server, wherever it listens: login, database, certificates.
#[derive(Clone, Default)]
pub(super) struct Greeting {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: u64,
    /// If it is to be spoken to by TLS.
    pub(super) certificates: Option<Arc<Certificates>>,
}

/// Without the password.
impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting")
            .field("username", &self.username)
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

impl Greeting {
    /// The door of the server that listens at `address`.
    pub(super) fn door(&self, address: &Address) -> Door {
        Door {
            place: Endpoint::Host(address.clone()),
            greeting: self.clone(),
        }
    }
}

/// Reads `redis://user:password@host:port/db`, `rediss://…` for TLS, `redis+unix:///path?db=0` for
/// a socket, `redis+sentinel://host,host/service/db` or `redis+cluster://host,host`.
pub(super) fn target(url: &StoreUrl) -> Result<Target> {
    let mut url = url.clone();
    let mut known = vec!["db"];
    let mut greeting = Greeting {
        username: url.username(),
        password: url.password(),
        ..Greeting::default()
    };
    let (product, kind) = url.scheme().split_once('+').unwrap_or((url.scheme(), ""));
    let (kind, is_tls) = (kind.to_owned(), matches!(product, "rediss" | "valkeys"));
    let many = matches!(kind.as_str(), "sentinel" | "cluster");
    let is_tls = if many {
        known.push("ssl");
        url.take_as("ssl", boolean)?.unwrap_or(is_tls)
    } else {
        is_tls
    };
    if is_tls {
        known.extend(tls::OPTIONS);
        greeting.certificates = Some(tls::certificates(&mut url)?);
    }
    let target = match kind.as_str() {
        "unix" => {
            greeting.db = database(&mut url, "")?;
            Target::Server(Door {
                place: socket(&url)?,
                greeting,
            })
        }
        "sentinel" => {
            known.extend(["sentinel_username", "sentinel_password"]);
            let path = url.path();
            let (service, in_path) = service(&url, &path)?;
            greeting.db = database(&mut url, in_path)?;
            let to_sentinels = Greeting {
                username: url.take("sentinel_username"),
                password: url.take("sentinel_password"),
                certificates: greeting.certificates.clone(),
                db: 0,
            };
            let sentinels = addresses(&url, SENTINEL_PORT);
            Target::Service {
                sentinels: sentinels.iter().map(|at| to_sentinels.door(at)).collect(),
                service,
                primary: greeting,
            }
        }
        "cluster" => {
            let path = url.path();
            if database(&mut url, &path)? != 0 {
                return Err(Error::configuration(format!(
                    "{} names a database, and a cluster has number 0 alone; use a prefix instead",
                    url.label()
                )));
            }
            Target::Cluster {
                seeds: addresses(&url, PORT),
                greeting,
            }
        }
        _ => {
            let path = url.path();
            greeting.db = database(&mut url, &path)?;
            match addresses(&url, PORT).as_slice() {
                [address] => Target::Server(greeting.door(address)),
                _ => {
                    return Err(Error::configuration(format!(
                        "{} has a list of hosts, and {}:// takes one; write redis+cluster:// or redis+sentinel:// for what they are",
                        url.label(),
                        url.scheme()
                    )));
                }
            }
        }
    };
    url.finish(&known)?;
    Ok(target)
}

/// Where the servers of a URL listen; this machine, where it names none.
fn addresses(url: &StoreUrl, default_port: u16) -> Vec<Address> {
    let mut hosts = url.hosts();
    if hosts.is_empty() {
        hosts.push(("127.0.0.1".into(), url.port()));
    }
    let addresses = hosts.into_iter().map(|(host, port)| Address {
        host,
        port: port.unwrap_or(default_port),
    });
    addresses.collect()
}

/// The name of the service in a path such as `/service/db`, and what follows it.
fn service<'a>(url: &StoreUrl, path: &'a str) -> Result<(String, &'a str)> {
    let path = path.trim_start_matches('/');
    let (service, rest) = path.split_once('/').unwrap_or((path, ""));
    if service.is_empty() {
        return Err(Error::configuration(format!(
            "{} names no service; write the one that the sentinels watch, as in redis+sentinel://host:26379/mymaster/0",
            url.label()
        )));
    }
    Ok((service.to_owned(), rest))
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false"),
    }
}

fn socket(url: &StoreUrl) -> Result<Endpoint> {
    match url.path().as_str() {
        "" | "/" => Err(Error::configuration(format!(
            "{} names no socket; write its path, as in redis+unix:///run/redis.sock?db=0",
            url.label()
        ))),
        path => Ok(Endpoint::Path(path.into())),
    }
}

/// The number of the database: the path of the URL, or its option `db`.
fn database(url: &mut StoreUrl, in_path: &str) -> Result<u64> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| "the number of a database, as in redis://host/0")
    };
    let in_path = match in_path.trim_matches('/') {
        "" => 0,
        path => number(path).map_err(|expected| {
            Error::configuration(format!("the path of {} is not {expected}", url.label()))
        })?,
    };
    Ok(url.take_as("db", number)?.unwrap_or(in_path))
}

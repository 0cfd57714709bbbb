//! Redis URLs as redis-rs wants them.

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use super::slots::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::url::StoreUrl;

/// The schemes of this store.
pub(crate) const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "redis+unix",
    "redis+sentinel",
    "redis+cluster",
    "valkey",
    "valkeys",
    "valkey+unix",
    "valkey+sentinel",
    "valkey+cluster",
];

const TLS_OPTIONS: &[&str] = &["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What a URL names.
pub(super) enum Target {
    /// One server.
    Server(Client),
    /// The primary of a service, which these sentinels know.
    Service {
        sentinels: Vec<Client>,
        service: String,
        primary: Greeting,
    },
    /// A cluster, to be entered at any of these nodes.
    Cluster {
        seeds: Vec<Address>,
        greeting: Greeting,
    },
}

/// What to show to a server, wherever it listens: login, database, certificates.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    settings: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
    label: String,
}

impl Greeting {
    fn new(url: &StoreUrl, username: Option<String>, password: Option<String>) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        Self {
            settings,
            certificates: None,
            label: url.label(),
        }
    }

    /// The client for the server that listens at `address`.
    pub(super) fn client(&self, address: &Address) -> Result<Client> {
        let (host, port) = (address.host.clone(), address.port);
        self.client_at(if self.certificates.is_some() {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        })
    }

    fn client_at(&self, address: ConnectionAddr) -> Result<Client> {
        let unusable = |error: RedisError| {
            Error::with_source(
                ErrorKind::Configuration,
                format!("{} cannot be used: {error}", self.label),
                error,
            )
        };
        let info = address
            .into_connection_info()
            .map_err(unusable)?
            .set_redis_settings(self.settings.clone())
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
        .map_err(unusable)
    }
}

/// Reads `redis://user:password@host:port/db`, `rediss://…` for TLS, `redis+unix:///path?db=0` for
/// a socket, `redis+sentinel://host,host/service/db` or `redis+cluster://host,host`.
pub(super) fn target(url: &StoreUrl) -> Result<Target> {
    let mut url = url.clone();
    let mut known = vec!["db"];
    let mut greeting = Greeting::new(&url, url.username(), url.password());
    let (product, kind) = url.scheme().split_once('+').unwrap_or((url.scheme(), ""));
    let (kind, tls) = (kind.to_owned(), matches!(product, "rediss" | "valkeys"));
    let many = matches!(kind.as_str(), "sentinel" | "cluster");
    let tls = if many {
        known.push("ssl");
        url.take_as("ssl", boolean)?.unwrap_or(tls)
    } else {
        tls
    };
    if tls {
        known.extend(TLS_OPTIONS);
        greeting.certificates = Some(certificates(&mut url)?);
    }
    let target = match kind.as_str() {
        "unix" => {
            greeting.settings = greeting.settings.set_db(database(&mut url, "")?);
            Target::Server(greeting.client_at(socket_address(&url)?)?)
        }
        "sentinel" => {
            known.extend(["sentinel_username", "sentinel_password"]);
            let path = url.path();
            let (service, in_path) = service(&url, &path)?;
            greeting.settings = greeting.settings.set_db(database(&mut url, in_path)?);
            let (username, password) =
                (url.take("sentinel_username"), url.take("sentinel_password"));
            let mut to_sentinels = Greeting::new(&url, username, password);
            to_sentinels.certificates = greeting.certificates.clone();
            let sentinels = addresses(&url, SENTINEL_PORT).into_iter();
            Target::Service {
                sentinels: sentinels
                    .map(|address| to_sentinels.client(&address))
                    .collect::<Result<_>>()?,
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
            greeting.settings = greeting.settings.set_db(database(&mut url, &path)?);
            match addresses(&url, PORT).as_slice() {
                [address] => Target::Server(greeting.client(address)?),
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

fn socket_address(url: &StoreUrl) -> Result<ConnectionAddr> {
    match url.path().as_str() {
        "" | "/" => Err(Error::configuration(format!(
            "{} names no socket; write its path, as in redis+unix:///run/redis.sock?db=0",
            url.label()
        ))),
        path => Ok(ConnectionAddr::Unix(path.into())),
    }
}

/// The number of the database: the path of the URL, or its option `db`.
fn database(url: &mut StoreUrl, in_path: &str) -> Result<i64> {
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

/// The certificates that a TLS connection trusts and shows, by the names that redis-py gives them.
fn certificates(url: &mut StoreUrl) -> Result<TlsCertificates> {
    let mut read = |option: &str| -> Result<Option<Vec<u8>>> {
        let Some(path) = url.take(option) else {
            return Ok(None);
        };
        std::fs::read(&path).map(Some).map_err(|error| {
            Error::with_source(
                ErrorKind::Configuration,
                format!("{option}={path} cannot be read: {error}; name a file in PEM format"),
                error,
            )
        })
    };
    let root_cert = read("ssl_ca_certs")?;
    let client_tls = match (read("ssl_certfile")?, read("ssl_keyfile")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig {
            client_cert,
            client_key,
        }),
        (None, None) => None,
        _ => {
            return Err(Error::configuration(
                "a client certificate needs both ssl_certfile= and ssl_keyfile=",
            ));
        }
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

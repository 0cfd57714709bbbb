//! Redis URLs as redis-rs wants them.

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use crate::error::{Error, ErrorKind, Result};
use crate::url::StoreUrl;

/// The schemes of this store.
pub(crate) const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "redis+unix",
    "valkey",
    "valkeys",
    "valkey+unix",
];

const TCP_OPTIONS: &[&str] = &["db"];
const TLS_OPTIONS: &[&str] = &["db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];

const DEFAULT_PORT: u16 = 6379;

/// The client for `redis://user:password@host:port/db`, `rediss://…` for TLS, or
/// `redis+unix:///path?db=0` for a socket.
pub(super) fn client(url: &StoreUrl) -> Result<Client> {
    let mut url = url.clone();
    let label = url.label();
    let unusable = |error: RedisError| {
        Error::with_source(
            ErrorKind::Configuration,
            format!("{label} cannot be used: {error}"),
            error,
        )
    };
    let mut settings = RedisConnectionInfo::default();
    if let Some(username) = url.username() {
        settings = settings.set_username(username);
    }
    if let Some(password) = url.password() {
        settings = settings.set_password(password);
    }
    let tls = matches!(url.scheme(), "rediss" | "valkeys");
    let socket = url.scheme().ends_with("+unix");
    let address = if socket {
        socket_address(&url)?
    } else {
        host_address(&url, tls)
    };
    let in_path = if socket { String::new() } else { url.path() };
    settings = settings.set_db(database(&mut url, &in_path)?);
    let certificates = if tls {
        Some(certificates(&mut url)?)
    } else {
        None
    };
    url.finish(if tls { TLS_OPTIONS } else { TCP_OPTIONS })?;

    let info = address
        .into_connection_info()
        .map_err(unusable)?
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
    .map_err(unusable)
}

fn host_address(url: &StoreUrl, tls: bool) -> ConnectionAddr {
    let host = url.host().unwrap_or_else(|| "127.0.0.1".into());
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
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

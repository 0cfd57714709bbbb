//! TLS over a connection: plain bytes in, sealed bytes out, and back.

#[cfg_attr(feature = "tls-aws-lc", path = "provider/aws_lc.rs")]
#[cfg_attr(
    all(feature = "tls-ring", not(feature = "tls-aws-lc")),
    path = "provider/ring.rs"
)]
#[cfg_attr(
    not(any(feature = "tls-ring", feature = "tls-aws-lc")),
    path = "provider/process.rs"
)]
mod provider;

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::error::{Error, ErrorKind, Result};
use crate::url::StoreUrl;

pub(in crate::store::redis) const OPTIONS: &[&str] =
    &["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];

/// The certificates that a TLS connection trusts and shows, by the names that redis-py gives them.
pub(in crate::store::redis) fn certificates(url: &mut StoreUrl) -> Result<Arc<Certificates>> {
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
    let authorities = read("ssl_ca_certs")?;
    let files = (read("ssl_certfile")?, read("ssl_keyfile")?);
    let identity = match &files {
        (Some(certificate), Some(key)) => Some((certificate.as_slice(), key.as_slice())),
        (None, None) => None,
        _ => {
            return Err(Error::configuration(
                "a client certificate needs both ssl_certfile= and ssl_keyfile=",
            ));
        }
    };
    let certificates = Certificates::read(provider::provider()?, authorities.as_deref(), identity);
    certificates.map(Arc::new).map_err(|unusable| {
        let label = url.label();
        Error::configuration(format!(
            "{label} cannot be used: {unusable}; name files in PEM format"
        ))
    })
}

/// The certificates that a connection trusts and shows.
#[derive(Debug)]
pub(in crate::store::redis) struct Certificates {
    provider: Arc<CryptoProvider>,
    /// Trusted instead of those that the system trusts.
    authorities: Option<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Made at the first connection: to read what the system trusts takes long.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Certificates {
    /// Reads them from files in PEM format.
    fn read(
        provider: Arc<CryptoProvider>,
        authorities: Option<&[u8]>,
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, String> {
        let unreadable = |what: &str, error: pem::Error| format!("{what}: {error}");
        let chain = |what: &str, file: &[u8]| {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
            match certificates {
                Ok(certificates) if certificates.is_empty() => {
                    Err(format!("{what} holds no certificate"))
                }
                certificates => certificates.map_err(|error| unreadable(what, error)),
            }
        };
        let authorities = match authorities {
            None => None,
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in chain("ssl_ca_certs", file)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| format!("ssl_ca_certs: {error}"))?;
                }
                Some(roots)
            }
        };
        let identity = match identity {
            None => None,
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|error| unreadable("ssl_keyfile", error))?;
                Some((chain("ssl_certfile", certificate)?, key))
            }
        };
        Ok(Self {
            provider,
            authorities,
            identity,
            config: OnceLock::new(),
        })
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let authorities = match &self.authorities {
            Some(authorities) => authorities.clone(),
            None => {
                let mut roots = RootCertStore::empty();
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(found.certs);
                match found.errors.into_iter().next() {
                    Some(error) if added == 0 => return Err(io::Error::other(error)),
                    _ => roots,
                }
            }
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(authorities);
        let config = match &self.identity {
            Some((chain, key)) => config
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(io::Error::other)?,
            None => config.with_no_client_auth(),
        };
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(config))))
    }

    /// A conversation with the server at `host`, which is to begin with a handshake.
    pub(in crate::store::redis) fn session(&self, host: &str) -> io::Result<Session> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(self.config()?, name).map_err(io::Error::other)?;
        let mut session = Session {
            tls,
            received: Vec::new(),
        };
        // Whoever puts in more waits until it is sent.
        session.tls.set_buffer_limit(None);
        Ok(session)
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub(in crate::store::redis) struct Session {
    tls: ClientConnection,
    received: Vec<u8>,
}

impl Session {
    /// Whether there is nothing to say yet.
    pub(in crate::store::redis) fn is_shaking_hands(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Seals `plain`, for [`drain`](Self::drain) to send.
    pub(in crate::store::redis) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)
    }

    /// Appends what is to be sent.
    pub(in crate::store::redis) fn drain(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }

    /// Where sealed bytes are to be received, for [`open`](Self::open) to open.
    pub(in crate::store::redis) fn received(&mut self) -> &mut Vec<u8> {
        &mut self.received
    }

    /// Opens what was received, and appends it to `plain`.
    pub(in crate::store::redis) fn open(&mut self, plain: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = self.received.as_slice();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let state = self.tls.process_new_packets().map_err(invalid)?;
            let opened = state.plaintext_bytes_to_read();
            self.tls.reader().take(opened as u64).read_to_end(plain)?;
            if state.peer_has_closed() && opened == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.received.clear();
        Ok(())
    }
}

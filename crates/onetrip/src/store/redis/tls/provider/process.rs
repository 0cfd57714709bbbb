//! Cryptography that the program installed for all of its process.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::{Error, Result};

pub(super) fn provider() -> Result<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned().ok_or_else(|| {
        Error::configuration(
            "TLS has no cryptography: turn on the feature \"tls-ring\" or \"tls-aws-lc\" of the crate onetrip, or call CryptoProvider::install_default before you open the cache",
        )
    })
}

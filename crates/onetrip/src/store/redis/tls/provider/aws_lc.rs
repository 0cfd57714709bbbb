//! Cryptography of AWS-LC.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::Result;

pub(super) fn provider() -> Result<Arc<CryptoProvider>> {
    Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

//! The schemes of all stores, and the feature that builds each in.

use crate::error::Error;
use crate::url::StoreUrl;

pub(super) const DISK: &[&str] = &["disk"];
pub(super) const REDIS: &[&str] = &[
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
pub(super) const MEMCACHED: &[&str] = &["memcached", "memcached+unix"];
pub(super) const KYOTO: &[&str] = &["kt"];

/// Stores that may be left out: their schemes, their feature, and whether it is built in.
const OPTIONAL: [(&[&str], &str, bool); 4] = [
    (DISK, "disk", cfg!(feature = "disk")),
    (REDIS, "redis", cfg!(feature = "redis")),
    (MEMCACHED, "memcached", cfg!(feature = "memcached")),
    (KYOTO, "kyoto", cfg!(feature = "kyoto")),
];

/// Returns the schemes that [`open`](super::open) knows.
#[doc(hidden)]
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    let mut schemes = vec!["memory"];
    for (those, _, is_built_in) in OPTIONAL {
        if is_built_in {
            schemes.extend(those);
        }
    }
    schemes
}

/// Returns the error of a URL that names no store, or one that is left out of this build.
pub(super) fn unknown(url: &StoreUrl) -> Error {
    let left_out = OPTIONAL
        .iter()
        .find(|(schemes, _, is_built_in)| !is_built_in && schemes.contains(&url.scheme()));
    match left_out {
        Some((_, feature, _)) => Error::feature_missing(&format!("{}://", url.scheme()), feature),
        None => {
            let known: Vec<_> = schemes()
                .iter()
                .map(|known| format!("{known}://"))
                .collect();
            Error::configuration(format!(
                "no store is named {}://; onetrip has {}",
                url.scheme(),
                known.join(", ")
            ))
        }
    }
}

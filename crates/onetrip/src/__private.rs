//! What the code that `#[onetrip::cached]` writes calls. Nobody else should.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::key;
pub use crate::part::{DisplayPart, Part, PythonPart};
use crate::policy::Timeout;

/// Tells of an error that a function has no way to return: it goes on as after a miss.
pub fn untold(key: &str, error: &Error) {
    log::warn!(
        "the cached result {:?} was neither read nor stored: {error}",
        key::display(key.as_bytes())
    );
}

/// Reads a result.
pub async fn read<T: Serialize + DeserializeOwned>(cache: &Cache, key: &str) -> Result<Option<T>> {
    cache.get(key).await
}

/// Stores a result.
pub async fn write<T: Serialize>(
    cache: &Cache,
    key: &str,
    value: &T,
    timeout: Timeout,
) -> Result<()> {
    cache.set_for(key, value, timeout).await
}

/// Removes a result; whether there was one.
pub async fn remove(cache: &Cache, key: &str) -> Result<bool> {
    cache.delete(key).await
}

/// The same for threads.
pub fn read_blocking<T: Serialize + DeserializeOwned>(
    cache: &Cache,
    key: &str,
) -> Result<Option<T>> {
    cache.blocking().get(key)
}

/// The same for threads.
pub fn write_blocking<T: Serialize>(
    cache: &Cache,
    key: &str,
    value: &T,
    timeout: Timeout,
) -> Result<()> {
    cache.blocking().set_for(key, value, timeout)
}

/// The same for threads.
pub fn remove_blocking(cache: &Cache, key: &str) -> Result<bool> {
    cache.blocking().delete(key)
}

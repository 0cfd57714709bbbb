//! Wire protocols, sans I/O: operations to bytes, and bytes to answers.

#[cfg(feature = "_remote")]
pub(crate) mod buffer;
#[cfg(any(feature = "memcached", feature = "redis"))]
pub(crate) mod digits;
#[cfg(feature = "kyoto")]
pub(crate) mod kyoto;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
#[cfg(feature = "redis")]
pub(crate) mod redis;

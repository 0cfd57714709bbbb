//! What tests stand on: beds, faces and servers.

mod bed;
mod cluster;
mod face;
mod folder;
#[cfg(kt_url)]
mod kyoto;
mod memcached;
mod sentinel;
mod server;

#[cfg(kt_url)]
pub(crate) use bed::kyoto;
pub(crate) use bed::{
    Bed, Raw, disk, memcached, memcached_two, memcached_unix, memory, own_redis, own_redis_unix,
    redis, redis_cluster, redis_sentinel, redis_unix, run_awaited, run_blocking,
};
pub(crate) use cluster::Cluster;
pub(crate) use face::{Driver, Face};
pub(crate) use folder::Folder;
pub(crate) use memcached::{Memcached, one as memcached_server};
pub(crate) use sentinel::Watched;
pub(crate) use server::Server;

use std::time::{Duration, Instant};

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Waits until `attempt` holds, as long as a busy machine may take.
pub(crate) fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !attempt() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How every test ends: an error of onetrip that it did not expect fails it.
pub(crate) type Outcome = onetrip::Result<()>;

/// Bytes, which serde takes for a list of numbers where nobody tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

//! Foundations of the tests: beds, faces and servers.

/// Runs the given tests over every store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod on {
            expand!(memory, crate::support::memory, $($test),*);
            expand!(disk, crate::support::disk, $($test),*);
            expand!(redis, crate::support::redis, $($test),*);
            expand!(redis_unix, crate::support::redis_unix, $($test),*);
            expand!(memcached, crate::support::memcached, $($test),*);
            expand!(memcached_unix, crate::support::memcached_unix, $($test),*);
            expand!(memcached_two, crate::support::memcached_two, $($test),*);
            #[cfg(kt_url)]
            expand!(kyoto, crate::support::kyoto, $($test),*);
            expand!(redis_sentinel, crate::support::redis_sentinel, $($test),*);
            expand!(redis_cluster, crate::support::redis_cluster, $($test),*);
        }
    };
}

/// Runs the given tests over one store, awaited in a task and called on a thread.
macro_rules! expand {
    ($store:ident, $bed:expr, $($test:ident),*) => {
        mod $store {
            mod awaited {
                $(#[test] fn $test() {
                    let name = concat!(module_path!(), "::", stringify!($test));
                    $crate::support::run_awaited($bed(name), super::super::super::$test);
                })*
            }
            mod blocking {
                $(#[test] fn $test() {
                    let name = concat!(module_path!(), "::", stringify!($test));
                    $crate::support::run_blocking($bed(name), super::super::super::$test);
                })*
            }
        }
    };
}

mod bed;
mod cluster;
mod face;
mod folder;
pub(crate) mod hand;
#[cfg(kt_url)]
mod kyoto;
mod memcached;
mod sentinel;
mod server;

#[cfg(kt_url)]
pub(crate) use bed::kyoto;
pub(crate) use bed::{
    Bed, Elsewhere, Raw, disk, memcached, memcached_two, memcached_unix, memory, own_redis,
    own_redis_unix, redis, redis_cluster, redis_sentinel, redis_unix, run_awaited, run_blocking,
};
pub(crate) use cluster::Cluster;
pub(crate) use face::{Driver, Face};
pub(crate) use folder::Folder;
pub(crate) use memcached::{Memcached, one as memcached_server};
pub(crate) use sentinel::Watched;
pub(crate) use server::Server;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Waits for this test's turn, in suites whose tests must not run in parallel.
pub(crate) fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    crate::ONE_AT_A_TIME.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Repeats `attempt` until it holds, with time for a busy machine.
pub(crate) fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !attempt() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The result of every test: an unexpected error of onetrip fails it.
pub(crate) type Outcome = onetrip::Result<()>;

/// Bytes, which serde would otherwise serialize as a list of numbers.
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

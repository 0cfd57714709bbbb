//! One behaviour suite, run over every store and through both faces of the cache.
//!
//! A test is an `async fn` that takes a [`Bed`](support::Bed): a store, a prefix of its own and a
//! face. [`on_every_store!`] makes of it one `#[test]` for each store and face, and
//! [`on_every_server!`] one for each store whose server counts what it is asked. To add a store,
//! add its line there.
//!
//! Kyoto Tycoon's line is there when `KT_URL` names a server while the suite is built, as in
//! `KT_URL=kt://127.0.0.1:1978/1 cargo test -p onetrip`: the server is rarely packaged. Without it
//! the recorded exchanges of `tests/kyoto` are what is tested.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

/// The given tests, over every store.
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

/// The given tests, over every store whose server tells what it was asked; each test has one of
/// its own.
macro_rules! on_every_server {
    ($($test:ident),* $(,)?) => {
        mod on {
            expand!(redis, crate::support::own_redis, $($test),*);
            expand!(redis_unix, crate::support::own_redis_unix, $($test),*);
        }
    };
}

/// The given tests over one store, awaited in a task and called on a thread.
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

mod support;

mod bad_entries;
mod cluster;
mod configuration;
mod disk;
mod failures;
mod isolation;
mod keys;
mod limits;
mod memcached;
mod memory;
mod model;
mod operations;
mod refusals;
mod sentinel;
mod stats;
mod timeouts;
mod transparent;
mod trips;
mod values;

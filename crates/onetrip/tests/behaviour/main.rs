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

/// Tests of this suite run beside each other.
pub(crate) const ONE_AT_A_TIME: bool = false;

#[macro_use]
#[allow(
    dead_code,
    unused_imports,
    reason = "each of two suites uses a part of it"
)]
mod support;

mod bad_entries;
mod cluster;
mod configuration;
mod disk;
mod failures;
mod keys;
mod limits;
mod memcached;
mod memory;
mod operations;
mod refusals;
mod sentinel;
mod state;
mod stats;
mod timeouts;
mod values;

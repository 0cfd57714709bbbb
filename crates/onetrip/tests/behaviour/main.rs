//! One behaviour suite, run over every store and through both faces of the cache.
//!
//! A test is an `async fn` that takes a [`Bed`](support::Bed): a store, a prefix of its own and a
//! face. [`on_every_store!`] makes one `#[test]` of it for each store and face, and
//! [`on_every_server!`] one for each store whose server counts its commands. To add a store, add a
//! line to these macros.
//!
//! Kyoto Tycoon is included if `KT_URL` names a server while the suite is built, as in
//! `KT_URL=kt://127.0.0.1:1978/1 cargo test -p onetrip`: the server is rarely packaged. Without it,
//! only the recorded exchanges of `tests/kyoto` are tested.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

/// Tests of this suite run in parallel.
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
mod conformance;
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

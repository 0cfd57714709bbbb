//! What scopes hold and flights share, over every store and through both faces of the cache.
//!
//! The beds and stores are those of `tests/behaviour`. Tests run one at a time: all writes of a
//! process use one write clock, whose slots are shared by several names, so another test could end
//! what this one holds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

/// Runs the given tests over every store whose server counts its commands; each test has a server
/// of its own.
macro_rules! on_every_server {
    ($($test:ident),* $(,)?) => {
        mod on {
            expand!(redis, crate::support::own_redis, $($test),*);
            expand!(redis_unix, crate::support::own_redis_unix, $($test),*);
        }
    };
}

/// The given tests, over every store that runs by the clock of its bed.
macro_rules! on_every_local_store {
    ($($test:ident),* $(,)?) => {
        mod on {
            expand!(memory, crate::support::memory, $($test),*);
            expand!(disk, crate::support::disk, $($test),*);
        }
    };
}

/// Tests of this suite run one after the other.
pub(crate) const ONE_AT_A_TIME: bool = true;

#[macro_use]
#[path = "../behaviour/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "each of two suites uses a part of it"
)]
mod support;

mod batches;
mod flights;
mod holding;
mod isolation;
mod joining;
mod model;
mod pieces;
mod prefixes;
mod programs;
mod snapshot;
mod timeouts;
mod trips;

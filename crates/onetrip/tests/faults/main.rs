//! What a page sees of a store that fails: a real server behind a proxy that makes it fail.
//!
//! Each test is run for every store with a server; a store is a line in [`on_every_server!`]. Of a
//! store of several servers one fails.
//!
//! Time for the breaker moves on only where a test says so: what is open stays open, however busy
//! this machine is, and no test waits for it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

#[path = "../behaviour/support/server.rs"]
#[expect(
    dead_code,
    reason = "the behaviour suite asks its servers more than these tests do"
)]
mod server;

#[path = "../behaviour/support/memcached.rs"]
#[expect(
    dead_code,
    reason = "the behaviour suite asks its servers more than these tests do"
)]
mod memcached;

#[path = "../behaviour/support/cluster.rs"]
#[expect(
    dead_code,
    reason = "the behaviour suite asks its servers more than these tests do"
)]
mod cluster;

#[path = "../behaviour/support/folder.rs"]
mod folder;

mod kyoto;
mod log;
mod proxy;
mod stand;

// As the servers of the behaviour suite know them.
pub(crate) use server::Server;
pub(crate) use stand::eventually;

/// The given tests, over every store that has a server.
macro_rules! on_every_server {
    ($($test:ident),* $(,)?) => {
        on_servers!(redis, $($test),*);
        on_servers!(redis_cluster, $($test),*);
        on_servers!(redis_sentinel, $($test),*);
        on_servers!(memcached, $($test),*);
        on_servers!(memcached_two, $($test),*);
        on_servers!(kyoto, $($test),*);
    };
}

macro_rules! on_servers {
    ($store:ident, $($test:ident),*) => {
        mod $store {
            $(#[test] fn $test() { super::$test($crate::stand::$store()); })*
        }
    };
}

mod breaker;
mod recovery;
mod right_answer;
mod side_by_side;
mod table;

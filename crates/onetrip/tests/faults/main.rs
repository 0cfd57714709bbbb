//! What a page sees of a failing store: a real server behind a proxy that makes it fail.
//!
//! Each test runs for every store with a server; a store is a line in [`on_every_server!`]. If a
//! store has several servers, one of them fails.
//!
//! The breaker's clock advances only when a test says so: an open breaker stays open, however busy
//! the machine is, and no test waits for it.

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
mod page;
mod proxy;
mod stand;

// The shared files of the behaviour suite refer to these names.
pub(crate) use server::Server;
pub(crate) use stand::eventually;

/// Runs the given tests over every store with a server. Tests marked `alone` keep all processors
/// busy.
macro_rules! on_every_server {
    ($($test:ident),* $(; alone: $($heavy:ident),*)? $(,)?) => {
        on_servers!(redis, $($test),* $(; $($heavy),*)?);
        on_servers!(redis_cluster, $($test),* $(; $($heavy),*)?);
        on_servers!(redis_sentinel, $($test),* $(; $($heavy),*)?);
        on_servers!(memcached, $($test),* $(; $($heavy),*)?);
        on_servers!(memcached_two, $($test),* $(; $($heavy),*)?);
        on_servers!(kyoto, $($test),* $(; $($heavy),*)?);
    };
}

macro_rules! on_servers {
    ($store:ident, $($test:ident),* $(; $($heavy:ident),*)?) => {
        mod $store {
            $(#[test] fn $test() {
                let _turn = crate::turn::beside_others();
                super::$test($crate::stand::$store());
            })*
            $($(#[test] fn $heavy() {
                let _turn = crate::turn::alone();
                super::$heavy($crate::stand::$store());
            })*)?
        }
    };
}

mod breaker;
mod order;
mod posted;
mod recovery;
mod right_answer;
mod side_by_side;
mod table;
mod turn;

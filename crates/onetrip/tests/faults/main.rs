//! What a page sees of a store that fails: a real server behind a proxy that makes it fail.
//!
//! Each test is run for every store with a server; a store is a line in [`on_every_server!`].

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

mod log;
mod proxy;
mod stand;

/// The given tests, over every store that has a server.
macro_rules! on_every_server {
    ($($test:ident),* $(,)?) => {
        mod redis {
            $(#[test] fn $test() { super::$test(&$crate::stand::redis()); })*
        }
        mod memcached {
            $(#[test] fn $test() { super::$test(&$crate::stand::memcached()); })*
        }
    };
}

mod breaker;
mod recovery;
mod right_answer;

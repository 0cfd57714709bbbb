//! Kyoto Tycoon as a real server answered it: recorded exchanges, replayed byte for byte.
//!
//! The server is rarely packaged, so the files in `recorded/` stand for it: the client has to send
//! exactly the bytes that are there, and is answered with those that a server answered. They are
//! recorded anew, through a proxy, from an empty server with two databases, and from one that was
//! started read-only:
//!
//! ```text
//! KT_RECORD=1 KT_URL=kt://127.0.0.1:1978 KT_READ_ONLY_URL=kt://127.0.0.1:1979 \
//!     cargo test -p onetrip --test kyoto
//! ```
//!
//! Everything in both servers is removed by that.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod broken;
mod recorder;
mod recording;
mod replayer;
mod scenarios;
mod stage;

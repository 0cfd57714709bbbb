//! Kyoto Tycoon: recorded exchanges with a real server, replayed byte for byte.
//!
//! The server is rarely packaged, so the files in `recorded/` stand in for it: the client must send
//! exactly the recorded bytes, and gets the recorded answers. To record them again, through a
//! proxy, start an empty server with two databases and a read-only server:
//!
//! ```text
//! KT_RECORD=1 KT_URL=kt://127.0.0.1:1978 KT_READ_ONLY_URL=kt://127.0.0.1:1979 \
//!     cargo test -p onetrip --test kyoto
//! ```
//!
//! This removes everything in both servers.

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

//! For onetrip's own binding, macro, benches and tests. No promise holds for anything in here: it
//! changes or goes in any release.

pub use crate::cache::Begun;
pub use crate::compress::MAX_EXPANDED;
pub use crate::context::Context;
pub use crate::drain::{close_all_idle, drain_all};
pub use crate::key::{Keyspace, digest};
pub use crate::latch::Latch;
pub use crate::merged::{Footprint, MergedTrip};
pub use crate::options::DEFAULT_URL;
pub use crate::policy::{Fetch, Outcome, Policy, Read, Stage, Step, Storing};
pub use crate::scope::{Scope, Work};
pub use crate::single_flight::{Caller, Computing, Waiting};
pub use crate::watch::{Everything, MAX_RECORDS, watch_everything};
pub use crate::write_batch::WriteBatch;

/// Converts values to payloads and back.
pub mod codec {
    pub use crate::codec::*;
}

/// Seals and opens entries.
pub mod entry {
    pub use crate::entry::*;
}

/// Learns what pages read.
pub mod learn {
    pub use crate::learn::*;
}

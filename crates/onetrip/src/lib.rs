//! One page, one trip to the cache.

pub mod blocking;
mod cache;
mod carrier;
mod clock;
pub mod codec;
mod compress;
mod context;
pub mod entry;
mod error;
mod key;
mod lanes;
mod options;
mod policy;
mod scope;
mod stats;
pub mod store;
pub mod trip;
mod untag;
mod url;
mod watch;

pub use cache::Cache;
pub use carrier::OnError;
pub use clock::{Clock, Moment};
pub use compress::{Compression, MAX_EXPANDED};
pub use context::Context;
pub use error::{Error, ErrorKind, Result};
pub use key::{Keyspace, digest};
pub use options::{Builder, DEFAULT_URL, Serializer};
pub use policy::{Policy, Step, Timeout};
pub use scope::{MAX_PENDING, Scope};
pub use stats::Stats;
pub use watch::{Everything, MAX_RECORDS, Record, Watch, watch_everything};

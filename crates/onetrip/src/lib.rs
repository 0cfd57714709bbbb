//! One page, one trip to the cache.
//!
//! A page built from fifty cached pieces should not ask its cache fifty times. onetrip reads the
//! keys that a page needs in one trip when the page begins, answers every read within it from
//! memory, and sends what the page wrote in one trip when it ends.
//!
//! ```
//! use onetrip::Cache;
//!
//! async fn note_page(cache: &Cache, id: u32) -> onetrip::Result<String> {
//!     let keys = [format!("note_markup:{id}"), format!("note_comments:{id}")];
//!     cache
//!         .preload(&keys, async {
//!             let markup: String = cache
//!                 .get_or_insert(&keys[0], onetrip::Timeout::Default, async || "<p>Hello</p>".into())
//!                 .await?;
//!             let comments: Option<Vec<String>> = cache.get(&keys[1]).await?;
//!             Ok(format!("{markup}, {} comments", comments.unwrap_or_default().len()))
//!         })
//!         .await?
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let cache = Cache::builder("memory://").prefix("blog").build()?;
//! let (page, seen) = cache.watch(note_page(&cache, 5)).await;
//!
//! assert_eq!(page?, "<p>Hello</p>, 0 comments");
//! assert_eq!(seen.trips(), 2); // one in, for both keys, and one out, for the markup it made
//! # Ok::<(), onetrip::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Where things are
//!
//! - [`Cache`] is the asynchronous face, [`blocking::Cache`] the same for threads; [`Builder`] has
//!   the options and all their defaults.
//! - [`Policy`] says what each operation means, within a [`Scope`] and without one. It does no
//!   input or output: an operation is a [`Step`], which is answered or has a trip to make. Faces in
//!   other languages drive the same steps.
//! - [`trip`] has the operations as data, [`store`] the places they go to, [`entry`] and [`codec`]
//!   the bytes that are kept there.
//!
//! # Features
//!
//! - `disk` (default, on Unix): the store `disk:///folder`.
//! - `redis` (default): the stores `redis://`, `rediss://` and `redis+unix://`.
//! - `memcached` (default): the stores `memcached://` and `memcached+unix://`.
//! - `kyoto` (default): the store `kt://`, a Kyoto Tycoon server.

mod background;
mod batch;
pub mod blocking;
#[cfg(feature = "_remote")]
mod breaker;
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
pub mod learn;
mod options;
mod pages;
mod policy;
mod process;
mod scope;
mod stats;
pub mod store;
pub mod trip;
mod untag;
mod url;
mod watch;
mod wire;

pub use batch::Batch;
pub use cache::Cache;
pub use carrier::OnError;
pub use clock::{Clock, Moment};
pub use compress::{Compression, MAX_EXPANDED};
pub use context::Context;
pub use error::{Error, ErrorKind, Result};
pub use key::{Keyspace, digest};
pub use learn::Page;
pub use options::{Builder, DEFAULT_URL, Serializer};
pub use pages::PageMode;
pub use policy::{Policy, Step, Timeout};
pub use scope::{MAX_PENDING, Scope};
pub use stats::Stats;
pub use watch::{Everything, MAX_RECORDS, Record, Watch, watch_everything};

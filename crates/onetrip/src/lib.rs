//! One page, one trip to the cache.
//!
//! A page built from fifty cached pieces should not ask its cache fifty times. onetrip reads the
//! keys that a page needs in one trip when the page begins and answers reads of them from memory.
//! What the page computes is stored without waiting for the store; what it writes by plain calls is
//! there for everybody when the call returns.
//!
//! ```
//! use onetrip::Cache;
//!
//! async fn note_page(cache: &Cache, id: u32) -> onetrip::Result<String> {
//!     let keys = [format!("note_markup:{id}"), format!("note_comments:{id}")];
//!     cache
//!         .preload(&keys, async {
//!             let markup: String = cache
//!                 .get_or_insert_with(&keys[0], onetrip::Ttl::Default, async || "<p>Hello</p>".into())
//!                 .await?;
//!             let comments: Option<Vec<String>> = cache.get(&keys[1]).await?;
//!             Ok(format!("{markup}, {} comments", comments.unwrap_or_default().len()))
//!         })
//!         .await
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
//! - [`Cache`] is the asynchronous face, [`blocking::Cache`] the same for threads. [`Builder`] has
//!   the options and all their defaults.
//! - [`Page`] names a page that learns what it reads. [`PageReport`] tells what it learned.
//! - [`Watch`] counts trips, [`Stats`] counts everything.
//! - [`store`] and [`trip`] are for authors of stores.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `disk` | yes | the store `disk:///folder` |
//! | `redis` | yes | the stores `redis://`, `redis+unix://`, `redis+sentinel://` and `redis+cluster://` |
//! | `memcached` | yes | the stores `memcached://` and `memcached+unix://` |
//! | `kyoto` | yes | the store `kt://`, a Kyoto Tycoon server |
//! | `tls` | yes | TLS for Redis (`rediss://`, `?ssl=true`), by the `CryptoProvider` of rustls that the program installed; turns on `redis` |
//! | `tls-ring` | yes | `tls` with the cryptography of ring |
//! | `tls-aws-lc` | | `tls` with the cryptography of AWS-LC, which is used even if `tls-ring` is on |
//! | `zstd` | yes | [`Compression::Zstd`] |
//! | `lz4` | yes | [`Compression::Lz4`] |
//! | `macros` | | the attribute [`cached`], for functions whose results are kept |
//! | `tower` | | a scope for each request, [`tower::PageLayer`] |
//! | `axum` | | the same, whose pages are named by the routes of axum |
//! | `conformance` | | tests for authors of stores, `store::conformance` |
//! | `minijinja` | | cached pieces of templates, [`minijinja`] |
//!
//! The store `memory://` is always there. A URL or an option that needs a feature that is off is
//! refused with an error that names the feature. An entry that needs a codec that is off is a miss
//! and counts as a bad entry.
//!
//! Stores on disk and on servers need Unix. Elsewhere only `default-features = false` builds.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(not(unix), any(feature = "disk", feature = "_remote")))]
compile_error!(
    "onetrip's stores on disk and on servers need Unix; on this system, set default-features = false and use memory://"
);

#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod __private;
mod background;
pub mod blocking;
mod blocking_runtimes;
#[cfg(feature = "_remote")]
mod breaker;
mod cache;
mod clock;
mod codec;
mod compress;
mod context;
mod dispatch;
mod drain;
mod drive;
mod entry;
mod error;
mod fragment;
#[doc(hidden)]
pub mod internals;
mod key;
mod latch;
mod learn;
mod markup;
mod merged;
#[cfg(feature = "minijinja")]
pub mod minijinja;
mod options;
mod pages;
mod policy;
mod process;
#[cfg(any(feature = "macros", feature = "minijinja"))]
mod python_text;
mod records;
mod scope;
mod shared_store;
mod single_flight;
mod spawn;
mod stats;
pub mod store;
mod strip_extensions;
#[cfg(feature = "tower")]
pub mod tower;
pub mod trip;
mod url;
mod watch;
mod wire;
mod write_batch;
mod write_clock;

pub use cache::Cache;
pub use clock::{Clock, Moment};
pub use compress::Compression;
pub use dispatch::OnError;
pub use error::{Error, ErrorKind, Result};
pub use fragment::fragment_key;
pub use learn::{Page, PageReport};
pub use markup::Markup;
pub use options::{Builder, Serializer};
pub use pages::PageMode;
pub use policy::Ttl;
pub use spawn::spawn_blocking;
pub use stats::Stats;
pub use watch::{TripRecord, Watch};

/// Keeps the results of a function in a cache.
///
/// The function computes on a miss alone, and beside it there are four others of its name:
///
/// | | |
/// | --- | --- |
/// | `…_key` | the key of a call |
/// | `…_bust` | removes what is stored of it |
/// | `…_refresh` | computes anew and stores |
/// | `…_uncached` | only computes |
///
/// They are functions beside functions and methods beside methods, asynchronous where it is. The
/// first two take the arguments that the key is made of, and `…_bust` the cache if that is an
/// argument; the others take all.
///
/// ```
/// use std::sync::LazyLock;
/// use onetrip::Cache;
///
/// static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::open("memory://").unwrap());
///
/// struct Note {
///     id: u32,
///     text: String,
/// }
///
/// #[onetrip::cached(cache = CACHE, timeout = "60s", key = "note_markup:{note.id}")]
/// async fn note_markup(note: &Note) -> String {
///     format!("<p>{}</p>", note.text) // what takes long
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let mut note = Note { id: 5, text: "Hello".into() };
/// assert_eq!(note_markup(&note).await, "<p>Hello</p>");
/// assert_eq!(note_markup_key(&note), "note_markup:5");
///
/// note.text = "Hello again".into();
/// assert_eq!(note_markup(&note).await, "<p>Hello</p>");
/// assert!(note_markup_bust(&note).await?);
/// assert_eq!(note_markup(&note).await, "<p>Hello again</p>");
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
///
/// # Options
///
/// - `cache`: an expression that is, or dereferences to, a [`Cache`]: `CACHE`, `self.cache`,
///   `app.cache`, and of a blocking one `cache.asynchronous()`. Left out, it is the argument
///   called `cache`.
/// - `key`: a string whose braces name arguments, their fields and methods that take nothing
///   (`"note:{note.id}"`, `"page:{self.slug()}:{number}"`), by their `Display`; truth values and
///   floats are written as Python writes them, so that Python makes the same key. Anything else is
///   an expression that becomes a `String`: `key = format!("{id:05}")`.
/// - `timeout`: `"500ms"`, `"60s"`, `"5m"`, `"2h"`, `"7d"`, seconds as a number, or an expression
///   that becomes a [`Ttl`]. Left out, it is the cache's own.
/// - `map_err`: what makes the error of the function's `Result` of one of the cache.
///
/// # What is kept
///
/// A value that serde can write and read. Of a function that returns a type called `Result`, what
/// is `Ok` is kept and errors are not. `None` is a value.
///
/// Under [`OnError::Raise`] a failure of the store is returned where `map_err` says how, and so is
/// every other error of the cache. Without it they are logged, and the function computes as on a
/// miss.
///
/// # In methods
///
/// A method takes `self`, since nothing else tells a method from a function. In an implementation
/// of a trait it cannot have siblings; cache a method of the type itself, and call that.
///
/// ```
/// use onetrip::{Cache, Error};
///
/// struct Notes {
///     cache: Cache,
/// }
///
/// impl Notes {
///     #[onetrip::cached(cache = self.cache, key = "title:{id}", map_err = |error| error)]
///     async fn title(&self, id: u32) -> Result<Option<String>, Error> {
///         Ok((id == 5).then(|| "Hello".to_owned()))
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let notes = Notes { cache: Cache::open("memory://")? };
/// assert_eq!(notes.title(6).await?, None);
/// assert_eq!(notes.title(6).await?, None); // read: nothing is a value
/// assert_eq!(notes.cache.stats().hits, 1);
/// assert_eq!(Notes::title_key(6), "title:6");
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
#[cfg(feature = "macros")]
pub use onetrip_macros::cached;

/// The Rust in the documents runs, too.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    mod readme {}

    #[doc = include_str!("../../../docs/rust.md")]
    mod rust {}
}

//! Where entries live. A store is one method, plus what it is able to do.

#[cfg(any(feature = "kyoto", feature = "memcached"))]
mod channel;
#[cfg(feature = "redis")]
mod connections;
#[cfg(all(feature = "disk", unix))]
mod disk;
#[cfg(feature = "_remote")]
mod guarded;
#[cfg(feature = "kyoto")]
mod kyoto;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "_remote")]
mod owed;
#[cfg(feature = "_remote")]
#[cfg_attr(
    not(any(feature = "kyoto", feature = "memcached")),
    expect(
        dead_code,
        reason = "Redis takes no turns: its tasks share one connection"
    )
)]
mod pool;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "_remote")]
mod runtimes;
#[cfg(feature = "_remote")]
mod sizes;
mod slow;
#[cfg(feature = "_remote")]
mod socket;
#[cfg(feature = "_remote")]
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "kyoto")]
use self::guarded::Guarded;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::key;
use crate::trip::{Replies, Trip};
use crate::url::StoreUrl;

/// An answer that is there, or one to wait for.
pub enum Exchange<'a> {
    /// Answered on the spot, without waiting for anything.
    Ready(Replies),
    /// Not even asked, since the store failed just now.
    Refused(Error),
    /// To be polled within a Tokio runtime that has its timers and sockets enabled.
    Pending(Pin<Box<dyn Future<Output = Result<Replies>> + Send + 'a>>),
}

/// Where entries live.
///
/// A store answers each trip with exactly one reply for each operation, in their order. It keeps
/// entries as the bytes they are, and hides its own limits on names. An operation that it cannot
/// carry out is answered with [`Reply::Failed`](crate::trip::Reply::Failed), never by doing
/// something else.
///
/// The future of an exchange may be dropped at any point: the store must then answer the next
/// trip as if nothing had happened, and never with what the dropped one had asked for.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Carries out the operations of `trip`.
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a>;

    /// Whether every exchange is [`Exchange::Ready`]: not unless the store says so.
    fn is_local(&self) -> bool {
        false
    }

    /// The store, as messages name it: its URL without password.
    fn label(&self) -> Arc<str>;
}

/// What a store needs to know besides its URL.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where expiry is read from, for stores within this process.
    pub clock: Clock,
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// The longest that one exchange may take, connecting not counted.
    pub trip_timeout: Duration,
}

/// Opens the store that `url` names, without connecting to it.
///
/// # Errors
///
/// [`ErrorKind::Configuration`] if the scheme or one of the
/// URL's options is unknown; the message names those that exist.
pub fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let url = StoreUrl::parse(url)?;
    match url.scheme() {
        "memory" => memory::open(url.of_one_host()?, options),
        #[cfg(all(feature = "disk", unix))]
        "disk" => disk::open(url.of_one_host()?, options),
        #[cfg(feature = "redis")]
        scheme if redis::SCHEMES.contains(&scheme) => redis::open(&url, options),
        #[cfg(feature = "memcached")]
        scheme if memcached::SCHEMES.contains(&scheme) => memcached::open(&url, options),
        #[cfg(feature = "kyoto")]
        scheme if kyoto::SCHEMES.contains(&scheme) => {
            let server = kyoto::open(url.of_one_host()?, options)?;
            Ok(Arc::new(Guarded::new(server, options.clock.clone())))
        }
        _ => Err(url.unknown_scheme(&schemes())),
    }
}

/// The schemes that [`open`] knows.
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    [
        &["memory"][..],
        #[cfg(all(feature = "disk", unix))]
        &["disk"],
        #[cfg(feature = "redis")]
        redis::SCHEMES,
        #[cfg(feature = "memcached")]
        memcached::SCHEMES,
        #[cfg(feature = "kyoto")]
        kyoto::SCHEMES,
    ]
    .concat()
}

/// The failure of an increment: `why` follows the entry's name.
fn not_a_number(name: &Bytes, why: &str) -> Error {
    let name = key::display(name);
    Error::new(
        ErrorKind::NotANumber,
        format!("the entry of {name:?} {why}; set it to an integer before you add to it"),
    )
}

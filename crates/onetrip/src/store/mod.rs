//! Where entries live. A store is one method, plus what it is able to do.

#[cfg(any(feature = "kyoto", feature = "memcached"))]
mod channel;
#[cfg(feature = "redis")]
mod connections;
#[cfg(all(feature = "disk", unix))]
mod disk;
#[cfg(feature = "kyoto")]
mod kyoto;
mod latency;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "_remote")]
mod pending_deletes;
#[cfg(feature = "_remote")]
mod per_runtime;
#[cfg(feature = "_remote")]
#[cfg_attr(
    not(any(feature = "kyoto", feature = "memcached")),
    expect(
        dead_code,
        reason = "Redis takes no turns: its tasks share one connection"
    )
)]
mod pool;
#[cfg(feature = "_remote")]
mod posted;
#[cfg(feature = "_remote")]
mod posting;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "_remote")]
mod sizes;
#[cfg(feature = "_remote")]
mod socket;
#[cfg(feature = "_remote")]
mod stream;
#[cfg(feature = "_remote")]
mod with_breaker;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "_remote")]
use self::posting::{Draining, Posting};
#[cfg(feature = "kyoto")]
use self::with_breaker::WithBreaker;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::key;
#[cfg(feature = "_remote")]
use crate::trip::ScopeId;
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

impl std::fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(replies) => f.debug_tuple("Ready").field(replies).finish(),
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
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
///
/// A trip of [posted](crate::trip::Purpose::Post) writes is registered by the call itself, before its future is
/// polled: whatever names one of its names from then on follows it. Its future is to be polled to
/// its end, or dropped, without delay.
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

/// One server, without what it takes to live with its failures.
#[cfg(feature = "_remote")]
trait Remote: Send + Sync + std::fmt::Debug {
    /// Makes a trip and waits for its replies.
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Posting<'a>;

    /// Posts writes. From the call on their names are posted.
    fn post(&self, trip: Trip) -> Posting<'_>;

    /// Whether `scope` has posted something, or anybody has.
    fn has_posted(&self, scope: Option<ScopeId>) -> bool;

    /// Reads the replies to what `scope` posted, or to all that is posted. Waits no longer than
    /// `patience`, which is `trip_timeout` if it is left out.
    fn drain(&self, scope: Option<ScopeId>, patience: Option<Duration>) -> Draining<'_>;

    /// The server, as messages name it.
    fn label(&self) -> Arc<str>;
}

/// What a store needs to know besides its URL.
#[doc(hidden)]
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
#[doc(hidden)]
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
            Ok(Arc::new(WithBreaker::new(server, options.clock.clone())))
        }
        _ => Err(url.unknown_scheme(&schemes())),
    }
}

/// The schemes that [`open`] knows.
#[doc(hidden)]
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

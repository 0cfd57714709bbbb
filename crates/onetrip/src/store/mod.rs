//! Places where entries live, and the trait that a store of your own implements.
//!
//! `examples/store.rs` is a whole store. [`Builder::store`](crate::Builder::store) opens a cache over
//! it, and the feature `conformance` has a test that it keeps the laws of [`Store`].

#[cfg(any(feature = "kyoto", feature = "memcached"))]
mod channel;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "redis")]
mod connections;
#[cfg(feature = "disk")]
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
mod schemes;
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
pub use self::schemes::schemes;
#[cfg(feature = "kyoto")]
use self::with_breaker::WithBreaker;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::key;
#[cfg(feature = "_remote")]
use crate::trip::ScopeId;
use crate::trip::{Replies, Trip};
use crate::url::StoreUrl;

/// The answer of a store to a trip.
#[non_exhaustive]
pub enum Exchange<'a> {
    /// Answered at once, without waiting for anything.
    Ready(Replies),
    /// Not sent, because the store failed just now. Counts as a failure of each operation.
    Refused(Error),
    /// Waits for its answer. Polled in a Tokio runtime with timers and sockets, on any thread. Of a
    /// blocking caller this is a current-thread runtime that it borrows for one trip, so a
    /// connection made there serves trips of that runtime alone. An error means that every
    /// operation failed.
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

/// A place where entries live.
///
/// # Laws
///
/// - **Replies.** A trip is answered with one reply for each operation, in their order. Each
///   [`Op`](crate::trip::Op) says which [`Reply`](crate::trip::Reply) answers it.
/// - **Order.** Operations on one name take effect in their order in the trip, and a trip that
///   begins after another was answered sees its effects. Operations on different names may take
///   effect side by side. A trip is no transaction.
/// - **Bytes.** Names and entries are any bytes, the empty string included. The store keeps them as
///   they are, and hides its own limits on names.
/// - **Time to live.** An entry whose time is over is absent for every operation. A store may round
///   up to its own tick. It may evict an entry at any time. Where it knows at no cost how long an
///   entry has left, it says so with the entry ([`Stored`](crate::trip::Stored)).
/// - **Refusals.** An operation that the store cannot carry out is answered with
///   [`Reply::Failed`](crate::trip::Reply::Failed), never by doing something else: with
///   [`ErrorKind::Unsupported`] if it never can. The other operations of the trip are answered as
///   usual.
/// - **Cancellation.** The future of an exchange may be dropped at any point. The store answers the
///   next trip as if nothing had happened, and never with the answers of the dropped one.
///
/// # Failures
///
/// A store has its own timeouts: the cache waits as long as the future does. Under
/// [`OnError::Miss`](crate::OnError::Miss) the cache turns failures into misses and dropped writes,
/// counts and logs them. Deletes that failed are not sent again: only the stores of this crate have
/// a breaker and keep pending deletes.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Carries out the operations of `trip`.
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a>;

    /// Returns whether every exchange is [`Exchange::Ready`]. A local store is called within tasks
    /// and under the interpreter lock of Python, so it never blocks for long. `false` by default.
    fn is_local(&self) -> bool {
        false
    }

    /// Returns the store's name for messages: a URL without password.
    fn label(&self) -> Arc<str>;

    /// Returns whether the store takes [posted](crate::trip::Purpose::Post) writes and
    /// [drains](crate::trip::Purpose::Drain) them. If not, writes are waited for.
    ///
    /// Such a store registers the names of a post within [`exchange`](Self::exchange), before its
    /// future is polled: operations on those names from then on follow it. The future is polled to
    /// its end, or dropped, without delay.
    #[doc(hidden)]
    fn posts(&self) -> bool {
        false
    }
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
        #[cfg(feature = "disk")]
        scheme if schemes::DISK.contains(&scheme) => disk::open(url.of_one_host()?, options),
        #[cfg(feature = "redis")]
        scheme if schemes::REDIS.contains(&scheme) => redis::open(&url, options),
        #[cfg(feature = "memcached")]
        scheme if schemes::MEMCACHED.contains(&scheme) => memcached::open(&url, options),
        #[cfg(feature = "kyoto")]
        scheme if schemes::KYOTO.contains(&scheme) => {
            let server = kyoto::open(url.of_one_host()?, options)?;
            Ok(Arc::new(WithBreaker::new(server, options.clock.clone())))
        }
        _ => Err(schemes::unknown(&url)),
    }
}

/// The failure of an increment: `why` follows the entry's name.
fn not_a_number(name: &Bytes, why: &str) -> Error {
    let name = key::display(name);
    Error::new(
        ErrorKind::NotANumber,
        format!("the entry of {name:?} {why}; set it to an integer before you add to it"),
    )
}

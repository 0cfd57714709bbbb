//! What each operation means, within a scope and without one: pure, and written once.
//!
//! An operation is a [`Step`]: either it is answered at once, or it has a [`Trip`] to make and knows
//! what to make of the replies. A [`Fetch`] is several steps, with the caller's own computing in
//! between. The faces of the cache (asynchronous, blocking, Python's) differ only in how they make
//! trips, wait and compute.

mod fetch;
mod reads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::fetch::{Fetch, Outcome, Stage, Storing};
pub use self::reads::Read;
use crate::clock::Clock;
use crate::codec::Decode;
use crate::context::Context;
use crate::entry::{BadEntry, Content, Fields, Kind, Name, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, Keyspace};
use crate::learn::Learner;
use crate::pages::PageMode;
use crate::scope::{Scope, Work};
use crate::single_flight::{self, Costs, StoreId};
use crate::stats::Counters;
use crate::trip::{Late, Replies, Trip};
use crate::write_clock::Slot;

/// Longer than this, an entry might as well live until it is evicted. A store's own arithmetic
/// overflows somewhere beyond.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long an entry is to live, as a caller says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ttl {
    /// As long as the cache's own default.
    #[default]
    Default,
    /// Until it is evicted.
    Never,
    /// For a span of time. Zero stores nothing, and removes what was there.
    After(Duration),
}

impl From<Duration> for Ttl {
    fn from(span: Duration) -> Self {
        Self::After(span)
    }
}

/// The next thing to do for an operation.
pub enum Step<T, F: FnOnce(Replies) -> T> {
    /// It is answered.
    Done(T),
    /// A trip has to be made; the function makes the answer of its replies.
    Ask(Trip, F),
}

impl<T, F: FnOnce(Replies) -> T> std::fmt::Debug for Step<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(_) => f.write_str("Done"),
            Self::Ask(trip, _) => f.debug_tuple("Ask").field(trip).finish(),
        }
    }
}

/// The meaning of a cache's operations, as its options say.
pub struct Policy {
    pub(crate) keyspace: Keyspace,
    pub(crate) sealer: Sealer,
    pub(crate) record_sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    /// What the failures of posted writes are told to; none where stores are waited for.
    pub(crate) late: Option<Arc<dyn Late>>,
    pub(crate) store: StoreId,
    pub(crate) costs: Arc<Costs>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_age: Duration,
    pub(crate) read_max_age: Duration,
    pub(crate) disabled: bool,
    pub(crate) page_mode: PageMode,
    pub(crate) learner: Learner,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("prefix", &self.keyspace.text())
            .finish_non_exhaustive()
    }
}

/// The value of a read, if there is one.
type Found<D> = Option<<D as Decode>::Value>;

/// The ttl of a write, with the default of the cache put in.
#[derive(Clone, Copy)]
enum ResolvedTtl {
    Keep(Option<Duration>),
    Expired,
}

impl ResolvedTtl {
    fn span(self) -> Option<Duration> {
        match self {
            Self::Keep(ttl) => ttl,
            Self::Expired => Some(Duration::ZERO),
        }
    }
}

impl Policy {
    /// The entry of a value under `key`. `encode` appends the payload and tells its kind.
    ///
    /// # Errors
    ///
    /// Those of `encode`; [`ErrorKind::Serialization`] if this cache stores bytes alone and this
    /// is something else.
    pub fn seal<E: From<Error>>(
        &self,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, E>,
    ) -> Result<Bytes, E> {
        self.seal_telling(key, &Fields::default(), encode)
    }

    /// Makes the entry of a piece under `key`, whose value lives for `ttl` from now. It tells
    /// when it ends, for scopes that hold it meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`seal`](Self::seal).
    pub fn seal_piece<E: From<Error>>(
        &self,
        key: &[u8],
        ttl: Ttl,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, E>,
    ) -> Result<Bytes, E> {
        let ttl = self.resolve(ttl).span();
        let fields = Fields {
            end: ttl.map(|ttl| self.clock.wall().saturating_add(ttl)),
            ..Fields::default()
        };
        self.seal_telling(key, &fields, encode)
    }

    fn seal_telling<E: From<Error>>(
        &self,
        key: &[u8],
        fields: &Fields,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, E>,
    ) -> Result<Bytes, E> {
        let mut draft = self.sealer.draft(fields);
        let kind = encode(&mut draft)?;
        if self.sealer.is_bare() && kind != Kind::Bytes {
            return Err(Error::new(
                ErrorKind::Serialization,
                format!(
                    "{:?} cannot be cached: the raw serializer stores bytes alone; encode the value to bytes, or use the native serializer",
                    key::display(key)
                ),
            )
            .into());
        }
        Ok(self.sealer.seal(self.name(key), kind, draft))
    }

    fn name<'a>(&'a self, key: &'a [u8]) -> Name<'a> {
        Name {
            prefix: self.keyspace.prefix(),
            key,
        }
    }

    pub(crate) fn open(&self, key: &[u8], entry: &Bytes) -> Result<Content, BadEntry> {
        self.sealer.open(self.name(key), entry)
    }

    fn resolve(&self, ttl: Ttl) -> ResolvedTtl {
        let ttl = match ttl {
            Ttl::Default => self.ttl,
            Ttl::Never => None,
            Ttl::After(span) => Some(span),
        };
        match ttl {
            Some(Duration::ZERO) => ResolvedTtl::Expired,
            ttl => ResolvedTtl::Keep(ttl.filter(|span| *span < FOREVER)),
        }
    }

    pub(crate) fn slot(&self, key: &[u8]) -> Slot {
        Slot::of(self.keyspace.prefix(), key)
    }

    /// Returns the scope for code in `at` that does such `work`: the one that is open there, or a
    /// new one, which the caller closes.
    #[must_use]
    pub fn enter(&self, at: &Context, work: Work) -> (Arc<Scope>, bool) {
        match at.scope() {
            Some(scope) if scope.is_open() => (Arc::clone(scope), false),
            _ => {
                let clock = self.clock.clone();
                let prefix = self.keyspace.prefix().clone();
                let scope = Scope::new(clock, prefix, self.max_age, self.read_max_age, work);
                (Arc::new(scope), true)
            }
        }
    }

    /// Makes a step of a trip from `at`.
    fn travel<'a, T>(
        &'a self,
        at: &'a Context,
        trip: Trip,
        finish: impl FnOnce(Replies) -> T + 'a,
    ) -> Step<T, impl FnOnce(Replies) -> T + 'a> {
        let (trip, behind) = self.load(at, trip);
        Step::Ask(trip, move |mut replies: Replies| {
            behind.strip(&mut replies);
            finish(replies)
        })
    }

    /// Puts a trip behind what a batch gathered at `at`: they leave together.
    fn load<'a>(&self, at: &'a Context, trip: Trip) -> (Trip, Behind<'a>) {
        let gathered = at.take_gathered();
        let behind = Behind {
            count: gathered.len(),
            writing: (!gathered.is_empty()).then(|| {
                let names = gathered.iter().map(|op| op.name().clone());
                Writing::begin(at, names)
            }),
        };
        let scope = at.scope().map(|scope| scope.id());
        let trip = match gathered.is_empty() {
            true => trip,
            false => trip.behind(gathered),
        };
        (trip.within(scope), behind)
    }

    /// Sends what a batch gathered.
    pub fn flush<'a>(&'a self, at: &'a Context) -> Step<(), impl FnOnce(Replies) + 'a> {
        match self.travel(at, Trip::new(), |_| ()) {
            Step::Ask(trip, _) if trip.is_empty() => Step::Done(()),
            step => step,
        }
    }

    /// Ends `scope`: reads the replies to what it posted. That is no trip.
    pub fn close(&self, scope: &Scope) -> Step<(), impl FnOnce(Replies) + use<>> {
        self.learn_visits(scope);
        scope.close();
        if scope.has_posted() {
            Step::Ask(Trip::drain(Some(scope.id())), |_| ())
        } else {
            Step::Done(())
        }
    }
}

/// How many operations of a batch go ahead of a trip's own.
struct Behind<'a> {
    count: usize,
    writing: Option<Writing<'a>>,
}

impl Behind<'_> {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Leaves the replies to the trip's own operations.
    fn strip(self, replies: &mut Replies) {
        drop(self.writing);
        if self.count > 0 {
            drop(replies.drain(..self.count.min(replies.len())));
        }
    }
}

/// A state write under way: nothing that was known of its names before holds after it.
///
/// It is noted when it begins and when this is dropped, whether its trip returned or was given up.
struct Writing<'a> {
    scope: Option<&'a Arc<Scope>>,
    names: SmallVec<[Bytes; 1]>,
    /// Whether it may change what is stored. If not, only the answers for its names end.
    changes: bool,
}

impl<'a> Writing<'a> {
    fn begin(at: &'a Context, names: impl IntoIterator<Item = Bytes>) -> Self {
        Self::of(at, names, true)
    }

    fn of(at: &'a Context, names: impl IntoIterator<Item = Bytes>, changes: bool) -> Self {
        let writing = Self {
            scope: at.scope(),
            names: names.into_iter().collect(),
            changes,
        };
        writing.note();
        writing
    }

    fn note(&self) {
        for name in &self.names {
            Slot::of(b"", name).write();
            single_flight::outdate(name);
        }
        if let Some(scope) = self.scope {
            scope.write(self.changes);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.note();
    }
}

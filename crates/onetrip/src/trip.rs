//! A batch of operations that travel to a store together and are answered together.
//!
//! Operations are data. A [`Trip`] is a list of [`Op`], and a store answers it with one [`Reply`]
//! for each, in their order. Whatever concerns all operations alike (counting, timing, failing,
//! tracing) can therefore be written once, around the one method that a store has.

use std::fmt;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::Error;

/// One operation on one name.
///
/// A `ttl` is the time that the entry has to live from now on; `None` keeps it until it is evicted.
/// It is never zero: an entry that would expire at once is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Reads an entry. Answered by [`Reply::Entry`].
    Get {
        /// The name to read.
        name: Bytes,
    },
    /// Writes an entry over whatever was there. Answered by [`Reply::Done`].
    Set {
        /// The name to write.
        name: Bytes,
        /// The whole entry, header and payload.
        entry: Bytes,
        /// How long it lives.
        ttl: Option<Duration>,
    },
    /// Writes an entry if there is none. Answered by [`Reply::Flag`]: whether it was written.
    Add {
        /// The name to write.
        name: Bytes,
        /// The whole entry, header and payload.
        entry: Bytes,
        /// How long it lives.
        ttl: Option<Duration>,
    },
    /// Removes an entry. Answered by [`Reply::Flag`]: whether there was one.
    Delete {
        /// The name to remove.
        name: Bytes,
    },
    /// Adds to the integer that an entry holds, keeping its time to live. Answered by
    /// [`Reply::Number`].
    Incr {
        /// The name that holds the integer.
        name: Bytes,
        /// What to add; negative to subtract.
        delta: i64,
    },
    /// Gives an entry a new time to live. Answered by [`Reply::Flag`]: whether there was one.
    Touch {
        /// The name to keep.
        name: Bytes,
        /// How long it lives from now on.
        ttl: Option<Duration>,
    },
    /// Removes every entry whose name begins with `prefix`. Answered by [`Reply::Count`].
    Clear {
        /// What the names begin with; empty for all of them.
        prefix: Bytes,
    },
}

impl Op {
    /// The operation's word, as traces and error messages print it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Add { .. } => "add",
            Self::Delete { .. } => "delete",
            Self::Incr { .. } => "incr",
            Self::Touch { .. } => "touch",
            Self::Clear { .. } => "clear",
        }
    }

    /// The name that it is about; for a [`Op::Clear`], the prefix.
    #[must_use]
    pub fn name(&self) -> &Bytes {
        match self {
            Self::Get { name }
            | Self::Set { name, .. }
            | Self::Add { name, .. }
            | Self::Delete { name }
            | Self::Incr { name, .. }
            | Self::Touch { name, .. } => name,
            Self::Clear { prefix } => prefix,
        }
    }

    /// Whether doing it twice leaves the same entries as doing it once.
    #[cfg(feature = "_remote")]
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Add { .. } | Self::Incr { .. })
    }

    /// Bytes of entries that the operation carries to the store.
    #[must_use]
    pub fn carries(&self) -> usize {
        match self {
            Self::Set { entry, .. } | Self::Add { entry, .. } => entry.len(),
            _ => 0,
        }
    }
}

/// An entry as a store holds it, and what the store knows of it besides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The whole entry, header and payload.
    pub bytes: Bytes,
    /// How long it had left to live when it was read. `None` if it never expires, and where the store
    /// does not tell this with its answer.
    pub left: Option<Duration>,
}

impl Stored {
    /// Returns an entry of which nothing else is known.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, left: None }
    }

    /// Returns this entry, which has `left` to live.
    #[must_use]
    pub fn with_left(self, left: Option<Duration>) -> Self {
        Self { left, ..self }
    }
}

/// A store's answer to one [`Op`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// The entry that was read, or `None` where there is none.
    Entry(Option<Stored>),
    /// It is written.
    Done,
    /// Whether something was there (or, for an [`Op::Add`], was not).
    Flag(bool),
    /// The new number, or `None` where there is no entry to add to.
    Number(Option<i64>),
    /// How many entries were removed.
    Count(u64),
    /// It was handed to the system on its way to the server. Its reply is read later.
    Posted,
    /// This operation failed, whatever became of the others. What it asked for is *unknown*.
    Failed(Error),
}

impl Reply {
    /// Why the operation failed, if it did.
    #[cfg(feature = "_remote")]
    pub(crate) fn failure(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Bytes of entries that the reply carries from the store.
    #[must_use]
    pub fn carries(&self) -> usize {
        match self {
            Self::Entry(Some(stored)) => stored.bytes.len(),
            _ => 0,
        }
    }
}

/// The answers to a trip, one for each operation, in their order. Reads as a slice.
///
/// Holds one reply without allocating.
///
/// ```
/// use onetrip::trip::{Replies, Reply};
///
/// let mut replies = Replies::from(Reply::Done);
/// replies.extend([Reply::Flag(true), Reply::Count(2)]);
/// assert_eq!(replies.len(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Replies(SmallVec<[Reply; 1]>);

impl Replies {
    /// Returns no replies.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns no replies, with room for as many.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(SmallVec::with_capacity(capacity))
    }

    /// Adds the reply to the next operation.
    #[inline]
    pub fn push(&mut self, reply: Reply) {
        self.0.push(reply);
    }

    /// Removes the last reply and returns it.
    #[inline]
    pub fn pop(&mut self) -> Option<Reply> {
        self.0.pop()
    }

    /// Removes the replies in `range` and returns them.
    #[inline]
    pub(crate) fn drain(
        &mut self,
        range: impl RangeBounds<usize>,
    ) -> impl ExactSizeIterator<Item = Reply> {
        self.0.drain(range)
    }
}

impl Deref for Replies {
    type Target = [Reply];

    #[inline]
    fn deref(&self) -> &[Reply] {
        &self.0
    }
}

impl DerefMut for Replies {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Reply] {
        &mut self.0
    }
}

impl From<Reply> for Replies {
    #[inline]
    fn from(reply: Reply) -> Self {
        Self(smallvec::smallvec![reply])
    }
}

impl From<Vec<Reply>> for Replies {
    fn from(replies: Vec<Reply>) -> Self {
        Self(replies.into())
    }
}

impl FromIterator<Reply> for Replies {
    #[inline]
    fn from_iter<I: IntoIterator<Item = Reply>>(replies: I) -> Self {
        Self(replies.into_iter().collect())
    }
}

impl Extend<Reply> for Replies {
    #[inline]
    fn extend<I: IntoIterator<Item = Reply>>(&mut self, replies: I) {
        self.0.extend(replies);
    }
}

impl IntoIterator for Replies {
    type Item = Reply;
    type IntoIter = IntoReplies;

    #[inline]
    fn into_iter(self) -> IntoReplies {
        IntoReplies(self.0.into_iter())
    }
}

impl<'a> IntoIterator for &'a Replies {
    type Item = &'a Reply;
    type IntoIter = std::slice::Iter<'a, Reply>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterates over [`Replies`] by value.
#[derive(Debug)]
pub struct IntoReplies(smallvec::IntoIter<[Reply; 1]>);

impl Iterator for IntoReplies {
    type Item = Reply;

    #[inline]
    fn next(&mut self) -> Option<Reply> {
        self.0.next()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoReplies {}

/// Identifies the scope that a trip is made in, within this process.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeId(u64);

impl ScopeId {
    /// Returns an id that no other scope of this process has.
    #[doc(hidden)]
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Receives the failures of posted writes that come to light when nobody waits for them any more.
///
/// Of each operation it is told once that it failed: by [`Reply::Failed`] if the store knew that
/// before the trip returned, or else here. It is called without a lock held, on whichever thread
/// found out. It lives as long as a reply is unread, so it must not own the cache.
#[doc(hidden)]
pub trait Late: Send + Sync {
    /// Counts `failed` writes that were posted and not carried out.
    fn failed(&self, failed: usize, error: &Error);
}

/// Says what the caller of a trip waits for.
#[doc(hidden)]
#[derive(Clone, Default)]
pub enum Purpose {
    /// The replies.
    #[default]
    Answer,
    /// Nothing: the writes are handed to the system at once or dropped, and never sent again. Each
    /// is answered with [`Reply::Posted`]; with [`Reply::Done`] where there was no connection to
    /// hand it to and one was made, and where tasks share connections; or with [`Reply::Failed`].
    Post(Arc<dyn Late>),
    /// The replies to what its scope posted, or, without a scope, to all that is posted. Such a
    /// trip has no operations of its own.
    Drain,
}

impl fmt::Debug for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "Answer",
            Self::Post(_) => "Post",
            Self::Drain => "Drain",
        })
    }
}

/// Operations that travel together.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    ops: SmallVec<[Op; 1]>,
    /// How many of them, the last ones, only came along: their failure is not the trip's.
    along: usize,
    scope: Option<ScopeId>,
    purpose: Purpose,
}

impl Trip {
    /// A trip without operations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a trip that reads the replies to what `scope` posted; to all that is posted if
    /// there is none.
    #[doc(hidden)]
    #[must_use]
    pub fn drain(scope: Option<ScopeId>) -> Self {
        Self {
            scope,
            purpose: Purpose::Drain,
            ..Self::default()
        }
    }

    /// Returns this trip, made in `scope`.
    #[doc(hidden)]
    #[must_use]
    pub fn within(mut self, scope: Option<ScopeId>) -> Self {
        self.scope = scope;
        self
    }

    /// Returns this trip, behind `ops`.
    pub(crate) fn behind(mut self, ops: Vec<Op>) -> Self {
        self.ops.insert_many(0, ops);
        self
    }

    /// Returns this trip as one that nobody waits for. `late` hears of its failures.
    #[doc(hidden)]
    #[must_use]
    pub fn posted(mut self, late: Arc<dyn Late>) -> Self {
        self.purpose = Purpose::Post(late);
        self
    }

    /// The scope that it is made in.
    #[doc(hidden)]
    #[must_use]
    pub fn scope(&self) -> Option<ScopeId> {
        self.scope
    }

    /// What its caller waits for.
    #[doc(hidden)]
    #[must_use]
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// Returns whether nobody waits for it.
    #[doc(hidden)]
    #[must_use]
    pub fn is_post(&self) -> bool {
        matches!(self.purpose, Purpose::Post(_))
    }

    /// Gives this trip the scope and the purpose of `other`.
    pub(crate) fn take_purpose_of(&mut self, other: &Self) {
        self.scope = other.scope;
        self.purpose = other.purpose.clone();
    }

    /// Adds one more operation.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Adds one that comes along, behind all others: whoever makes the trip does not ask for it,
    /// and hears of no failure of it.
    pub(crate) fn push_along(&mut self, op: Op) {
        self.ops.push(op);
        self.along += 1;
    }

    /// How many operations the trip is made for.
    pub(crate) fn own(&self) -> usize {
        self.ops.len() - self.along
    }

    /// Whether it reads.
    pub(crate) fn reads(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Get { .. }))
    }

    /// The operations, in the order in which they are answered.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How many operations travel.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether doing all of it twice leaves the same entries as doing it once. A delete may answer
    /// the second time that there was nothing, which is true by then.
    #[cfg(any(feature = "kyoto", feature = "memcached"))]
    pub(crate) fn is_repeatable(&self) -> bool {
        self.ops.iter().all(Op::is_repeatable)
    }

    /// The answer to a trip that failed as a whole: `error`, for each operation.
    #[must_use]
    pub fn failed(&self, error: &Error) -> Replies {
        self.ops
            .iter()
            .map(|_| Reply::Failed(error.clone()))
            .collect()
    }
}

impl From<Op> for Trip {
    fn from(op: Op) -> Self {
        Self {
            ops: smallvec::smallvec![op],
            ..Self::default()
        }
    }
}

impl Extend<Op> for Trip {
    fn extend<I: IntoIterator<Item = Op>>(&mut self, ops: I) {
        self.ops.extend(ops);
    }
}

impl FromIterator<Op> for Trip {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self {
            ops: ops.into_iter().collect(),
            ..Self::default()
        }
    }
}

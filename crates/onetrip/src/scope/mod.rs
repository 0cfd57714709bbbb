//! What one page (request, task) holds.
//!
//! Scopes nest, and all that are open for one cache around the same code share one [`Scope`]. It
//! holds two kinds of answers, and the reader decides which it may take.
//!
//! - *Pieces* are read by a fetch, or preloaded by name. They are good for `scope_max_age`, never
//!   past their own timeout, and for `read_max_age` once the response is being sent (`pieces`).
//! - The *snapshot* has the plain answers that one trip of a learned page brought. It is good for
//!   `read_max_age`, and every state write that changes something ends it (`snapshot`).
//!
//! State that is written anywhere in this process ends what a scope holds of that key
//! ([`write_clock`](crate::write_clock)).

mod pieces;
mod snapshot;
mod visits;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use self::pieces::Pieces;
pub(crate) use self::pieces::sooner;
pub(crate) use self::snapshot::Brought;
use self::snapshot::Snapshot;
pub(crate) use self::visits::Change;
use self::visits::Visits;
use crate::clock::{Clock, Moment};
use crate::codec::Memo;
use crate::entry::{BadEntry, Content};
use crate::latch::Latch;
use crate::trip::{Replies, ScopeId, Trip};
use crate::write_clock::{self, Slot, Stamp};

/// What a scope is open for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// Something other than a request: a job, a task, a test.
    #[default]
    Other,
    /// A request that changes nothing: GET or HEAD.
    SafeRequest,
    /// Any other request.
    Request,
}

/// How a key is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    /// By a plain call, within a scope that holds plain answers for as long as this.
    Plain(Option<Duration>),
    /// By a fetch whose values live as long as this.
    Piece(Option<Duration>),
}

/// The answers that one page holds for one cache.
pub struct Scope {
    id: ScopeId,
    clock: Clock,
    /// The prefix of its cache's names.
    prefix: Bytes,
    max_age: Duration,
    read_max_age: Duration,
    work: Work,
    /// Its place in the order of scopes and flights.
    began: u64,
    wrote: AtomicBool,
    has_posted: AtomicBool,
    state: Mutex<State>,
    /// Posts of tasks, which are under way.
    posts: Mutex<Vec<Arc<Latch>>>,
    companions: Mutex<SmallVec<[Arc<dyn Companion>; 1]>>,
}

/// An open scope of another cache on the same store: what its page reads comes along with the first
/// trip of this one.
pub(crate) trait Companion: Send + Sync {
    /// Adds to `trip` what its page is likely to read, unless its first trip was made. Returns what
    /// takes the replies.
    fn bring(&self, trip: &mut Trip) -> Option<Arrival>;
}

/// Takes the replies to what a companion added to a trip.
pub(crate) type Arrival = Box<dyn FnOnce(Replies) + Send>;

struct State {
    open: bool,
    /// Whether the response has begun to be sent.
    sending: bool,
    pieces: Pieces,
    snapshot: Snapshot,
    visits: Visits,
}

/// An answer, as it is held.
#[derive(Clone, Debug)]
enum Answer {
    Absent,
    Sealed(Bytes),
    Opened(Content, Option<Memo>),
}

/// What a scope answers for a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    Value(Content, Option<Memo>),
    Absent,
    Bad(BadEntry),
    Unknown,
}

/// What a scope knew when a trip departed. Its answers are kept only as far as that still holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    departed: Moment,
    stamp: Stamp,
    /// Which of the trips that bring a snapshot it is, and how many of them had arrived before.
    number: u64,
    arrived: u64,
    /// How many snapshots had ended before.
    ended: u64,
}

/// Returns the next place in the order of scopes and flights.
pub(crate) fn next_in_order() -> u64 {
    static ORDER: AtomicU64 = AtomicU64::new(0);
    ORDER.fetch_add(1, Ordering::SeqCst)
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("work", &self.work)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Scope {
    pub(crate) fn new(
        clock: Clock,
        prefix: Bytes,
        max_age: Duration,
        read_max_age: Duration,
        work: Work,
    ) -> Self {
        Self {
            id: ScopeId::next(),
            clock,
            prefix,
            max_age,
            read_max_age,
            work,
            began: next_in_order(),
            wrote: AtomicBool::new(false),
            has_posted: AtomicBool::new(false),
            state: Mutex::new(State {
                open: true,
                sending: false,
                pieces: Pieces::default(),
                snapshot: Snapshot::default(),
                visits: Visits::default(),
            }),
            posts: Mutex::default(),
            companions: Mutex::default(),
        }
    }

    /// Returns the slot of `key` in the clock of writes.
    fn slot(&self, key: &[u8]) -> Slot {
        Slot::of(&self.prefix, key)
    }

    /// The state, also after a panic elsewhere: every change to it is complete in itself.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.id
    }

    /// Returns whether the page is still being made. A closed scope holds nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().open
    }

    /// Returns whether its callers may join a flight that began at `flight`: they began before it,
    /// wrote nothing since, and are in no request that may change something.
    pub(crate) fn may_join(&self, flight: u64) -> bool {
        self.began < flight && self.work != Work::Request && !self.wrote.load(Ordering::Acquire)
    }

    /// Says that the response has begun to be sent: it may go on for long. From here on there is no
    /// snapshot, and pieces are at most `read_max_age` old.
    pub fn begin_sending(&self) {
        let mut state = self.state();
        state.sending = true;
        state.snapshot.end();
    }

    /// Ends the snapshot: news came another way than through this cache.
    pub fn refresh(&self) {
        let mut state = self.state();
        state.snapshot.end();
        state.pieces.end_plain();
    }

    /// Begins or ends a state write: no plain answer from before holds after it, unless the write
    /// `changes` nothing.
    pub(crate) fn write(&self, changes: bool) {
        self.wrote.store(true, Ordering::Release);
        if changes {
            self.state().snapshot.end();
        }
    }

    /// Ends the scope.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.pieces = Pieces::default();
        state.snapshot.end();
    }

    /// Returns what is known as a trip departs. `brings` says that the trip brings a snapshot.
    pub(crate) fn depart(&self, brings: bool) -> Ticket {
        let mut state = self.state();
        let (number, arrived, ended) = state.snapshot.depart(brings);
        Ticket {
            departed: self.clock.now(),
            stamp: write_clock::stamp(),
            number,
            arrived,
            ended,
        }
    }

    /// Answers a read of `key` if it can. At the first look, `open` opens the entry and tells when
    /// its value ends.
    pub(crate) fn look(
        &self,
        key: &[u8],
        reading: Reading,
        open: impl FnOnce(&Bytes) -> Result<(Content, Option<Duration>), BadEntry>,
    ) -> Lookup {
        let state = &mut *self.state();
        let limit = self.limit(state, reading);
        let found = state
            .pieces
            .look(&self.prefix, key, reading, limit, &self.clock);
        let answer = match (found, reading) {
            (Some(answer), _) => answer,
            (None, Reading::Plain(_)) if state.visits.verifies(key) => return Lookup::Unknown,
            (None, Reading::Plain(_)) => {
                let end = self.read_max_age;
                match state.snapshot.look(&self.prefix, key, end, &self.clock) {
                    Some(answer) => answer,
                    None => return Lookup::Unknown,
                }
            }
            (None, Reading::Piece(_)) => return Lookup::Unknown,
        };
        let (lookup, bytes) = match answer {
            Answer::Opened(content, memo) => (
                Lookup::Value(content.clone(), memo.clone()),
                Some(content.payload.len()),
            ),
            Answer::Sealed(entry) => match open(entry) {
                Ok((content, end)) => {
                    let bytes = content.payload.len();
                    *answer = Answer::Opened(content.clone(), None);
                    if end.is_some_and(|end| state.pieces.end_at(key, end, &self.clock)) {
                        return Lookup::Unknown;
                    }
                    (Lookup::Value(content, None), Some(bytes))
                }
                Err(bad) => {
                    state.pieces.forget(key);
                    state.snapshot.forget(key);
                    return Lookup::Bad(bad);
                }
            },
            Answer::Absent => (Lookup::Absent, None),
        };
        state.visits.note_held(key, reading, bytes);
        if bytes.is_none() {
            state.pieces.spend_absence(key, reading);
            state.snapshot.spend_absence(key);
        }
        lookup
    }

    /// Returns whether it would answer a read of `key`.
    pub(crate) fn answers(&self, key: &[u8], reading: Reading) -> bool {
        let state = &mut *self.state();
        let limit = self.limit(state, reading);
        let (pieces, snapshot) = (&mut state.pieces, &mut state.snapshot);
        pieces
            .look(&self.prefix, key, reading, limit, &self.clock)
            .is_some()
            || (matches!(reading, Reading::Plain(_))
                && !state.visits.verifies(key)
                && snapshot
                    .look(&self.prefix, key, self.read_max_age, &self.clock)
                    .is_some())
    }

    /// Returns how old an answer to such a read may be; none for the scope's usual age.
    fn limit(&self, state: &State, reading: Reading) -> Option<Duration> {
        match reading {
            Reading::Plain(Some(hold)) => Some(hold),
            Reading::Piece(Some(ttl)) if ttl < self.max_age => Some(match state.sending {
                true => ttl.min(self.read_max_age),
                false => ttl,
            }),
            _ => state.sending.then(|| self.max_age.min(self.read_max_age)),
        }
    }

    /// Keeps, beside the entry of `key`, what was decoded from it.
    pub(crate) fn memoize(&self, key: &[u8], of: &Content, decoded: Memo) {
        let state = &mut *self.state();
        let held = [state.pieces.answer(key), state.snapshot.answer(key)];
        for answer in held.into_iter().flatten() {
            if let Answer::Opened(content, memo) = answer
                // The same bytes, not equal ones: another task may have brought others meanwhile.
                && content.payload.as_ptr() == of.payload.as_ptr()
            {
                *memo = Some(decoded);
                return;
            }
        }
    }

    /// Adds a companion.
    pub(crate) fn accompany(&self, companion: Arc<dyn Companion>) {
        let mut all = self
            .companions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(companion);
    }

    pub(crate) fn companions(&self) -> SmallVec<[Arc<dyn Companion>; 1]> {
        let all = self
            .companions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    /// Notes that what was computed in it is posted: replies are to be read when it closes.
    pub(crate) fn will_post(&self) {
        self.has_posted.store(true, Ordering::Release);
    }

    pub(crate) fn has_posted(&self) -> bool {
        self.has_posted.load(Ordering::Acquire)
    }

    /// Remembers a post that is under way, to be waited for when the scope closes.
    pub fn posted(&self, post: Arc<Latch>) {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.retain(|post| !post.is_set());
        posts.push(post);
    }

    /// Takes the posts that are under way.
    #[must_use]
    pub fn take_posts(&self) -> Vec<Arc<Latch>> {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *posts)
    }
}

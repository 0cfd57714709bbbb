//! Fetch: look, claim, compute, store. The one operation behind everything that computes on a miss.
//!
//! What it reads and writes are pieces. A [`Fetch`] is driven by its face, which makes trips, waits
//! and computes as its language does:
//!
//! 1. [`Stage::Ask`]: all keys are looked up, in one trip. None if the scope holds them.
//! 2. [`Stage::Compute`]: what is missing is computed by the caller, unless another caller of this
//!    process is at it.
//! 3. [`Stage::Ask`]: what was computed is stored. Within a scope that is a post, which nobody
//!    waits for; otherwise it is one trip.
//! 4. [`Stage::Wait`]: what another caller computes is waited for. If that fails or takes too long,
//!    the caller computes it, and 3 follows.
//!
//! A page whose scope holds its pieces makes no trip.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::reads::Asked;
use super::{Behind, Found, Policy, Read, ResolvedTtl, Step, Ttl, Writing};
use crate::codec::Decode;
use crate::context::Context;
use crate::scope::{Reading, Ticket, sooner};
use crate::single_flight::{self, Caller, Claim, Claimant, Computing, Making, Waiting};
use crate::trip::{Op, Replies, Reply, Stored, Trip};

/// How a fetch stores what was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// Over whatever is there. In a scope nobody waits for it.
    Set,
    /// Unless something is there by then. The answer is what the store holds.
    Add,
}

/// What a face is to do next for a fetch.
#[derive(Debug)]
pub enum Stage {
    /// Make this trip and give its replies to [`Fetch::replied`].
    Ask(Trip),
    /// Hand this trip over, which nobody waits for.
    Post(Trip),
    /// Compute the values of the keys in these places, within [`Fetch::computing`], and give each
    /// to [`Fetch::made`]; what fails, to [`Fetch::failed`].
    Compute(SmallVec<[usize; 1]>),
    /// Wait until this flight is over, at most for its patience, and call [`Fetch::waited`].
    Wait(Waiting),
    /// It is over; [`Fetch::finish`] has the answers.
    Done,
}

/// What became of one key of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<V> {
    /// It has this value.
    Found(V),
    /// The caller computed it.
    Made,
    /// Computing it failed, or was not begun since another failed before.
    Failed,
    /// It is the same key as the one in that place.
    Same(usize),
}

enum State<V> {
    Unknown,
    Found(V),
    /// Its entry, if there is one, cannot be read and is to be replaced.
    /// It was waited for in vain if it is missing `again`.
    Missing {
        bad: bool,
        again: bool,
    },
    Waiting(Waiting),
    Making {
        making: Making,
        ticket: Option<Ticket>,
        bad: bool,
    },
    /// Computed and not stored yet.
    Sealed {
        making: Making,
        ticket: Option<Ticket>,
        bad: bool,
        entry: Bytes,
    },
    Made,
    Failed,
    Same(usize),
}

/// What was sent to store one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    /// An add, and a read behind it.
    Add,
    /// A read alone: its key was written meanwhile.
    Look,
}

/// One fetch of one key or several.
pub struct Fetch<'a, K, D: Decode> {
    policy: &'a Policy,
    at: &'a Context,
    decode: &'a D,
    keys: &'a [K],
    states: SmallVec<[State<D::Value>; 1]>,
    ttl: ResolvedTtl,
    storing: Storing,
    caller: Caller,
    alone: bool,
    refresh: bool,
    /// The look under way, and the places that it is for.
    asked: Option<(Asked, Behind<'a>, SmallVec<[usize; 1]>)>,
    /// The places that the store under way is for, and what goes ahead of it.
    storing_now: SmallVec<[(usize, Kind); 1]>,
    stored_behind: Option<Behind<'a>>,
    /// A refresh of values that live for no time removes what was there.
    removing: Option<Writing<'a>>,
    /// The place that is waited for.
    waiting_now: usize,
}

impl<K, D: Decode> std::fmt::Debug for Fetch<'_, K, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}

impl Policy {
    /// Reads a piece from the scope alone; `None` if the store has to be asked.
    ///
    /// A hit is not to pay for a fetch that has room for a trip.
    pub fn held_piece<D: Decode>(
        &self,
        at: &Context,
        key: &[u8],
        ttl: Ttl,
        decode: &D,
    ) -> Option<Read<D::Value>> {
        at.scope()?;
        self.held(at, key, Reading::Piece(self.resolve(ttl).span()), decode)
    }

    /// Reads one piece, and computes nothing. One trip at most.
    pub fn get_piece<'a, D: Decode>(
        &'a self,
        at: &'a Context,
        key: &'a [u8],
        decode: &'a D,
    ) -> Step<Found<D>, impl FnOnce(Replies) -> Found<D> + 'a> {
        let reading = Reading::Piece(None);
        match self.held(at, key, reading, decode) {
            Some(read) => Step::Done(read.found()),
            None => self.get_from_store(at, key, reading, decode),
        }
    }

    /// Begins a fetch of `keys`, whose values live for `ttl`.
    pub fn fetch<'a, K: AsRef<[u8]>, D: Decode>(
        &'a self,
        at: &'a Context,
        keys: &'a [K],
        ttl: Ttl,
        decode: &'a D,
        caller: Caller,
    ) -> Fetch<'a, K, D> {
        Fetch {
            policy: self,
            at,
            decode,
            keys,
            states: keys.iter().map(|_| State::Unknown).collect(),
            ttl: self.resolve(ttl),
            storing: Storing::Set,
            caller,
            alone: false,
            refresh: false,
            asked: None,
            storing_now: SmallVec::new(),
            stored_behind: None,
            removing: None,
            waiting_now: 0,
        }
    }
}

impl<'a, K: AsRef<[u8]>, D: Decode> Fetch<'a, K, D> {
    /// Stores by [`Storing::Add`]: what others stored meanwhile is kept, and is the answer.
    #[must_use]
    pub fn adding(mut self) -> Self {
        self.storing = Storing::Add;
        self
    }

    /// Computes without looking.
    #[must_use]
    pub fn refreshing(mut self) -> Self {
        self.refresh = true;
        for (place, state) in self.states.iter_mut().enumerate() {
            *state = match first(self.keys, place) {
                Some(first) => State::Same(first),
                None => State::missing(false),
            };
        }
        self
    }

    /// Keeps it apart from other callers, as within a database transaction.
    #[must_use]
    pub fn alone(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }

    /// Begins where [`Policy::held_piece`] ended: nothing that can be read is there.
    #[must_use]
    pub fn after(mut self, held: &Option<Read<D::Value>>) -> Self {
        if let (Some(state), Some(held)) = (self.states.first_mut(), held) {
            *state = State::missing(matches!(held, Read::Bad));
        }
        self
    }

    /// Returns what is to be done next.
    pub fn advance(&mut self) -> Stage {
        if let Some(trip) = self.look() {
            return Stage::Ask(trip);
        }
        let places = self.claim();
        if !places.is_empty() {
            return Stage::Compute(places);
        }
        if let Some(stage) = self.store() {
            return stage;
        }
        for (place, state) in self.states.iter_mut().enumerate() {
            if matches!(state, State::Waiting(_))
                && let State::Waiting(waiting) = std::mem::replace(state, State::missing(false))
            {
                self.waiting_now = place;
                return Stage::Wait(waiting);
            }
        }
        Stage::Done
    }

    /// Looks up what the scope does not answer.
    fn look(&mut self) -> Option<Trip> {
        let reading = Reading::Piece(self.ttl.span());
        let mut wanted = SmallVec::<[usize; 1]>::new();
        for (place, key) in self.keys.iter().enumerate() {
            let Some(state @ State::Unknown) = self.states.get_mut(place) else {
                continue;
            };
            if let Some(first) = first(self.keys, place) {
                *state = State::Same(first);
                continue;
            }
            match self
                .policy
                .held(self.at, key.as_ref(), reading, self.decode)
            {
                Some(read) => *state = State::of(read),
                None => wanted.push(place),
            }
        }
        if wanted.is_empty() {
            return None;
        }
        let mut trip = Trip::new();
        let keys: SmallVec<[&[u8]; 1]> = wanted.iter().filter_map(|at| self.key(*at)).collect();
        let asked = self.policy.ask_for(self.at, &keys, reading, &mut trip);
        let (trip, behind) = self.policy.load(self.at, trip);
        self.asked = Some((asked, behind, wanted));
        Some(trip)
    }

    fn key(&self, place: usize) -> Option<&'a [u8]> {
        self.keys.get(place).map(AsRef::as_ref)
    }

    /// Takes the replies to the trip that [`advance`](Self::advance) gave last.
    pub fn replied(&mut self, mut replies: Replies) {
        let Some((asked, behind, wanted)) = self.asked.take() else {
            return self.is_stored(replies);
        };
        behind.strip(&mut replies);
        let keys: SmallVec<[&[u8]; 1]> = wanted.iter().filter_map(|at| self.key(*at)).collect();
        let states = &mut self.states;
        let keys = keys.into_iter();
        self.policy
            .answer(self.at, asked, keys, replies, self.decode, |nth, read| {
                let place = wanted.get(nth).copied().unwrap_or_default();
                if let Some(state) = states.get_mut(place) {
                    *state = State::of(read);
                }
            });
    }

    /// Claims what is missing. Returns the places of what this caller is to compute.
    fn claim(&mut self) -> SmallVec<[usize; 1]> {
        let mut places = SmallVec::new();
        for (place, key) in self.keys.iter().enumerate() {
            let Some(State::Missing { bad, again }) = self.states.get(place) else {
                continue;
            };
            let (bad, key) = (*bad, key.as_ref());
            let alone = self.alone || self.policy.disabled;
            let claimant = Claimant {
                caller: self.caller,
                computing: self.at.computing(),
                costs: &self.policy.costs,
                // A waiter waits for one flight.
                joins: !alone && !again && !self.refresh,
                shared: !alone,
            };
            let may_join = |flight| {
                let scope = self.at.scope().filter(|scope| scope.is_open());
                scope.is_none_or(|scope| scope.may_join(flight))
            };
            let name = self.policy.keyspace.name(key);
            let slot = self.policy.slot(key);
            let claim = single_flight::claim(self.policy.store, name, slot, claimant, may_join);
            let state = match claim {
                Claim::Wait(waiting) => State::Waiting(waiting),
                Claim::Compute(making) => {
                    places.push(place);
                    State::Making {
                        making,
                        ticket: self.at.scope().map(|scope| scope.depart(false)),
                        bad,
                    }
                }
            };
            if let Some(place) = self.states.get_mut(place) {
                *place = state;
            }
        }
        places
    }

    /// Returns what is being computed, for the [`Context`] to compute it in.
    #[must_use]
    pub fn computing(&self) -> Arc<Computing> {
        let makings = self.states.iter().filter_map(|state| match state {
            State::Making { making, .. } => Some(making),
            _ => None,
        });
        single_flight::computing(makings, self.at.computing())
    }

    /// Takes the entry that was computed for the key in `place`, as [`Policy::seal`] makes it.
    pub fn made(&mut self, place: usize, entry: Bytes) {
        self.change(place, |state| match state {
            State::Making {
                making,
                ticket,
                bad,
            } => State::Sealed {
                making,
                ticket,
                bad,
                entry,
            },
            state => state,
        });
    }

    /// Notes that computing the value of the key in `place` failed, or was not begun.
    pub fn failed(&mut self, place: usize) {
        self.change(place, |_| State::Failed);
    }

    fn change(&mut self, place: usize, change: impl FnOnce(State<D::Value>) -> State<D::Value>) {
        if let Some(state) = self.states.get_mut(place) {
            *state = change(std::mem::replace(state, State::Failed));
        }
    }

    /// Stores what was computed.
    fn store(&mut self) -> Option<Stage> {
        let mut trip = Trip::new();
        let mut places = SmallVec::new();
        let mut removed = SmallVec::<[Bytes; 1]>::new();
        for (place, key) in self.keys.iter().enumerate() {
            let Some(state @ State::Sealed { .. }) = self.states.get_mut(place) else {
                continue;
            };
            let State::Sealed {
                making, bad, entry, ..
            } = &*state
            else {
                continue;
            };
            let name = self.policy.keyspace.name(key.as_ref());
            // What was computed before its key was written is not to be put back after it.
            if self.policy.disabled || making.is_outdated() {
                if self.policy.disabled || self.storing == Storing::Set {
                    *state = State::Made;
                } else {
                    // What was written is what callers agree on.
                    trip.push(Op::Get { name });
                    places.push((place, Kind::Look));
                }
                continue;
            }
            let entry = entry.clone();
            match (self.ttl, self.storing) {
                (ResolvedTtl::Expired, _) => {
                    *state = State::Made;
                    if self.refresh {
                        removed.push(name.clone());
                        trip.push(Op::Delete { name });
                    }
                    continue;
                }
                // Adding would never replace what nobody can read.
                (ResolvedTtl::Keep(ttl), Storing::Add) if !bad => {
                    trip.push(Op::Add {
                        name: name.clone(),
                        entry,
                        ttl,
                    });
                    trip.push(Op::Get { name });
                    places.push((place, Kind::Add));
                }
                (ResolvedTtl::Keep(ttl), _) => {
                    trip.push(Op::Set { name, entry, ttl });
                    places.push((place, Kind::Set));
                }
            }
        }
        if trip.is_empty() {
            return None;
        }
        self.storing_now = places;
        self.removing = (!removed.is_empty()).then(|| Writing::begin(self.at, removed));
        let (trip, behind) = self.policy.load(self.at, trip);
        let is_post = self.storing == Storing::Set
            && matches!(self.ttl, ResolvedTtl::Keep(_))
            // What a batch gathered is waited for, and this keeps its place behind it.
            && behind.is_empty();
        self.stored_behind = Some(behind);
        let scope = self.at.scope().filter(|scope| scope.is_open());
        Some(match (&self.policy.late, scope) {
            (Some(late), Some(scope)) if is_post => {
                scope.will_post();
                Stage::Post(trip.posted(Arc::clone(late)))
            }
            _ => Stage::Ask(trip),
        })
    }

    /// Takes the replies to a store.
    fn is_stored(&mut self, mut replies: Replies) {
        self.removing = None;
        if let Some(behind) = self.stored_behind.take() {
            behind.strip(&mut replies);
        }
        let mut replies = replies.into_iter();
        for (place, kind) in std::mem::take(&mut self.storing_now) {
            let Some(key) = self.key(place) else {
                continue;
            };
            let Some(state) = self.states.get_mut(place) else {
                continue;
            };
            let State::Sealed {
                making,
                ticket,
                entry,
                ..
            } = std::mem::replace(state, State::Made)
            else {
                continue;
            };
            let first = replies.next();
            let second = (kind == Kind::Add).then(|| replies.next()).flatten();
            let stored = match (kind, first, second) {
                (Kind::Set, Some(Reply::Done | Reply::Posted), _)
                | (Kind::Add, Some(Reply::Flag(true)), _) => Some(Stored::new(entry.clone())),
                (Kind::Add, Some(Reply::Flag(false)), Some(Reply::Entry(theirs)))
                | (Kind::Look, Some(Reply::Entry(theirs)), _) => theirs,
                _ => None,
            };
            let (policy, at) = (self.policy, self.at);
            let left = stored.as_ref().and_then(|stored| stored.left);
            let stored = stored.map(|stored| stored.bytes);
            let held = stored.clone().unwrap_or_else(|| entry.clone());
            if held != entry {
                // Others came first, and what they agreed on is the answer.
                if let Some(theirs) = policy.shared(at, key, &held, self.decode) {
                    *state = State::Found(theirs);
                }
            }
            if let (Some(scope), Some(ticket), ResolvedTtl::Keep(ttl)) =
                (at.scope(), ticket, self.ttl)
            {
                // Of what was written meanwhile, the clock of writes ends it at once.
                scope.note_made(key, held.len());
                scope.keep_made(ticket, key, held, sooner(ttl, left));
            }
            match stored {
                Some(stored) => making.share(stored),
                None => drop(making),
            }
        }
    }

    /// Takes a flight that was waited for: what it stored, if it is over by now and stored it.
    pub fn waited(&mut self, waiting: Waiting) {
        let place = self.waiting_now;
        // Before it is taken: what is written from here on is not in it.
        let ticket = self.at.scope().map(|scope| scope.depart(false));
        let entry = waiting.entry();
        drop(waiting);
        let Some(key) = self.key(place) else {
            return;
        };
        let (policy, at) = (self.policy, self.at);
        let value = entry
            .as_ref()
            .and_then(|entry| policy.shared(at, key, entry, self.decode));
        let state = match (value, entry) {
            (Some(value), Some(entry)) => {
                if let (Some(scope), Some(ticket), ResolvedTtl::Keep(ttl)) =
                    (at.scope(), ticket, self.ttl)
                {
                    scope.keep_made(ticket, key, entry, ttl);
                }
                State::Found(value)
            }
            _ => State::Missing {
                bad: false,
                again: true,
            },
        };
        self.change(place, |_| state);
    }

    /// Returns what became of each key.
    pub fn finish(self) -> SmallVec<[Outcome<D::Value>; 1]> {
        let states = self.states.into_iter();
        states
            .map(|state| match state {
                State::Found(value) => Outcome::Found(value),
                State::Same(first) => Outcome::Same(first),
                State::Made | State::Sealed { .. } => Outcome::Made,
                _ => Outcome::Failed,
            })
            .collect()
    }
}

/// Returns the place of the same key before this one.
fn first<K: AsRef<[u8]>>(keys: &[K], place: usize) -> Option<usize> {
    let key = keys.get(place)?.as_ref();
    let mut before = keys.iter().take(place);
    before.position(|other| other.as_ref() == key)
}

impl<V> State<V> {
    fn missing(bad: bool) -> Self {
        Self::Missing { bad, again: false }
    }

    fn of(read: Read<V>) -> Self {
        match read {
            Read::Found(value) => Self::Found(value),
            Read::Absent => Self::missing(false),
            Read::Bad => Self::missing(true),
        }
    }
}

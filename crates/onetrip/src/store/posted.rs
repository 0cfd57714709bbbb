//! Writes that were posted to one server: sent, and not waited for.
//!
//! A connection with unread replies is *parked* here. It serves only the scope that posted on it,
//! until somebody has read the replies: the scope's next trip, with its own answer; the scope's
//! end; or anybody else's trip that names one of the posted names.
//!
//! # Order
//!
//! Operations of one process on one name take effect in the order in which they were made,
//! whichever connections they travel by. A post is [registered](Posted::register) by name before
//! its caller goes on, and stays so until its reply is read. Whatever names it meanwhile goes out
//! behind it on the same connection, or waits for that reply:
//!
//! - An ordinary trip waits for all posts that it meets, and nothing waits for it here: who was
//!   not answered yet knows nothing of an order.
//! - A post waits for those that were registered before it, never for later ones. So nobody waits
//!   in a circle.
//! - Who waits holds no parked connection. Who has taken one waits for the server alone.
//!
//! Two threads that delete and post one name at the same time may be answered in either order, as
//! without posts. A delete that fails meanwhile becomes owed, and goes ahead of the next trip: it
//! removes a piece that is fresh, never the other way round.
//!
//! # Locks
//!
//! One mutex, held for no longer than it takes to look something up. Nothing else is locked within
//! it, and no foreign code is called: [`Late`] hears of failures, waiters are woken, and
//! connections go back to their pools outside of it.

mod held;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::Notify;

use self::held::given_up;
pub(super) use self::held::{Held, Park, Ticket};
use super::pool::Pool;
use crate::blocking_runtimes::{self, PollMode};
use crate::process::PerProcess;
use crate::trip::{Late, Op, Purpose, ScopeId, Trip};

/// What was posted to one server and is not read yet.
pub(super) struct Posted<C>(Arc<Book<C>>);

struct Book<C> {
    /// How many posts there are, so that nobody else is looked for while it is zero. In a forked
    /// child it stays above by those of its parent.
    count: AtomicUsize,
    /// What was posted belongs to the process that posted it.
    here: PerProcess<Here<C>>,
}

struct Here<C> {
    table: Mutex<Table<C>>,
    /// Wakes those who wait whenever a post ends or a connection is parked.
    changed: Arc<Notify>,
}

struct Table<C> {
    last: u64,
    posts: HashMap<u64, Post>,
    /// The posts of each name, mostly one.
    names: HashMap<Bytes, SmallVec<[u64; 1]>>,
    parked: Vec<Parked<C>>,
}

/// One trip of posted writes.
struct Post {
    scope: Option<ScopeId>,
    names: Vec<Bytes>,
    late: Arc<dyn Late>,
    /// The shared connection on which it was sent, if it was one.
    road: Option<u64>,
}

/// A connection with unread replies.
struct Parked<C> {
    connection: C,
    home: Arc<Pool<C>>,
    scope: Option<ScopeId>,
    /// When something was last posted on it.
    since: Instant,
    /// In the order of their replies.
    posts: Vec<u64>,
}

/// A trip that is about to leave.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) ops: &'a [Op],
    pub(super) scope: Option<ScopeId>,
    /// The registration of the trip itself, if it is a post.
    pub(super) ticket: Option<u64>,
    /// The shared connection that it will use: what was posted there goes ahead of it.
    pub(super) road: Option<u64>,
    /// Whether it may use a connection that its scope has parked.
    pub(super) rides: bool,
}

impl<'a> Call<'a> {
    /// A trip that is waited for. On the lane of its scope it may use what the scope has parked.
    pub(super) fn trip(trip: &'a Trip) -> Self {
        Self {
            ops: trip.ops(),
            scope: trip.scope(),
            ticket: None,
            road: None,
            rides: blocking_runtimes::poll_mode() != PollMode::Shared,
        }
    }

    /// A post with its registration.
    pub(super) fn post(trip: &'a Trip, ticket: u64, rides: bool) -> Self {
        Self {
            ticket: Some(ticket),
            rides,
            ..Self::trip(trip)
        }
    }
}

/// What a trip has to do next.
pub(super) enum Next<C: Park> {
    /// Leave, on this connection of its scope if there is one.
    Go(Option<Held<C>>),
    /// Read the replies on this connection.
    Read(Held<C>),
    /// Wait until something changes.
    Wait,
}

impl<C: Park> Posted<C> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Book {
            count: AtomicUsize::new(0),
            here: PerProcess::default(),
        }))
    }

    /// Whether nothing is posted. Of a process that was forked while something was it may be
    /// `false` all the same.
    pub(super) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Whether `scope` has posted something, or anybody has.
    pub(super) fn has(&self, scope: Option<ScopeId>) -> bool {
        !self.is_empty()
            && self.0.table(|table| {
                let mut posts = table.posts.values();
                posts.any(|post| is_of(scope, post.scope))
            })
    }

    /// Registers `trip`, whose operations are writes, as posted from now on. `None` if it is no post.
    pub(super) fn register(&self, trip: &Trip) -> Option<Ticket<C>> {
        let Purpose::Post(late) = trip.purpose() else {
            return None;
        };
        let names = trip.ops().iter().map(|op| op.name().clone());
        let post = Post {
            scope: trip.scope(),
            names: names.collect(),
            late: Arc::clone(late),
            road: None,
        };
        let id = self.0.table(|table| {
            table.last += 1;
            let id = table.last;
            for name in &post.names {
                let posts = table.names.entry(name.clone()).or_default();
                if posts.last() != Some(&id) {
                    posts.push(id);
                }
            }
            table.posts.insert(id, post);
            // Within the lock: who finds the table empty has not missed it.
            self.0.count.fetch_add(1, Ordering::Release);
            id
        });
        Some(Ticket::new(&self.0, id))
    }

    /// What `call` has to do next. One step: whoever did it asks again.
    pub(super) fn next(&self, call: &Call<'_>) -> Next<C> {
        self.take(|table| {
            let mut own = None;
            let mut waits = false;
            for id in table.met_by(call) {
                let Some(post) = table.posts.get(&id) else {
                    continue;
                };
                if post.road.is_some() && post.road == call.road {
                    continue;
                }
                match table.place_of(id) {
                    Some(place)
                        if own.is_none_or(|own| own == place) && table.rides(call, place) =>
                    {
                        own = Some(place);
                    }
                    Some(place) => return Choice::Read(place),
                    None => waits = true,
                }
            }
            if waits {
                return Choice::Wait;
            }
            let places = || 0..table.parked.len();
            Choice::Go(own.or_else(|| places().find(|place| table.rides(call, *place))))
        })
    }

    /// What is to be done until nothing of `scope`, or of anybody, is posted any more.
    pub(super) fn rest(&self, scope: Option<ScopeId>) -> Next<C> {
        self.take(|table| {
            let mut posts = table.posts.iter();
            let found = table
                .parked
                .iter()
                .position(|parked| is_of(scope, parked.scope));
            match found {
                Some(place) => Choice::Read(place),
                None if posts.any(|(_, post)| is_of(scope, post.scope)) => Choice::Wait,
                None => Choice::Go(None),
            }
        })
    }

    /// A connection on which nothing was posted since `then`.
    pub(super) fn forgotten(&self, then: Instant) -> Option<Held<C>> {
        let next = self.take(|table| {
            let found = table.parked.iter().position(|parked| parked.since < then);
            found.map_or(Choice::Wait, Choice::Read)
        });
        match next {
            Next::Read(held) => Some(held),
            _ => None,
        }
    }

    /// Notes that a post was sent on a shared connection: who uses the same one follows it.
    #[cfg(feature = "redis")]
    pub(super) fn sent(&self, ticket: u64, road: u64) {
        let is_known = self.0.table(|table| {
            let post = table.posts.get_mut(&ticket);
            post.map(|post| post.road = Some(road)).is_some()
        });
        if is_known {
            self.0.here.with(|here| here.changed.notify_waiters());
        }
    }

    /// Tells when something has changed, for those who ask for it before they look.
    pub(super) fn changed(&self) -> Arc<Notify> {
        self.0.here.with(|here| Arc::clone(&here.changed))
    }

    fn take(&self, choose: impl FnOnce(&Table<C>) -> Choice) -> Next<C> {
        let take = |parked: Parked<C>, resumable| Held {
            connection: Some(parked.connection),
            home: parked.home,
            scope: parked.scope,
            since: Some(parked.since),
            tickets: (parked.posts.into_iter())
                .map(|id| Ticket::new(&self.0, id))
                .collect(),
            roams: true,
            resumable,
        };
        self.0.table(|table| match choose(table) {
            Choice::Go(None) => Next::Go(None),
            Choice::Go(Some(place)) => Next::Go(Some(take(table.parked.remove(place), false))),
            Choice::Read(place) => Next::Read(take(table.parked.remove(place), true)),
            Choice::Wait => Next::Wait,
        })
    }
}

/// What to do, with a place among the parked connections.
enum Choice {
    Go(Option<usize>),
    Read(usize),
    Wait,
}

fn is_of(scope: Option<ScopeId>, other: Option<ScopeId>) -> bool {
    scope.is_none() || scope == other
}

impl<C> Table<C> {
    /// The posts that `call` must not overtake.
    fn met_by(&self, call: &Call<'_>) -> SmallVec<[u64; 8]> {
        let is_clear = |op: &Op| matches!(op, Op::Clear { .. });
        let mut met: SmallVec<[u64; 8]> = if call.ops.iter().any(is_clear) {
            self.posts.keys().copied().collect()
        } else {
            let posts = call.ops.iter().filter_map(|op| self.names.get(op.name()));
            posts.flatten().copied().collect()
        };
        met.retain(|id| call.ticket.is_none_or(|own| *id < own));
        met.sort_unstable();
        met.dedup();
        met
    }

    /// Where the connection is parked on which this was posted.
    fn place_of(&self, id: u64) -> Option<usize> {
        self.parked
            .iter()
            .position(|parked| parked.posts.contains(&id))
    }

    fn rides(&self, call: &Call<'_>, place: usize) -> bool {
        let parked = self.parked.get(place);
        call.rides
            && call.scope.is_some()
            && parked.is_some_and(|parked| parked.scope == call.scope)
    }

    fn remove(&mut self, id: u64) -> Option<Post> {
        let post = self.posts.remove(&id)?;
        for name in &post.names {
            if let Some(posts) = self.names.get_mut(name) {
                posts.retain(|other| *other != id);
                if posts.is_empty() {
                    self.names.remove(name);
                }
            }
        }
        Some(post)
    }
}

impl<C> Book<C> {
    fn table<T>(&self, look: impl FnOnce(&mut Table<C>) -> T) -> T {
        self.here
            .with(|here| look(&mut here.table.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Ends a post, if it did not end before.
    fn end(&self, id: u64) -> Option<Post> {
        let post = self.table(|table| {
            let post = table.remove(id);
            if post.is_some() {
                self.count.fetch_sub(1, Ordering::Release);
            }
            post
        });
        if post.is_some() {
            self.here.with(|here| here.changed.notify_waiters());
        }
        post
    }
}

/// Tells what is lost. A connection with unread replies that is closed may lose what was posted.
impl<C> Drop for Book<C> {
    fn drop(&mut self) {
        let (posts, parked) = self.table(|table| {
            let parked = std::mem::take(&mut table.parked);
            (std::mem::take(&mut table.posts), parked)
        });
        drop(parked);
        for post in posts.values() {
            post.late.failed(post.names.len(), &given_up());
        }
    }
}

impl<C> Default for Here<C> {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table {
                last: 0,
                posts: HashMap::new(),
                names: HashMap::new(),
                parked: Vec::new(),
            }),
            changed: Arc::default(),
        }
    }
}

impl<C> fmt::Debug for Posted<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Posted").field(&self.0.count).finish()
    }
}

#[cfg(test)]
mod tests;

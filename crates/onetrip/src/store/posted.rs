//! Writes posted to one server: sent without waiting for their replies.
//!
//! A connection with unread replies is *parked* here. It serves only the scope that posted on it,
//! until its replies are read: by the scope's next trip, at the scope's end, or by any trip that
//! uses one of the posted names.
//!
//! # Order
//!
//! Operations of one process on one name take effect in the order in which they were made, on
//! whichever connections they are sent. A post is [registered](Posted::register) by name before its
//! caller continues, and stays registered until its reply is read. Meanwhile, an operation on that
//! name follows on the same connection, or waits for the reply:
//!
//! - An ordinary trip waits for all posts of its names. No post waits for an ordinary trip: its
//!   caller has no answer yet, so their order is undefined.
//! - A post waits for earlier posts, never for later ones. So there are no deadlocks.
//! - A waiting trip holds no parked connection. A trip with a parked connection waits only for the
//!   server.
//!
//! Two threads that delete and post one name at the same time may be answered in either order, as
//! without posts. A delete that fails meanwhile becomes pending and is sent ahead of the next trip.
//! It may delete a fresh piece; it never leaves an old one.
//!
//! # Locks
//!
//! There is one mutex, held only for look-ups. No other lock is taken while it is held, and no
//! foreign code is called: [`Late`] is told of failures, waiters are woken and connections return
//! to their pools after it is released.

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

/// The posts to one server whose replies are unread.
pub(super) struct Posted<C>(Arc<Book<C>>);

struct Book<C> {
    /// The number of posts. While it is zero, trips skip the table. In a forked child it also
    /// counts the parent's posts at the fork.
    count: AtomicUsize,
    /// Posts belong to the process that made them.
    here: PerProcess<Here<C>>,
}

struct Here<C> {
    table: Mutex<Table<C>>,
    /// Wakes all waiters when a post ends or a connection is parked.
    changed: Arc<Notify>,
}

struct Table<C> {
    last: u64,
    posts: HashMap<u64, Post>,
    /// The posts of each name; mostly one.
    names: HashMap<Bytes, SmallVec<[u64; 1]>>,
    parked: Vec<Parked<C>>,
}

/// One trip of posted writes.
struct Post {
    scope: Option<ScopeId>,
    names: Vec<Bytes>,
    late: Arc<dyn Late>,
    /// The shared connection on which it was sent, if any.
    shared_id: Option<u64>,
}

/// A connection with unread replies.
struct Parked<C> {
    connection: C,
    home: Arc<Pool<C>>,
    scope: Option<ScopeId>,
    /// Time of the last post on it.
    since: Instant,
    /// In the order of their replies.
    posts: Vec<u64>,
}

/// A trip that is about to be sent.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) ops: &'a [Op],
    pub(super) scope: Option<ScopeId>,
    /// The registration of the trip itself, if it is a post.
    pub(super) ticket: Option<u64>,
    /// The shared connection that it will use: posts on it are ahead of the trip.
    pub(super) shared_id: Option<u64>,
    /// Whether it may use a connection that its scope has parked.
    pub(super) may_use_parked: bool,
}

impl<'a> Call<'a> {
    /// Returns the call of a trip with answers. In a blocking runtime it may use connections that
    /// its scope has parked.
    pub(super) fn trip(trip: &'a Trip) -> Self {
        Self {
            ops: trip.ops(),
            scope: trip.scope(),
            ticket: None,
            shared_id: None,
            may_use_parked: blocking_runtimes::poll_mode() != PollMode::Shared,
        }
    }

    /// Returns the call of a registered post.
    pub(super) fn post(trip: &'a Trip, ticket: u64, may_use_parked: bool) -> Self {
        Self {
            ticket: Some(ticket),
            may_use_parked,
            ..Self::trip(trip)
        }
    }
}

/// The next step of a trip.
pub(super) enum Next<C: Park> {
    /// Send it, on this connection of its scope if there is one.
    Go(Option<Held<C>>),
    /// Read the replies on this connection first.
    Read(Held<C>),
    /// Wait until the table changes.
    Wait,
}

impl<C: Park> Posted<C> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Book {
            count: AtomicUsize::new(0),
            here: PerProcess::default(),
        }))
    }

    /// Returns whether there are no posts. In a process that was forked while there were some, it
    /// may return `false` without any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Returns whether there are posts of `scope`. `None` means of any scope.
    pub(super) fn has(&self, scope: Option<ScopeId>) -> bool {
        !self.is_empty()
            && self.0.table(|table| {
                let mut posts = table.posts.values();
                posts.any(|post| is_of(scope, post.scope))
            })
    }

    /// Registers `trip`, whose operations are writes. Returns `None` if it is not a post.
    pub(super) fn register(&self, trip: &Trip) -> Option<Ticket<C>> {
        let Purpose::Post(late) = trip.purpose() else {
            return None;
        };
        let names = trip.ops().iter().map(|op| op.name().clone());
        let post = Post {
            scope: trip.scope(),
            names: names.collect(),
            late: Arc::clone(late),
            shared_id: None,
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
            // Under the lock, so that no trip misses the post.
            self.0.count.fetch_add(1, Ordering::Release);
            id
        });
        Some(Ticket::new(&self.0, id))
    }

    /// Returns the next step of `call`. Call it again after each step until it is [`Next::Go`].
    pub(super) fn next(&self, call: &Call<'_>) -> Next<C> {
        self.take(|table| {
            let mut own = None;
            let mut waits = false;
            for id in table.met_by(call) {
                let Some(post) = table.posts.get(&id) else {
                    continue;
                };
                if post.shared_id.is_some() && post.shared_id == call.shared_id {
                    continue;
                }
                match table.place_of(id) {
                    Some(place)
                        if own.is_none_or(|own| own == place) && table.may_use(call, place) =>
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
            Choice::Go(own.or_else(|| places().find(|place| table.may_use(call, *place))))
        })
    }

    /// Returns the next step of draining the posts of `scope`. `None` means of all scopes.
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

    /// Takes a parked connection without posts since `then`.
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

    /// Records that a post was sent on a shared connection: trips on the same one follow it.
    #[cfg(feature = "redis")]
    pub(super) fn sent(&self, ticket: u64, shared_id: u64) {
        let is_known = self.0.table(|table| {
            let post = table.posts.get_mut(&ticket);
            post.map(|post| post.shared_id = Some(shared_id)).is_some()
        });
        if is_known {
            self.0.here.with(|here| here.changed.notify_waiters());
        }
    }

    /// Returns the notifier of changes. Register with it before calling [`next`](Self::next).
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
            may_change_runtime: true,
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

/// A step, by the index of a parked connection.
enum Choice {
    Go(Option<usize>),
    Read(usize),
    Wait,
}

fn is_of(scope: Option<ScopeId>, other: Option<ScopeId>) -> bool {
    scope.is_none() || scope == other
}

impl<C> Table<C> {
    /// Returns the posts that `call` must not overtake.
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

    /// Returns the index of the parked connection on which this was posted.
    fn place_of(&self, id: u64) -> Option<usize> {
        self.parked
            .iter()
            .position(|parked| parked.posts.contains(&id))
    }

    fn may_use(&self, call: &Call<'_>, place: usize) -> bool {
        let parked = self.parked.get(place);
        call.may_use_parked
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

    /// Ends a post. Returns it if it had not ended before.
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

/// Reports all posts as failed: closing a connection with unread replies may lose them.
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

//! Connections in use with posts whose replies are unread.

use std::fmt;
#[cfg(any(feature = "kyoto", feature = "memcached"))]
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Book, Parked};
use crate::error::{Error, ErrorKind};
use crate::store::pool::Pool;
use crate::trip::{Reply, ScopeId};

/// A connection that can be parked.
pub(in crate::store) trait Park: Send + 'static {
    /// Deregisters it from the reactor: its next user may be in another runtime.
    fn unwatch(&mut self);

    /// Resets the connection when it is dropped: bytes that were not delivered by then never are.
    fn abort(&self);
}

/// The registration of one post. Dropping it ends the post.
pub(in crate::store) struct Ticket<C> {
    book: Arc<Book<C>>,
    id: u64,
    /// Whether dropping it ends the post. `false` for posts of parked connections.
    ends: bool,
}

/// A connection in use, with the posts whose replies must be read from it first.
///
/// Dropping it closes the connection, and its posts count as failed.
pub(in crate::store) struct Held<C: Park> {
    pub(super) connection: Option<C>,
    pub(super) home: Arc<Pool<C>>,
    pub(super) scope: Option<ScopeId>,
    /// Time of the last post on it.
    pub(super) since: Option<Instant>,
    pub(super) tickets: Vec<Ticket<C>>,
    /// Whether it may be in use in another runtime than its pool's.
    pub(super) may_change_runtime: bool,
    /// Whether it is only read from: if dropped, it is parked, and the next user continues reading.
    pub(super) resumable: bool,
}

impl<C> Ticket<C> {
    pub(super) fn new(book: &Arc<Book<C>>, id: u64) -> Self {
        Self {
            book: Arc::clone(book),
            id,
            ends: true,
        }
    }

    pub(in crate::store) fn id(&self) -> u64 {
        self.id
    }
}

impl<C> Drop for Ticket<C> {
    fn drop(&mut self) {
        if self.ends {
            self.book.end(self.id);
        }
    }
}

impl<C: Park> Held<C> {
    /// Returns a connection without posts.
    pub(in crate::store) fn new(connection: C, home: Arc<Pool<C>>) -> Self {
        Self {
            connection: Some(connection),
            home,
            scope: None,
            since: None,
            tickets: Vec::new(),
            may_change_runtime: false,
            resumable: false,
        }
    }

    /// Returns the connection. `None` once it was given up.
    pub(in crate::store) fn connection(&mut self) -> Option<&mut C> {
        self.connection.as_mut()
    }

    /// Returns the connection, for an exchange that fails without it.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::NotConnected`] once it was given up.
    #[cfg(any(feature = "kyoto", feature = "memcached"))]
    pub(in crate::store) fn connected(&mut self) -> io::Result<&mut C> {
        let gone = || io::ErrorKind::NotConnected.into();
        self.connection().ok_or_else(gone)
    }

    /// Adds a post that was sent on it.
    pub(in crate::store) fn add(&mut self, scope: Option<ScopeId>, ticket: Ticket<C>) {
        self.scope = scope;
        self.since = Some(Instant::now());
        self.tickets.push(ticket);
    }

    /// Ends all its posts with these replies, and reports failures.
    pub(in crate::store) fn told(&mut self, replies: &[Reply]) {
        let mut replies = replies.iter();
        for ticket in std::mem::take(&mut self.tickets) {
            let Some(post) = ticket.book.end(ticket.id) else {
                continue;
            };
            let answers = replies.by_ref().take(post.names.len());
            let mut failures = answers.filter_map(Reply::failure);
            if let Some(first) = failures.next() {
                post.late.failed(1 + failures.count(), first);
            }
        }
    }

    /// Replaces the connection.
    #[cfg(feature = "kyoto")]
    pub(in crate::store) fn replace(&mut self, connection: C) {
        self.give_up(&given_up());
        self.connection = Some(connection);
    }

    /// Closes the connection. Its posts count as failed.
    pub(in crate::store) fn lost(mut self, error: &Error) {
        self.give_up(error);
    }

    /// Closes the connection, which another one may replace. Its posts count as failed.
    pub(in crate::store) fn give_up(&mut self, error: &Error) {
        self.close();
        self.fail(error);
    }

    /// Closes the connection before other trips continue, so that its bytes never arrive after
    /// theirs.
    fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.tickets.is_empty()
        {
            connection.abort();
        }
    }

    fn fail(&mut self, error: &Error) {
        for ticket in std::mem::take(&mut self.tickets) {
            if let Some(post) = ticket.book.end(ticket.id) {
                post.late.failed(post.names.len(), error);
            }
        }
    }

    /// Returns the connection to its pool, or parks it if it has unread replies.
    pub(in crate::store) fn keep(mut self) {
        if self.tickets.is_empty() {
            if let Some(mut connection) = self.connection.take() {
                if self.may_change_runtime {
                    connection.unwatch();
                }
                self.home.put(connection);
            }
        } else {
            self.park();
        }
    }

    fn park(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.unwatch();
        let tickets = std::mem::take(&mut self.tickets);
        let Some(book) = tickets.first().map(|ticket| Arc::clone(&ticket.book)) else {
            return;
        };
        // Ids and not tickets: a table that owned itself would never be dropped.
        let posts = tickets.into_iter().map(|mut ticket| {
            ticket.ends = false;
            ticket.id
        });
        let posts = posts.collect();
        let parked = Parked {
            connection,
            home: Arc::clone(&self.home),
            scope: self.scope,
            since: self.since.unwrap_or_else(Instant::now),
            posts,
        };
        book.table(|table| table.parked.push(parked));
        book.here.with(|here| here.changed.notify_waiters());
    }
}

impl<C: Park> Drop for Held<C> {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        if self.resumable {
            self.park();
        } else {
            self.give_up(&given_up());
        }
    }
}

pub(super) fn given_up() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection of posted writes was closed before their replies were read",
    )
}

impl<C> fmt::Debug for Ticket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.id).finish()
    }
}

impl<C: Park> fmt::Debug for Held<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("tickets", &self.tickets)
            .finish_non_exhaustive()
    }
}

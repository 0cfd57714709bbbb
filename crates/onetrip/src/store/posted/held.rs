//! Connections in use on which something was posted, and the posts that are to be read from them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Book, Parked};
use crate::error::{Error, ErrorKind};
use crate::store::pool::Pool;
use crate::trip::{Reply, ScopeId};

/// A connection that can be parked.
pub(in crate::store) trait Park: Send + 'static {
    /// Lets go of the reactor of this lane: the next user may be on another one.
    fn unwatch(&mut self);

    /// Has its end come at once when it is dropped: what was not delivered by then never is.
    fn abort(&self);
}

/// The registration of one post. Dropped, its names are free.
pub(in crate::store) struct Ticket<C> {
    book: Arc<Book<C>>,
    id: u64,
    /// Whether the post ends with it. That of a parked connection is left to the table.
    ends: bool,
}

/// A connection in use, with the posts whose replies are to be read from it first.
///
/// Dropped, the connection is closed, and what was posted on it counts as failed.
pub(in crate::store) struct Held<C: Park> {
    pub(super) connection: Option<C>,
    pub(super) home: Arc<Pool<C>>,
    pub(super) scope: Option<ScopeId>,
    /// When something was last posted on it.
    pub(super) since: Option<Instant>,
    pub(super) tickets: Vec<Ticket<C>>,
    /// Whether it may be in use on another lane than the one it goes back to.
    pub(super) roams: bool,
    /// Whether it is only read from, which another may go on with.
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
    /// A connection on which nothing is posted.
    pub(in crate::store) fn new(connection: C, home: Arc<Pool<C>>) -> Self {
        Self {
            connection: Some(connection),
            home,
            scope: None,
            since: None,
            tickets: Vec::new(),
            roams: false,
            resumable: false,
        }
    }

    /// The connection. It is there until this is kept or lost.
    pub(in crate::store) fn connection(&mut self) -> Option<&mut C> {
        self.connection.as_mut()
    }

    /// The connection, for an exchange that fails without it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] once it is kept or lost.
    pub(in crate::store) fn connected(&mut self) -> io::Result<&mut C> {
        let gone = || io::ErrorKind::NotConnected.into();
        self.connection().ok_or_else(gone)
    }

    /// Notes that `ticket` was posted on it.
    pub(in crate::store) fn add(&mut self, scope: Option<ScopeId>, ticket: Ticket<C>) {
        self.scope = scope;
        self.since = Some(Instant::now());
        self.tickets.push(ticket);
    }

    /// Takes in the replies to all that was posted on it, which end with that.
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

    /// Goes on with another connection.
    #[cfg(feature = "kyoto")]
    pub(in crate::store) fn replace(&mut self, connection: C) {
        self.give_up(&given_up());
        self.connection = Some(connection);
    }

    /// Gives the connection up. What was posted on it has failed, as far as is known.
    pub(in crate::store) fn lost(mut self, error: &Error) {
        self.give_up(error);
    }

    /// The same, where another one is to replace it.
    pub(in crate::store) fn give_up(&mut self, error: &Error) {
        self.close();
        self.fail(error);
    }

    /// Closes the connection before others go on: nothing of it is to arrive behind what they send.
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

    /// Puts the connection back: to the others that are idle, or to those that are parked.
    pub(in crate::store) fn keep(mut self) {
        if self.tickets.is_empty() {
            if let Some(mut connection) = self.connection.take() {
                if self.roams {
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
        // As numbers: a table that held itself would never be dropped.
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

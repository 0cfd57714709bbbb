//! Posting writes and reading their replies, for any protocol.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::posted::{Call, Held, Next, Park, Posted, Ticket};
use super::stream::until;
use crate::blocking_runtimes::{self, PollMode};
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, ScopeId, Trip};

/// How long to wait for replies that should have arrived already.
const BLINK: Duration = Duration::from_millis(1);

/// A future that reads replies to posted writes.
pub(super) type Draining<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A future that posts writes.
pub(super) type Posting<'a> = Pin<Box<dyn Future<Output = Result<Replies>> + Send + 'a>>;

/// A server to which writes are posted.
pub(super) trait Poster: Sync {
    type Connection: Park;

    fn posted(&self) -> &Posted<Self::Connection>;

    fn trip_timeout(&self) -> Duration;

    /// Returns the error of a timeout.
    fn timed_out(&self) -> Error;

    /// Returns an idle connection of this runtime that is in step, if there is one.
    fn idle(&self) -> Option<Held<Self::Connection>>;

    /// Hands writes to the system in one piece, and leaves their replies unread. If the system's
    /// buffer is full, continues until `until`, and receives meanwhile.
    fn send(
        &self,
        connection: &mut Self::Connection,
        ops: &[Op],
        until: Instant,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Reads the replies to all writes posted on `connection`. Returns them, and whether the
    /// connection can be used again.
    fn read(
        &self,
        connection: &mut Self::Connection,
        until: Instant,
    ) -> impl Future<Output = Result<(Replies, bool)>> + Send;

    /// Makes `trip`, waits for its replies, and then drops `ticket`. Sends nothing twice.
    fn wait(
        &self,
        trip: &Trip,
        ticket: Ticket<Self::Connection>,
    ) -> impl Future<Output = Result<Replies>> + Send;

    /// Returns whether all of `ops` can be posted as they are.
    fn takes(ops: &[Op]) -> bool;
}

/// Waits until `call` can be sent without overtaking earlier posts. Returns the parked connection
/// of its scope to send it on, if there is one.
///
/// # Errors
///
/// Returns [`ErrorKind::Timeout`] if the replies to those posts did not arrive within
/// `trip_timeout`.
pub(super) async fn wait_for_posts<P: Poster>(
    poster: &P,
    call: Call<'_>,
) -> Result<Option<Held<P::Connection>>> {
    let posted = poster.posted();
    if posted.is_empty() {
        return Ok(None);
    }
    sweep(poster).await;
    let until = until(poster.trip_timeout());
    loop {
        let changed = posted.changed();
        // Registered before `next`, so that no change is missed.
        let changed = changed.notified();
        match posted.next(&call) {
            Next::Go(held) => return Ok(held),
            Next::Read(held) => finish(poster, held, until).await?,
            Next::Wait => wait(poster, changed, until).await?,
        }
    }
}

async fn wait<P: Poster>(
    poster: &P,
    changed: impl Future<Output = ()>,
    until: Instant,
) -> Result<()> {
    let changed = timeout_at(until.into(), changed).await;
    changed.map_err(|_| poster.timed_out())
}

/// Takes back connections of scopes that were never closed, such as scopes of cancelled tasks.
/// Their replies have arrived by now, or never will. Each trip does this first.
async fn sweep<P: Poster>(poster: &P) {
    let Some(then) = Instant::now().checked_sub(poster.trip_timeout()) else {
        return;
    };
    while let Some(held) = poster.posted().forgotten(then) {
        // Failures are reported to the post, and do not concern this trip.
        let _ = finish(poster, held, Instant::now() + BLINK).await;
    }
}

/// Reads the unread replies on a connection and returns it to its pool.
///
/// # Errors
///
/// Returns [`ErrorKind::Timeout`] if that took too long. Other failures concern only the posts.
pub(super) async fn finish<P: Poster>(
    poster: &P,
    mut held: Held<P::Connection>,
    until: Instant,
) -> Result<()> {
    let Some(connection) = held.connection() else {
        return Ok(());
    };
    match poster.read(connection, until).await {
        Ok((replies, is_of_use)) => {
            held.told(&replies);
            if is_of_use {
                held.keep();
            }
            Ok(())
        }
        Err(error) => {
            held.lost(&error);
            match error.kind() {
                ErrorKind::Timeout => Err(error),
                _ => Ok(()),
            }
        }
    }
}

/// Posts `trip`. Its names are registered as posted before this returns.
pub(super) fn begin<P: Poster>(poster: &P, trip: Trip) -> Posting<'_> {
    let ticket = poster.posted().register(&trip);
    Box::pin(async move {
        match ticket {
            Some(ticket) => post(poster, trip, ticket).await,
            None => Ok(Replies::new()),
        }
    })
}

/// Posts a registered trip.
pub(super) async fn post<P: Poster>(
    poster: &P,
    trip: Trip,
    ticket: Ticket<P::Connection>,
) -> Result<Replies> {
    // In a shared runtime another task waits for the replies.
    if blocking_runtimes::poll_mode() == PollMode::Shared {
        return poster.wait(&trip, ticket).await;
    }
    let takes = P::takes(trip.ops());
    let call = Call::post(&trip, ticket.id(), takes);
    let held = wait_for_posts(poster, call).await?;
    let Some(mut held) = held.or_else(|| if takes { poster.idle() } else { None }) else {
        // Connecting waits anyway.
        return poster.wait(&trip, ticket).await;
    };
    let until = until(poster.trip_timeout());
    let Some(connection) = held.connection() else {
        return poster.wait(&trip, ticket).await;
    };
    match poster.send(connection, trip.ops(), until).await {
        Ok(()) => {
            held.add(trip.scope(), ticket);
            held.keep();
            Ok(trip.ops().iter().map(|_| Reply::Posted).collect())
        }
        Err(error) => {
            held.lost(&error);
            Err(error)
        }
    }
}

/// Reads the replies to writes that `scope` posted; `None` means all scopes. Waits at most for
/// `patience`, or `trip_timeout` if that is `None`. Then reads the replies that have arrived, and
/// closes the other connections.
///
/// # Errors
///
/// Returns [`ErrorKind::Timeout`] if a reply did not arrive in time.
pub(super) async fn drain<P: Poster>(
    poster: &P,
    scope: Option<ScopeId>,
    patience: Option<Duration>,
) -> Result<()> {
    let until = until(patience.unwrap_or(poster.trip_timeout()));
    let mut outcome = Ok(());
    loop {
        let changed = poster.posted().changed();
        let changed = changed.notified();
        match poster.posted().rest(scope) {
            Next::Go(_) => return outcome,
            Next::Read(held) => {
                let until = until.max(Instant::now() + BLINK);
                if let Err(error) = finish(poster, held, until).await {
                    outcome = Err(error);
                }
            }
            Next::Wait => wait(poster, changed, until).await?,
        }
    }
}

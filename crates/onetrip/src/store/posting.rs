//! Posting writes, and reading the replies to what was posted, whatever the protocol.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::posted::{Call, Held, Next, Park, Posted, Ticket};
use super::stream::until;
use crate::blocking_runtimes::{self, PollMode};
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, ScopeId, Trip};

/// How long replies are waited for that should be there already.
const BLINK: Duration = Duration::from_millis(1);

/// What reads replies, until it is done or dropped.
pub(super) type Draining<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A post on its way.
pub(super) type Posting<'a> = Pin<Box<dyn Future<Output = Result<Replies>> + Send + 'a>>;

/// A server to which writes are posted.
pub(super) trait Poster: Sync {
    type Connection: Park;

    fn posted(&self) -> &Posted<Self::Connection>;

    fn trip_timeout(&self) -> Duration;

    /// The failure of what was waited for in vain.
    fn timed_out(&self) -> Error;

    /// A connection of this lane that is idle and in step, if there is one.
    fn idle(&self) -> Option<Held<Self::Connection>>;

    /// Hands writes to the system, all at once, and leaves their replies unread. Where the system
    /// takes no more it goes on, and receives meanwhile, until `until`.
    fn send(
        &self,
        connection: &mut Self::Connection,
        ops: &[Op],
        until: Instant,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Reads the replies to all that was posted on `connection`, one for each write. Also whether
    /// it can be used for more.
    fn read(
        &self,
        connection: &mut Self::Connection,
        until: Instant,
    ) -> impl Future<Output = Result<(Replies, bool)>> + Send;

    /// Makes `trip` and waits for its replies. Sends nothing twice. `ticket` lasts until it is
    /// answered.
    fn wait(
        &self,
        trip: &Trip,
        ticket: Ticket<Self::Connection>,
    ) -> impl Future<Output = Result<Replies>> + Send;

    /// Whether the server takes all of this as it is.
    fn takes(ops: &[Op]) -> bool;
}

/// Sees to it that nothing overtakes what was posted before: a connection of the trip's own scope,
/// where there is one, or none.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] if the replies to what was posted did not come within `trip_timeout`.
pub(super) async fn board<P: Poster>(
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
        // Before looking: what changes then is not missed.
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

/// Puts back the connections of scopes that have ended without a word, such as tasks that were
/// cancelled: their replies have come, or never will. Whoever makes the next trip does it.
async fn sweep<P: Poster>(poster: &P) {
    let Some(then) = Instant::now().checked_sub(poster.trip_timeout()) else {
        return;
    };
    while let Some(held) = poster.posted().forgotten(then) {
        // Its failures are told, and are none of this trip.
        let _ = finish(poster, held, Instant::now() + BLINK).await;
    }
}

/// Reads what is unread on a connection, and puts it back.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] if that took too long. Other failures are those of the posts alone.
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

/// Posts `trip`. From the call on its names are posted.
pub(super) fn begin<P: Poster>(poster: &P, trip: Trip) -> Posting<'_> {
    let ticket = poster.posted().register(&trip);
    Box::pin(async move {
        match ticket {
            Some(ticket) => post(poster, trip, ticket).await,
            None => Ok(Replies::new()),
        }
    })
}

/// Makes a trip of posted writes.
pub(super) async fn post<P: Poster>(
    poster: &P,
    trip: Trip,
    ticket: Ticket<P::Connection>,
) -> Result<Replies> {
    // A task has another one wait in its place.
    if blocking_runtimes::poll_mode() == PollMode::Shared {
        return poster.wait(&trip, ticket).await;
    }
    let takes = P::takes(trip.ops());
    let call = Call::post(&trip, ticket.id(), takes);
    let held = board(poster, call).await?;
    let Some(mut held) = held.or_else(|| if takes { poster.idle() } else { None }) else {
        // To connect is to wait in any case.
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

/// Reads the replies to what `scope` posted, or to all there is. Waits no longer than `patience`,
/// which is `trip_timeout` if it is left out; then reads what is there, and drops the rest.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] if something did not come in time.
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

//! Kyoto Tycoon, by its binary protocol and its calls by HTTP.

mod connection;
mod plan;
mod post;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::connection::{Broken, Connection};
use self::plan::{Pipeline, Segment};
use super::per_runtime::ByRuntime;
use super::pool::Pool;
use super::posted::{Call, Held, Posted};
use super::stream::until;
use super::{Remote, StoreOptions, posting};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, Trip};
use crate::url::StoreUrl;
use crate::wire::kyoto::{RequestKind, ServerReply, http};

const DEFAULT_PORT: u16 = 1978;

/// How often an entry that others change at the same time is read again, to change it in its turn.
/// Each time one of them gets ahead, so it is never for nothing.
const ATTEMPTS: usize = 256;

/// Names that a clear looks up and removes at once.
const CLEAR_COUNT: usize = 10_000;

/// A Kyoto Tycoon server.
#[derive(Debug)]
struct Kyoto {
    door: Arc<Door>,
    pools: ByRuntime<Pool<Connection>>,
    posted: Posted<Connection>,
}

/// Where a server is, and how to come in.
#[derive(Debug)]
struct Door {
    host: String,
    port: u16,
    db: u16,
    connect_timeout: Duration,
    trip_timeout: Duration,
    clock: Clock,
    label: Arc<str>,
}

/// Opens the store that a URL names.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Remote>> {
    url.finish(&[])?;
    let refuse = |what: &str| Err(Error::configuration(format!("{} {what}", url.label())));
    if url.username().is_some() || url.password().is_some() {
        return refuse("names a user or a password, and Kyoto Tycoon knows neither");
    }
    let db = match url.path().trim_matches('/') {
        "" => 0,
        path => match path.parse() {
            Ok(number) => number,
            Err(_) => return refuse("names no database by its number, as in kt://host:1978/0"),
        },
    };
    Ok(Arc::new(Kyoto {
        door: Arc::new(Door {
            host: url.host().unwrap_or_else(|| "127.0.0.1".into()),
            port: url.port().unwrap_or(DEFAULT_PORT),
            db,
            connect_timeout: options.connect_timeout,
            trip_timeout: options.trip_timeout,
            clock: options.clock.clone(),
            label: url.label().into(),
        }),
        pools: ByRuntime::new(),
        posted: Posted::new(),
    }))
}

impl Kyoto {
    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        if !self.posted.is_empty() {
            let call = Call::trip(trip);
            // Apart, so that trips which nothing was posted before take no room for it.
            if let Some(held) = Box::pin(posting::wait_for_posts(self, call)).await? {
                let again = trip.is_repeatable();
                return self.make(held, trip, again, self.door.trip_timeout).await;
            }
        }
        self.ask_anybody(trip, trip.is_repeatable()).await
    }

    /// Makes the trip by a connection that is idle, or a new one; twice if it may be sent `again`.
    async fn ask_anybody(&self, trip: &Trip, again: bool) -> Result<Replies> {
        let began = Instant::now();
        let pool = self.pools.get(Pool::new);
        let Some(turn) = pool.turn(self.door.trip_timeout).await else {
            return Err(self
                .door
                .failure(Broken::Io(io::ErrorKind::TimedOut.into())));
        };
        let patience = self.door.trip_timeout.saturating_sub(began.elapsed());
        let (connection, _turn) = match pool.take(|idle| idle.is_in_step()) {
            Some(connection) => (connection.reused(), turn),
            None => {
                let door = Arc::clone(&self.door);
                let opened = pool.open(turn, async move { door.connect().await }).await;
                let ended = || {
                    self.door
                        .failure(Broken::Io(io::ErrorKind::NotConnected.into()))
                };
                let (opened, turn) = opened.ok_or_else(ended)?;
                (opened?, turn)
            }
        };
        self.make(Held::new(connection, pool), trip, again, patience)
            .await
    }

    /// Makes the trip by `held`, which is put back if it is still of use.
    async fn make(
        &self,
        mut held: Held<Connection>,
        trip: &Trip,
        again: bool,
        patience: Duration,
    ) -> Result<Replies> {
        match self.carry_out(&mut held, trip, again, patience).await {
            Ok(replies) => {
                if held
                    .connection()
                    .is_some_and(|connection| connection.in_step)
                {
                    held.keep();
                }
                Ok(replies)
            }
            Err(error) => {
                held.lost(&error);
                Err(error)
            }
        }
    }

    async fn carry_out(
        &self,
        held: &mut Held<Connection>,
        trip: &Trip,
        again: bool,
        patience: Duration,
    ) -> Result<Replies> {
        let mut replies = Replies::with_capacity(trip.len());
        let mut rest = trip.ops();
        while !rest.is_empty() {
            let (ops, later) = rest.split_at(plan::segment_of(rest));
            if let [Op::Clear { prefix }] = ops {
                replies.push(self.clear(held, prefix).await?);
            } else {
                let mut segment = Segment::new(self.door.db, ops);
                segment.refuse_what_is_too_large();
                self.segment(held, &mut segment, again, patience).await?;
                replies.extend(segment.replies.into_iter().flatten());
            }
            rest = later;
        }
        Ok(replies)
    }

    /// Carries out operations that can go out at once.
    async fn segment(
        &self,
        held: &mut Held<Connection>,
        segment: &mut Segment<'_>,
        again: bool,
        patience: Duration,
    ) -> Result<()> {
        // Once, but for a refusal: the server hangs up on it, and what was behind it is asked on
        // another connection. Each time at least one operation is answered.
        while !segment.is_answered() {
            self.mend(held).await?;
            match self.carry(held, segment, until(patience)).await {
                Ok(()) => {}
                // The server closed the idle connection just now. Nothing is lost by asking once
                // more, unless the trip might have arrived and must not be done twice.
                Err(broken) if again && was_closed(held, &broken) => {
                    held.give_up(&self.door.failure(broken));
                }
                Err(broken) => return Err(self.door.failure(broken)),
            }
        }
        Ok(())
    }

    /// Sees to it that `held` can be used: opens another if it broke, or was hung up on.
    async fn mend(&self, held: &mut Held<Connection>) -> Result<()> {
        if !(held.connection()).is_some_and(|connection| connection.in_step) {
            held.replace(self.door.connect().await?);
        }
        Ok(())
    }

    async fn carry(
        &self,
        held: &mut Held<Connection>,
        segment: &mut Segment<'_>,
        until: Instant,
    ) -> Result<(), Broken> {
        for _ in 0..ATTEMPTS {
            let (batch, asked) = segment.ask();
            let (answers, buffer) = self.converse(held, batch, until).await?;
            let in_step = held.connected()?.in_step;
            let changes = segment.answered(
                &self.door.label,
                &asked,
                answers,
                &buffer,
                self.door.clock.wall(),
            )?;
            if in_step && !changes.is_empty() {
                let batch = segment.change(&changes);
                let (answers, buffer) = self.converse(held, batch, until).await?;
                segment.changed(&self.door.label, changes, answers, &buffer)?;
            }
            if segment.is_answered() || !held.connected()?.in_step {
                return Ok(());
            }
        }
        segment.give_up(&self.door.label);
        Ok(())
    }

    /// Removes what begins with `prefix`, some at a time, so that the server serves others too.
    async fn clear(&self, held: &mut Held<Connection>, prefix: &Bytes) -> Result<Reply> {
        let look = plan::look(self.door.db, prefix, CLEAR_COUNT);
        let (mut removed, mut before) = (0, Vec::new());
        loop {
            self.mend(held).await?;
            let looking = self.converse(held, look.clone(), until(self.door.trip_timeout));
            let (answers, buffer) = match looking.await {
                Ok(answered) => answered,
                // As above; and looking changes nothing.
                Err(broken) if was_closed(held, &broken) => {
                    held.give_up(&self.door.failure(broken));
                    continue;
                }
                Err(broken) => return Err(self.door.failure(broken)),
            };
            let names = match plan::looked(&self.door.label, &answers, &buffer) {
                Ok(Ok(names)) => names,
                Ok(Err(refused)) => return Ok(Reply::Failed(refused)),
                Err(stop) => return Err(self.door.failure(stop.into())),
            };
            if names.is_empty() {
                return Ok(Reply::Count(removed));
            }
            if names == before {
                let error = Broken::Nonsense("names that it says were removed");
                return Err(self.door.failure(error));
            }
            let batch = plan::remove(self.door.db, &names);
            let removing = self.converse(held, batch, until(self.door.trip_timeout));
            let (answers, _) = removing.await.map_err(|broken| self.door.failure(broken))?;
            match answers.as_slice() {
                // What had expired was not removed by us.
                [ServerReply::Count(count)] => removed += *count as u64,
                _ => {
                    let error = plan::refused(&self.door.label, "a removal");
                    return Ok(Reply::Failed(error));
                }
            }
            if names.len() < CLEAR_COUNT {
                return Ok(Reply::Count(removed));
            }
            before = names;
        }
    }
}

impl Door {
    async fn connect(&self) -> Result<Connection> {
        let opened = Connection::open(&self.host, self.port, self.connect_timeout).await;
        let mut connection = opened.map_err(|error| self.failure(Broken::Io(error)))?;
        // The first database is always there. Of another that is not the binary protocol would
        // say nothing: it would be an empty one.
        if self.db > 0 {
            let mut batch = Pipeline {
                questions: vec![RequestKind::Call],
                ..Pipeline::default()
            };
            http::call(&mut batch.bytes, "status", self.db, &[]);
            let told = connection.exchange(batch, until(self.trip_timeout)).await;
            match told.map_err(|broken| self.failure(broken))?.0.as_slice() {
                [ServerReply::Response(response)] if response.status == http::INVALID => {
                    return Err(plan::no_database(&self.label));
                }
                _ => {}
            }
        }
        Ok(connection)
    }

    fn failure(&self, broken: Broken) -> Error {
        let label = &self.label;
        match broken {
            Broken::Nonsense(what) => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{label} answered what the protocol does not allow ({what}); is it a Kyoto Tycoon server?"
                ),
            ),
            Broken::Io(error) if error.kind() == io::ErrorKind::TimedOut => Error::with_source(
                ErrorKind::Timeout,
                format!(
                    "{label} did not answer in time; see connect_timeout and trip_timeout ({error})"
                ),
                error,
            ),
            Broken::Io(error) => Error::with_source(
                ErrorKind::Unavailable,
                format!(
                    "{label} cannot be reached; is the server running, and the URL right? ({error})"
                ),
                error,
            ),
        }
    }
}

fn was_closed(held: &mut Held<Connection>, broken: &Broken) -> bool {
    (held.connection()).is_some_and(|connection| connection.was_closed(broken))
}

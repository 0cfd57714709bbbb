//! Fetches as Rust drives them: on a thread, and in a task.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blocking_runtimes;
use crate::cache::Cache;
use crate::codec::Serde;
use crate::context::{Context, task};
use crate::error::{Error, Result};
use crate::latch::Latch;
use crate::policy::{Fetch, Outcome, Read, Stage, Storing, Ttl};
use crate::single_flight::{Caller, Waiting};
use crate::trip::{Replies, Reply, Trip};

/// Says what to fetch, and how.
#[derive(Clone, Copy)]
pub(crate) struct Fetching<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) ttl: Ttl,
    pub(crate) storing: Storing,
    /// Computes without looking.
    pub(crate) refresh: bool,
}

impl<'a> Fetching<'a> {
    pub(crate) fn new(key: &'a [u8], ttl: Ttl) -> Self {
        Self {
            key,
            ttl,
            storing: Storing::Set,
            refresh: false,
        }
    }

    /// Keeps what others stored meanwhile.
    pub(crate) fn adding(self) -> Self {
        Self {
            storing: Storing::Add,
            ..self
        }
    }

    #[expect(
        clippy::result_large_err,
        reason = "a fetch is begun for a miss alone, and moved once"
    )]
    fn begin<'f, T: DeserializeOwned>(
        &self,
        cache: &'f Cache,
        at: &'f Context,
        keys: &'f [&'f [u8]; 1],
        serde: &'f Serde<T>,
        caller: Caller,
    ) -> Result<T, Fetch<'f, &'f [u8], Serde<T>>> {
        let policy = cache.policy();
        let held = match self.refresh {
            true => None,
            false => policy.held_piece(at, self.key, self.ttl, serde),
        };
        if let Some(Read::Found(value)) = held {
            return Ok(value);
        }
        let mut fetch = policy.fetch(at, keys, self.ttl, serde, caller);
        if self.refresh {
            fetch = fetch.refreshing();
        }
        if self.storing == Storing::Add {
            fetch = fetch.adding();
        }
        Err(fetch.after(&held))
    }
}

/// Returns what a fetch of one key came to: what the cache holds, or else what was `made`.
fn answer<T>(fetch: Fetch<'_, &[u8], Serde<T>>, made: Option<T>) -> Option<T>
where
    T: DeserializeOwned,
{
    match fetch.finish().pop() {
        Some(Outcome::Found(value)) => Some(value),
        _ => made,
    }
}

impl Cache {
    /// Fetches on this thread. An error of the cache goes to `failed`, which may let it pass: then
    /// the value is computed as on a miss.
    pub(crate) fn fetch_blocking<T: Serialize + DeserializeOwned, E>(
        &self,
        what: Fetching<'_>,
        make: impl FnOnce() -> Result<T, E>,
        failed: impl Fn(Error) -> Result<(), E>,
    ) -> Result<T, E> {
        let (at, serde, keys) = (self.here(), Serde::new(), [what.key]);
        let mut fetch = match what.begin(self, &at, &keys, &serde, Caller::Thread) {
            Ok(value) => return Ok(value),
            Err(fetch) => fetch,
        };
        let (mut make, mut made) = (Some(make), None);
        loop {
            match fetch.advance() {
                // A task must not wait, and need not for a post.
                Stage::Post(trip) if !blocking_runtimes::may_wait() => {
                    let (replies, _) = self.hand_over(&at, trip);
                    fetch.replied(replies);
                }
                Stage::Ask(trip) | Stage::Post(trip) => match self.send_blocking(&at, &trip) {
                    Ok(replies) => fetch.replied(replies),
                    Err(error) => {
                        failed(error)?;
                        return made.map_or_else(|| call(&mut make), Ok);
                    }
                },
                Stage::Compute(_) => {
                    let within = at.with_computing(fetch.computing());
                    let value = task::within_blocking(self.0.id, within, || call(&mut make))?;
                    match self.piece(what.key, &value, what.ttl) {
                        Ok(entry) => fetch.made(0, entry),
                        Err(error) => {
                            failed(error)?;
                            return Ok(value);
                        }
                    }
                    made = Some(value);
                }
                Stage::Wait(waiting) => {
                    let _ = waiting.wait(waiting.patience());
                    fetch.waited(waiting);
                }
                Stage::Done => break,
            }
        }
        answer(fetch, made).map_or_else(|| call(&mut make), Ok)
    }

    /// Fetches in this task, as [`fetch_blocking`](Self::fetch_blocking).
    pub(crate) async fn fetch_awaiting<T: Serialize + DeserializeOwned, E, F>(
        &self,
        what: Fetching<'_>,
        make: impl FnOnce() -> F,
        failed: impl Fn(Error) -> Result<(), E>,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let (at, serde, keys) = (self.here(), Serde::new(), [what.key]);
        let mut fetch = match what.begin(self, &at, &keys, &serde, Caller::Task) {
            Ok(value) => return Ok(value),
            Err(fetch) => fetch,
        };
        let (mut make, mut made) = (Some(make), None);
        loop {
            match fetch.advance() {
                Stage::Ask(trip) => match self.send(&at, &trip).await {
                    Ok(replies) => fetch.replied(replies),
                    Err(error) => {
                        failed(error)?;
                        return match made {
                            Some(value) => Ok(value),
                            None => call(&mut make).await,
                        };
                    }
                },
                Stage::Post(trip) => {
                    let replies = self.post(&at, trip).await;
                    fetch.replied(replies);
                }
                Stage::Compute(_) => {
                    let within = at.with_computing(fetch.computing());
                    let making =
                        task::within_blocking(self.0.id, within.clone(), || call(&mut make));
                    let value = task::within(self.0.id, within, making).await?;
                    match self.piece(what.key, &value, what.ttl) {
                        Ok(entry) => fetch.made(0, entry),
                        Err(error) => {
                            failed(error)?;
                            return Ok(value);
                        }
                    }
                    made = Some(value);
                }
                Stage::Wait(waiting) => {
                    over(&waiting).await;
                    fetch.waited(waiting);
                }
                Stage::Done => break,
            }
        }
        match answer(fetch, made) {
            Some(value) => Ok(value),
            None => call(&mut make).await,
        }
    }

    /// Hands a trip over that nobody waits for. Its scope waits for it when it closes.
    async fn post(&self, at: &Context, trip: Trip) -> Replies {
        let (replies, is_under_way) = self.hand_over(at, trip);
        if is_under_way {
            tokio::task::yield_now().await;
        }
        replies
    }

    /// Begins a post in this runtime. Returns its replies, and whether it is still under way.
    fn hand_over(&self, at: &Context, trip: Trip) -> (Replies, bool) {
        let replies = trip.ops().iter().map(|_| Reply::Posted).collect();
        let sent = Arc::new(Latch::default());
        if let Some(scope) = at.scope() {
            scope.posted(Arc::clone(&sent));
        }
        let (cache, at) = (self.clone(), at.clone());
        let mut post = Box::pin(async move {
            let _sent = SetOnDrop(sent);
            // Its failures are counted and told on the way.
            drop(cache.carry(&at, &trip).await);
        });
        // At once, as far as this task can: to the connection, and from there to the system.
        let mut context = TaskContext::from_waker(Waker::noop());
        let is_under_way = post.as_mut().poll(&mut context).is_pending();
        if is_under_way {
            tokio::spawn(post);
        }
        (replies, is_under_way)
    }
}

/// Calls what computes. A fetch asks for it once.
fn call<F, T>(make: &mut Option<F>) -> T
where
    F: FnOnce() -> T,
{
    match make.take() {
        Some(make) => make(),
        None => unreachable!("a fetch of one key computes once"),
    }
}

/// Waits for a flight as long as it is worth it.
async fn over(waiting: &Waiting) {
    let over = poll_fn(|context| waiting.poll(context));
    // Whether it is over shows when its value is taken.
    let _ = tokio::time::timeout(waiting.patience(), pin!(over)).await;
}

struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

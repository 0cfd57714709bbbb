//! A store that answers as slowly as one across a network would.

use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Purpose, Replies, Trip};

/// Another store, behind a simulated latency for each trip: `memory://?latency=500us`.
///
/// It shows on a developer's machine what a page will cost where the store is remote.
#[derive(Debug)]
pub(super) struct Slow {
    store: Arc<dyn Store>,
    latency: Duration,
}

impl Slow {
    pub(super) fn new(store: Arc<dyn Store>, latency: Duration) -> Self {
        Self { store, latency }
    }

    async fn wait_and_ask(&self, trip: &Trip) -> Result<Replies> {
        let latency = self.latency;
        // Tokio's own timers tick in milliseconds, too coarse for a network within one house.
        if let Err(gone) = tokio::task::spawn_blocking(move || std::thread::sleep(latency)).await {
            return Err(Error::with_source(
                ErrorKind::Unavailable,
                "the runtime is shutting down",
                gone,
            ));
        }
        match self.store.exchange(trip) {
            Exchange::Ready(replies) => Ok(replies),
            Exchange::Refused(error) => Err(error),
            Exchange::Pending(answer) => answer.await,
        }
    }
}

impl Store for Slow {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match trip.purpose() {
            Purpose::Answer => Exchange::Pending(Box::pin(self.wait_and_ask(trip))),
            // Nobody waits for the way there and back.
            Purpose::Post(_) | Purpose::Drain => self.store.exchange(trip),
        }
    }

    fn label(&self) -> Arc<str> {
        format!(
            "{} (latency of {:?} simulated)",
            self.store.label(),
            self.latency
        )
        .into()
    }
}

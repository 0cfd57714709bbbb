//! A store with simulated network latency.

use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Purpose, Replies, Trip};

/// A store with a simulated latency for each trip: `memory://?latency=500us`.
///
/// It shows on a developer's machine how long a page takes with a remote store.
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
        // Tokio's timers tick in milliseconds, too coarse for a local network.
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
            // No caller waits for these.
            Purpose::Post(_) | Purpose::Drain => self.store.exchange(trip),
        }
    }

    fn posts(&self) -> bool {
        true
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

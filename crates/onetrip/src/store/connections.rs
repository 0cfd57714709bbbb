//! The shared connection of a store: one for each Tokio runtime, opened by the first caller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::per_runtime::ByRuntime;
use crate::error::{Error, ErrorKind, Result};

/// The connections of one store, by runtime.
#[derive(Debug)]
pub(super) struct Connections<C>(ByRuntime<Slot<C>>);

#[derive(Debug)]
struct Slot<C> {
    state: Arc<tokio::sync::Mutex<State<C>>>,
    attempts: Mutex<u64>,
}

#[derive(Debug)]
struct State<C> {
    connection: Option<(u64, C)>,
    last_failure: Option<(u64, Error)>,
}

/// A connection to use for one exchange.
#[derive(Debug)]
pub(super) struct Lease<C> {
    pub(super) connection: C,
    /// Whether it was open before this call. The server may have closed it since.
    pub(super) reused: bool,
    number: u64,
}

impl<C: Clone + Send + Sync + 'static> Connections<C> {
    pub(super) fn new() -> Self {
        Self(ByRuntime::new())
    }

    /// Returns the connection of the current runtime, opened by `connect` if there is none.
    ///
    /// Callers that wait for the same attempt to connect share its failure: a server that does not
    /// answer costs them one timeout together. An attempt continues when its caller is gone, so
    /// that later callers find its connection.
    pub(super) async fn get(
        &self,
        connect: impl Future<Output = Result<C>> + Send + 'static,
    ) -> Result<Lease<C>> {
        let slot = self.slot();
        let came = *lock(&slot.attempts);
        let mut state = Arc::clone(&slot.state).lock_owned().await;
        if let Some((number, connection)) = &state.connection {
            return Ok(Lease {
                connection: connection.clone(),
                reused: true,
                number: *number,
            });
        }
        if let Some((number, error)) = &state.last_failure
            && *number > came
        {
            return Err(error.clone());
        }
        let number = {
            let mut attempts = lock(&slot.attempts);
            *attempts += 1;
            *attempts
        };
        let attempt = tokio::spawn(async move {
            match connect.await {
                Ok(connection) => {
                    state.connection = Some((number, connection.clone()));
                    Ok(Lease {
                        connection,
                        reused: false,
                        number,
                    })
                }
                Err(error) => {
                    state.last_failure = Some((number, error.clone()));
                    Err(error)
                }
            }
        });
        let ended = |gone| {
            let why = "the runtime is shutting down";
            Err(Error::with_source(ErrorKind::Unavailable, why, gone))
        };
        attempt.await.unwrap_or_else(ended)
    }

    /// Removes this connection: its exchange failed, and the state of its stream is unknown.
    pub(super) async fn discard(&self, lease: &Lease<C>) {
        let slot = self.slot();
        let mut state = slot.state.lock().await;
        if state
            .connection
            .as_ref()
            .is_some_and(|(number, _)| *number == lease.number)
        {
            state.connection = None;
        }
    }

    fn slot(&self) -> Arc<Slot<C>> {
        self.0.get(|| Slot {
            state: Arc::new(tokio::sync::Mutex::new(State {
                connection: None,
                last_failure: None,
            })),
            attempts: Mutex::new(0),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_tables_leave_no_task_in_their_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("no runtime");
        runtime.block_on(async {
            for _ in 0..10 {
                let connections = Connections::new();
                let lease = connections.get(async { Ok(()) }).await;
                assert!(!lease.expect("no connection").reused);
                let lease = connections.get(async { Ok(()) }).await;
                assert!(lease.expect("no connection").reused);
            }
            tokio::task::yield_now().await;
            assert_eq!(runtime.metrics().num_alive_tasks(), 0);
        });
    }
}

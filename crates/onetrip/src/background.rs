//! The runtime for callers that cannot poll a future, such as an event loop in another language.
//!
//! One thread of the process drives all their trips, so that a server sees one connection.

use std::future::pending;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;

/// One per process: a forked child does not have its parent's thread.
type Started = PerProcess<Mutex<Option<Handle>>>;

fn started() -> &'static Started {
    static STARTED: OnceLock<Started> = OnceLock::new();
    STARTED.get_or_init(PerProcess::default)
}

fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("onetrip".into())
        .spawn(move || runtime.block_on(pending::<()>()))?;
    Ok(handle)
}

/// Returns a handle to the runtime. The first call starts it; a call after a failure tries again.
///
/// # Errors
///
/// Returns [`ErrorKind::Unavailable`] if the system has no thread or file descriptor left.
pub(crate) fn handle() -> Result<Handle> {
    started().with(|started| {
        let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*started {
            return Ok(handle.clone());
        }
        let handle = start().map_err(|error| {
            Error::with_source(
                ErrorKind::Unavailable,
                format!(
                    "cannot start a thread for asynchronous trips: {error}; is a limit of the process reached?"
                ),
                error,
            )
        })?;
        Ok(started.insert(handle).clone())
    })
}

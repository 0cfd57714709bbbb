//! The runtime of those who wait elsewhere: an event loop in another language, which cannot poll a
//! future itself.
//!
//! One thread of the process drives all their trips, so that a server sees one connection.

use std::future::pending;
use std::io;
use std::sync::OnceLock;
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;

/// Of each process its own: a forked child does not have its parent's thread.
fn started() -> &'static PerProcess<OnceLock<io::Result<Handle>>> {
    static STARTED: OnceLock<PerProcess<OnceLock<io::Result<Handle>>>> = OnceLock::new();
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

/// The way to it; the first call starts it.
///
/// # Errors
///
/// [`ErrorKind::Unavailable`] if the system has no thread or no file left for it.
pub(crate) fn handle() -> Result<Handle> {
    started().with(|started| match started.get_or_init(start) {
        Ok(handle) => Ok(handle.clone()),
        Err(error) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "no thread for asynchronous trips: {error}; is a limit of the process reached?"
            ),
        )),
    })
}

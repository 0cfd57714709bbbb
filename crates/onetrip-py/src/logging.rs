//! The core's warnings in Python's `logging`, under `onetrip`.

use log::{LevelFilter, Log, Metadata, Record};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3_log::{Caching, Logger};

/// What is less than this is for who works on the core.
const LEVEL: LevelFilter = LevelFilter::Warn;

/// Imports `logging` when there is something to say: that takes longer than the rest of onetrip.
struct OnDemand;

impl OnDemand {
    /// `None` if there is no `logging` to be had.
    fn logger() -> Option<&'static Logger> {
        static LOGGER: PyOnceLock<Option<Logger>> = PyOnceLock::new();
        Python::attach(|py| {
            let make = || Logger::new(py, Caching::Loggers).map(|logger| logger.filter(LEVEL));
            LOGGER.get_or_init(py, || make().ok()).as_ref()
        })
    }
}

impl Log for OnDemand {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LEVEL
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(logger) = Self::logger()
        {
            logger.log(record);
            Python::attach(drain);
        }
    }

    fn flush(&self) {}
}

/// Deals with what a handler raised, or was interrupted by: the trip goes on.
fn drain(py: Python<'_>) {
    let Some(raised) = PyErr::take(py) else {
        return;
    };
    // The user's wish to stop is told again, to who runs next.
    let again = || py.import("_thread")?.call_method0("interrupt_main");
    if !raised.is_instance_of::<PyKeyboardInterrupt>(py) || again().is_err() {
        raised.write_unraisable(py, None);
    }
}

/// To be called once for a process. A second interpreter in it finds the first one's in place.
pub(crate) fn install() {
    if log::set_logger(&OnDemand).is_ok() {
        log::set_max_level(LEVEL);
    }
}

//! Passes the core's warnings to Python's `logging`, under `onetrip`.

use log::{LevelFilter, Log, Metadata, Record};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3_log::{Caching, Logger};

/// Lower levels are for developers of the core.
const LEVEL: LevelFilter = LevelFilter::Warn;

/// Imports `logging` at the first message: it takes longer to load than the rest of onetrip.
struct OnDemand;

impl OnDemand {
    /// `None` if `logging` cannot be imported.
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

/// Handles an exception of a log handler, or an interruption in it. The trip goes on.
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

/// Installs the logger, once per process. A second interpreter uses the first one's.
pub(crate) fn install() {
    if log::set_logger(&OnDemand).is_ok() {
        log::set_max_level(LEVEL);
    }
}

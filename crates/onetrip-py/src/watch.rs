//! Records of trips.

use std::sync::{Arc, Mutex, PoisonError};

use onetrip::{TripRecord, Watch as Core};
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::cache::Cache;
use crate::context::{Entry, Layer};
use crate::error::{Result, configuration};

/// One exchange with a store, recorded by a `Watch`. `len` is the number of operations.
#[pyclass(frozen, module = "onetrip")]
pub(crate) struct Trip(TripRecord);

#[pymethods]
impl Trip {
    /// URL of the store, without password.
    #[getter]
    fn store(&self) -> &str {
        &self.0.store
    }

    /// The first hundred operations as (word, key) pairs: ("get", "blog:note:5").
    #[getter]
    fn ops(&self) -> Vec<(&'static str, &str)> {
        self.0
            .ops
            .iter()
            .map(|(word, name)| (*word, name.as_str()))
            .collect()
    }

    /// Number of operations that failed.
    #[getter]
    fn failed(&self) -> usize {
        self.0.failed
    }

    /// Whether it was posted: sent without waiting. Posts do not count as trips.
    #[getter]
    fn posted(&self) -> bool {
        self.0.posted
    }

    /// Bytes of entries received.
    #[getter]
    fn bytes_in(&self) -> usize {
        self.0.bytes_in
    }

    /// Bytes of entries sent.
    #[getter]
    fn bytes_out(&self) -> usize {
        self.0.bytes_out
    }

    /// Seconds from sending to the reply.
    #[getter]
    fn seconds(&self) -> f64 {
        self.0.took.as_secs_f64()
    }

    fn __len__(&self) -> usize {
        self.0.len
    }

    fn __repr__(&self) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<String> = self
            .0
            .ops
            .iter()
            .take(SHOWN)
            .map(|(word, name)| format!("{word} {name}"))
            .collect();
        let more = self.0.len.saturating_sub(SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let what = if self.0.posted { "Post" } else { "Trip" };
        format!("<{what} to {}: {}{more}>", self.0.store, shown.join(", "))
    }
}

fn trips(watch: &Core) -> Vec<Trip> {
    watch.records().into_iter().map(Trip).collect()
}

/// Records the trips of one cache in a thread or task and the tasks it starts.
///
/// Made by `Cache.watch`.
#[pyclass(frozen, module = "onetrip")]
pub(crate) struct Watch {
    cache: Py<Cache>,
    watch: Arc<Core>,
    entered: Mutex<Option<Entry>>,
}

impl Watch {
    pub(crate) fn new(cache: Py<Cache>) -> Self {
        Self {
            cache,
            watch: Arc::default(),
            entered: Mutex::default(),
        }
    }

    fn entered(&self) -> std::sync::MutexGuard<'_, Option<Entry>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Watch {
    /// Number of trips.
    #[getter]
    fn trips(&self) -> usize {
        self.watch.trips()
    }

    /// Number of values posted: sent to the store without waiting.
    #[getter]
    fn posted(&self) -> usize {
        self.watch.posted()
    }

    /// Number of reads that found a value, in a scope or in the store.
    #[getter]
    fn hits(&self) -> usize {
        self.watch.hits()
    }

    /// Number of reads that found nothing.
    #[getter]
    fn misses(&self) -> usize {
        self.watch.misses()
    }

    /// The trips, oldest first. The first ten thousand are kept.
    #[getter]
    fn records(&self) -> Vec<Trip> {
        trips(&self.watch)
    }

    /// Starts recording.
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.entered().is_some() {
            return Err(configuration(
                "this watch is open already; make another with cache.watch()".into(),
            ));
        }
        let layer = Layer::Watch(Arc::clone(&this.watch));
        let entry = this.cache.get().variable.enter(py, layer)?;
        *this.entered() = Some(entry);
        Ok(slf.clone())
    }

    /// Stops recording. The records stay.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Result<()> {
        let entry = self.entered().take();
        if let Some(entry) = entry {
            self.cache.get().variable.leave(py, &entry)?;
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<Watch: {} trips>", self.watch.trips())
    }
}

/// Records the trips of all caches of this process, in all threads. For tests.
#[pyclass(frozen, module = "onetrip._core")]
pub(crate) struct Everything {
    watch: Mutex<Arc<Core>>,
    open: Mutex<Option<onetrip::internals::Everything>>,
}

impl Everything {
    fn watch(&self) -> Arc<Core> {
        Arc::clone(&self.watch.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Everything {
    #[new]
    fn new() -> Self {
        Self {
            watch: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Number of trips.
    #[getter]
    fn trips(&self) -> usize {
        self.watch().trips()
    }

    /// The trips, oldest first. The first ten thousand are kept.
    #[getter]
    fn records(&self) -> Vec<Trip> {
        trips(&self.watch())
    }

    /// Starts recording.
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        let this = slf.get();
        let everything = onetrip::internals::watch_everything();
        *this.watch.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(everything.watch());
        *this.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(everything);
        slf.clone()
    }

    /// Stops recording. The records stay.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

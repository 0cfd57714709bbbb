//! What was learned of a route, for Python.

use onetrip::learn::Report;
use pyo3::prelude::*;

/// What is known of one route, and what came of it.
#[pyclass(frozen, module = "onetrip", name = "Route")]
pub(crate) struct Route(pub(crate) Report);

#[pymethods]
impl Route {
    /// The name of the view.
    #[getter]
    fn name(&self) -> &str {
        &self.0.route
    }

    /// Visits that were learned from.
    #[getter]
    fn visits(&self) -> u64 {
        self.0.visits
    }

    /// Different keys that they read: the trips that they would have made one by one.
    #[getter]
    fn reads(&self) -> u64 {
        self.0.reads
    }

    /// Trips that they made to read.
    #[getter]
    fn trips(&self) -> u64 {
        self.0.trips
    }

    /// The share of keys read that was preloaded, from 0 to 1.
    #[getter]
    fn recall(&self) -> f64 {
        self.0.recall()
    }

    /// The share of keys preloaded that was read, from 0 to 1.
    #[getter]
    fn precision(&self) -> f64 {
        self.0.precision()
    }

    /// Those of the reads that are exact: of state that has not earned a place in a snapshot.
    #[getter]
    fn exact(&self) -> u64 {
        self.0.exact
    }

    /// The share of bytes preloaded that was not read, from 0 to 1.
    #[getter]
    fn waste(&self) -> f64 {
        self.0.waste()
    }

    /// Bytes of entries that were preloaded and not read.
    #[getter]
    fn unused_bytes(&self) -> u64 {
        self.0.unused_bytes
    }

    /// Keys as functions of the arguments, `"note_markup:{note_id}"`, and the share of visits that read each.
    #[getter]
    fn templates(&self) -> Vec<(String, f32)> {
        self.0.templates.clone()
    }

    fn __repr__(&self) -> String {
        let report = &self.0;
        format!(
            "<Route {}: {} visits, {} trips for {} reads>",
            report.route, report.visits, report.trips, report.reads
        )
    }
}

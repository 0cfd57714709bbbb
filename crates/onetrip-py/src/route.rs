//! What was learned of a route.

use onetrip::PageReport;
use pyo3::prelude::*;

/// What was learned of one route, and how well its preloads fit. Returned by `Cache.pages`.
#[pyclass(frozen, module = "onetrip", name = "Route")]
pub(crate) struct Route(pub(crate) PageReport);

#[pymethods]
impl Route {
    /// Name of the view.
    #[getter]
    fn name(&self) -> &str {
        &self.0.route
    }

    /// Number of visits learned from.
    #[getter]
    fn visits(&self) -> u64 {
        self.0.visits
    }

    /// Number of different keys that each visit read, summed: one trip each without preloads.
    #[getter]
    fn reads(&self) -> u64 {
        self.0.reads
    }

    /// Number of trips made to read them.
    #[getter]
    fn trips(&self) -> u64 {
        self.0.trips
    }

    /// Share of the keys read that were preloaded, from 0 to 1. Exact reads do not count.
    #[getter]
    fn recall(&self) -> f64 {
        self.0.recall()
    }

    /// Share of the preloaded keys that were read, from 0 to 1.
    #[getter]
    fn precision(&self) -> f64 {
        self.0.precision()
    }

    /// Number of reads that must ask the store, because the key may change at any time.
    #[getter]
    fn exact(&self) -> u64 {
        self.0.exact
    }

    /// Share of the preloaded bytes that were not read, from 0 to 1.
    #[getter]
    fn waste(&self) -> f64 {
        self.0.waste()
    }

    /// Bytes of entries that were preloaded and not read.
    #[getter]
    fn unused_bytes(&self) -> u64 {
        self.0.unused_bytes
    }

    /// Learned keys, as in "note_markup:{note_id}", with the share of visits that read each.
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

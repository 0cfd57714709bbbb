//! The counters of a cache, for Python.

use onetrip::Stats as Core;
use pyo3::exceptions::{PyAttributeError, PyKeyError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::shown;

/// Counters of a cache at one moment, as attributes and as a mapping. Made by `Cache.stats`.
#[pyclass(frozen, mapping, module = "onetrip")]
pub(crate) struct Stats(pub(crate) Core);

#[pymethods]
impl Stats {
    fn __getattr__(&self, name: &Bound<'_, PyString>) -> PyResult<u64> {
        self.find(name).ok_or_else(|| {
            PyAttributeError::new_err(format!("there is no counter {}", shown(name)))
        })
    }

    fn __getitem__(&self, name: &Bound<'_, PyAny>) -> PyResult<u64> {
        let count = name
            .cast::<PyString>()
            .ok()
            .and_then(|name| self.find(name));
        count.ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    fn __len__(&self) -> usize {
        self.0.fields().len()
    }

    /// Returns the names of the counters.
    fn keys(&self) -> Vec<&'static str> {
        self.0.fields().into_iter().map(|(name, _)| name).collect()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys().into_pyobject(py)?.try_iter()?.into_any())
    }

    fn __repr__(&self) -> String {
        let fields: Vec<String> = self
            .0
            .fields()
            .into_iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        format!("Stats({})", fields.join(", "))
    }
}

impl Stats {
    fn find(&self, name: &Bound<'_, PyString>) -> Option<u64> {
        let name = name.to_str().ok()?;
        let fields = self.0.fields();
        fields
            .into_iter()
            .find(|(field, _)| *field == name)
            .map(|(_, count)| count)
    }
}

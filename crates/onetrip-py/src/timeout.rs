//! Timeouts of Python: seconds, a `timedelta`, or `None` for never.

use std::time::Duration;

use onetrip::Ttl;
use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta};

use crate::error::{Raised, configuration, shown};

/// A timeout argument. Unset, it is the cache's default.
#[derive(Clone, Copy, Default)]
pub(crate) struct Timeout(pub(crate) Ttl);

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self(Ttl::Never));
        }
        Ok(Self(
            match seconds(&value).ok_or_else(|| wrong(&value))? {
                None => Ttl::Never,
                Some(span) => Ttl::After(span),
            },
        ))
    }
}

fn wrong(value: &Bound<'_, PyAny>) -> Raised {
    configuration(format!(
        "{} is not a timeout; give seconds as a number, a timedelta, or None to never expire",
        shown(value)
    ))
}

/// Returns the span of `value` in seconds, zero if it is negative, `Some(None)` if it is endless,
/// and `None` if `value` is not a number.
fn seconds(value: &Bound<'_, PyAny>) -> Option<Option<Duration>> {
    let seconds: f64 = if value.is_instance_of::<PyBool>() {
        return None;
    } else if value.is_instance_of::<PyDelta>() {
        value.call_method0("total_seconds").ok()?.extract().ok()?
    } else {
        value.extract().ok()?
    };
    if seconds.is_nan() {
        return None;
    }
    // What no Duration can hold outlasts every store.
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).ok())
}

/// Returns a span in seconds for the option `name`.
pub(crate) fn span(name: &str, value: &Bound<'_, PyAny>) -> Result<Duration, Raised> {
    match seconds(value) {
        Some(Some(span)) => Ok(span),
        _ => Err(configuration(format!(
            "{name}={} is not a span of time; give seconds as a number, or a timedelta",
            shown(value)
        ))),
    }
}

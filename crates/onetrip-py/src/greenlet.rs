//! Trips of greenlets. A waiting trip does not block the other greenlets of its thread.

use std::sync::{Arc, Mutex, PoisonError};

use onetrip::Cache;
use onetrip::internals::{Begun, Context, Waiting};
use onetrip::trip::{Replies, Trip};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::error::Result;

/// Returns a function that runs another in a native thread, if this thread runs greenlets.
///
/// Called for each trip, since a server may switch to greenlets after the first one. Without gevent
/// it costs one dict lookup.
pub(crate) fn elsewhere(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || -> PyResult<_> {
        let modules = py.import("sys")?.getattr("modules")?;
        Ok(modules.cast_into::<PyDict>()?.unbind())
    })?;
    if !modules.bind(py).contains(intern!(py, "gevent.monkey"))? {
        return Ok(None);
    }
    let found = py
        .import(intern!(py, "onetrip._gevent"))?
        .call_method0(intern!(py, "elsewhere"))?;
    Ok((!found.is_none()).then_some(found))
}

/// Makes a trip and waits for it by `elsewhere`. Only the wait runs there.
///
/// The trip lives on the heap: gevent copies the stack of a waiting greenlet away and reuses its
/// memory. If the greenlet is killed while it waits, the trip ends without it and the answer is
/// dropped.
pub(crate) fn travel(
    elsewhere: &Bound<'_, PyAny>,
    cache: &Cache,
    at: &Context,
    trip: Trip,
) -> Result<Replies> {
    let wait = match cache.begin(at.clone(), trip) {
        Begun::Answered(answer) => return Ok(answer?),
        Begun::Waiting(wait) => Mutex::new(Some(wait)),
    };
    let answer = Arc::new(Mutex::new(None));
    let place = Arc::clone(&answer);
    let call = PyCFunction::new_closure(
        elsewhere.py(),
        None,
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let wait = wait.lock().unwrap_or_else(PoisonError::into_inner).take();
            let replies = arguments.py().detach(|| wait.map(|wait| wait()));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = replies;
        },
    )?;
    elsewhere.call1((call,))?;
    let replies = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    match replies {
        Some(replies) => Ok(replies?),
        None => unreachable!("`elsewhere` returns when its function has"),
    }
}

/// Shortest and longest sleep of a waiting greenlet between two checks, in seconds.
const SLEEPS: (f64, f64) = (0.001, 0.02);

/// Waits for a flight, at most for its patience, while other greenlets of this thread run.
///
/// Polls: waiters that each took a thread of the hub's pool would leave none for the trips of the
/// greenlet that computes.
pub(crate) fn wait(py: Python<'_>, waiting: &Waiting) -> Result<()> {
    let sleep = py
        .import(intern!(py, "gevent"))?
        .getattr(intern!(py, "sleep"))?;
    let (mut span, most) = SLEEPS;
    while !waiting.is_over() && !waiting.patience().is_zero() {
        sleep.call1((span,))?;
        span = (span * 1.5).min(most);
    }
    Ok(())
}

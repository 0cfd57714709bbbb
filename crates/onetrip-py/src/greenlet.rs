//! Trips of a greenlet, which wait without holding up the other greenlets of their thread.

use std::sync::{Arc, Mutex, PoisonError};

use onetrip::trip::{Replies, Trip};
use onetrip::{Begun, Cache, Context, Waiting};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::error::Result;

/// The function that calls another in a thread that may block, if this one runs greenlets.
///
/// Asked for each trip, since a server may turn its threads into greenlets after the first one.
/// Where gevent is not, that is one look into a dict.
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

/// Makes a trip that `elsewhere` waits for. Only what has to wait goes there.
///
/// What is under way lives on the heap alone: the stack of a greenlet that waits is put aside and
/// its memory given to another. If the greenlet is stopped while it waits, the trip ends without
/// it, and its answer is nobody's.
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

/// How long a greenlet sleeps between two looks, at least and at most, in seconds.
const SLEEPS: (f64, f64) = (0.001, 0.02);

/// Waits for a flight as long as it is worth it, while the other greenlets of this thread go on.
///
/// It looks again and again: a thread of the hub's pool for each that waits would leave none for
/// the trips of who computes.
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

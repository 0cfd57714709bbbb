//! Rust futures as Python coroutines.
//!
//! An event loop's task drives a coroutine: the coroutine yields a future of the loop, and the task
//! resumes it when that future is done. Here a Rust future runs in place of Python code. It can
//! await Python awaitables and nothing else.

use std::cell::RefCell;
use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{
    PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::Result;

type Work = Pin<Box<dyn Future<Output = Result<Py<PyAny>>> + Send>>;

/// Result of the `a…` methods. Starts when it is awaited.
#[pyclass(frozen, weakref, module = "onetrip")]
pub(crate) struct Coroutine {
    name: &'static str,
    state: Mutex<State>,
}

enum State {
    New(Work),
    Running,
    Waiting(Work),
    Over,
}

thread_local! {
    /// The exception thrown into the running coroutine.
    static THROWN: RefCell<Option<PyErr>> = const { RefCell::new(None) };
    /// The future that the running coroutine yields; it is resumed when that is done.
    static YIELDED: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
}

impl Coroutine {
    /// `name` is the method's name, for messages.
    pub(crate) fn new<T: for<'py> IntoPyObject<'py>>(
        name: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        let work = async move {
            let answer = work.await?;
            Ok(Python::attach(|py| answer.into_py_any(py))?)
        };
        Self {
            name,
            state: Mutex::new(State::New(Box::pin(work))),
        }
    }

    fn change(&self, state: State) -> State {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut now, state)
    }

    /// Runs until the work waits for a future, which is returned, or ends.
    fn resume(&self, py: Python<'_>, thrown: Option<PyErr>) -> PyResult<Py<PyAny>> {
        let mut work = match (self.change(State::Running), thrown) {
            (State::New(_), Some(error)) => {
                self.change(State::Over);
                return Err(error);
            }
            (State::New(work) | State::Waiting(work), thrown) => {
                THROWN.set(thrown);
                work
            }
            (State::Running, _) => {
                return Err(PyValueError::new_err("coroutine already executing"));
            }
            (State::Over, _) => {
                self.change(State::Over);
                return Err(PyRuntimeError::new_err(
                    "cannot reuse already awaited coroutine",
                ));
            }
        };
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                self.change(State::Waiting(work));
                Ok(YIELDED.take().unwrap_or_else(|| py.None()))
            }
            Poll::Ready(answer) => {
                self.change(State::Over);
                Err(match answer.map_err(PyErr::from) {
                    Ok(value) => PyStopIteration::new_err((value,)),
                    // It would pass for an answer (PEP 479).
                    Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                        let raised = PyRuntimeError::new_err("coroutine raised StopIteration");
                        raised.set_cause(py, Some(error));
                        raised
                    }
                    Err(error) => error,
                })
            }
        }
    }
}

#[pymethods]
impl Coroutine {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.resume(py, None)
    }

    /// Resumes the coroutine with `value`.
    #[pyo3(signature = (value, /))]
    fn send(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        // Event loops send nothing but None.
        let _ = value;
        self.resume(py, None)
    }

    /// Raises an exception in the coroutine.
    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        let exception = match (kind.is_callable(), value) {
            (true, None) => kind.call0()?,
            (true, Some(value)) if value.is_instance(&kind)? => value,
            (true, Some(value)) => match value.cast::<PyTuple>() {
                Ok(arguments) => kind.call1(arguments)?,
                Err(_) => kind.call1((value,))?,
            },
            (false, _) => kind,
        };
        self.resume(py, Some(PyErr::from_value(exception)))
    }

    /// Ends the coroutine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.change(State::Over) {
            State::Running => {
                self.change(State::Running);
                Err(PyValueError::new_err("coroutine already executing"))
            }
            State::Waiting(work) => {
                self.change(State::Waiting(work));
                match self.resume(py, Some(PyGeneratorExit::new_err(()))) {
                    Ok(_) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
                    Err(over)
                        if over.is_instance_of::<PyGeneratorExit>(py)
                            || over.is_instance_of::<PyStopIteration>(py) =>
                    {
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            State::New(_) | State::Over => Ok(()),
        }
    }

    #[getter]
    fn __name__(&self) -> &str {
        self.name
    }

    #[getter]
    fn __qualname__(&self) -> &str {
        self.name
    }

    fn __repr__(&self) -> String {
        format!("<coroutine {} of onetrip>", self.name)
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        if let State::New(_) = self.change(State::Over) {
            Python::attach(|py| {
                // It may be dropped while an exception passes by, which the warning must not touch.
                let passing = PyErr::take(py);
                let class = py.get_type::<PyRuntimeWarning>();
                let message = format!("coroutine '{}' was never awaited", self.name);
                let warned = py
                    .import(intern!(py, "warnings"))
                    .and_then(|warnings| warnings.call_method1("warn", (message, class)));
                if let Err(error) = warned {
                    error.write_unraisable(py, None);
                }
                if let Some(passing) = passing {
                    passing.restore(py);
                }
            });
        }
    }
}

/// Waits as `await awaitable` does.
///
/// # Errors
///
/// Returns the exception that it raises.
pub(crate) async fn awaited(awaitable: Py<PyAny>) -> Result<Py<PyAny>> {
    let iterator = Python::attach(|py| {
        awaitable
            .bind(py)
            .call_method0(intern!(py, "__await__"))
            .map(Bound::unbind)
    })?;
    Ok(std::future::poll_fn(|_| Python::attach(|py| step(iterator.bind(py)))).await?)
}

fn step(iterator: &Bound<'_, PyAny>) -> Poll<PyResult<Py<PyAny>>> {
    let py = iterator.py();
    let yielded = match THROWN.take() {
        None => iterator.call_method0(intern!(py, "__next__")),
        Some(error) => match iterator.getattr_opt(intern!(py, "throw")) {
            Ok(Some(throw)) => throw.call1((error.into_value(py),)),
            _ => Err(error),
        },
    };
    match yielded {
        Ok(object) => {
            YIELDED.set(Some(object.unbind()));
            Poll::Pending
        }
        Err(end) if end.is_instance_of::<PyStopIteration>(py) => Poll::Ready(
            end.value(py)
                .getattr(intern!(py, "value"))
                .map(Bound::unbind),
        ),
        Err(error) => Poll::Ready(Err(error)),
    }
}

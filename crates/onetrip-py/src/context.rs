//! The context of a cache in the running thread or task, kept in a `ContextVar`.

use std::ops::Deref;
use std::sync::LazyLock;

use onetrip::Context;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};

/// A context, as the value of a `ContextVar`.
#[pyclass(frozen, module = "onetrip._core")]
pub(crate) struct At(pub(crate) Context);

/// The context that a call is made in.
pub(crate) enum Here<'py> {
    /// No scope and no watch is open.
    Outside,
    /// What the variable holds.
    Within(Bound<'py, At>),
}

impl Deref for Here<'_> {
    type Target = Context;

    fn deref(&self) -> &Context {
        static OUTSIDE: LazyLock<Context> = LazyLock::new(Context::default);
        match self {
            Self::Outside => &OUTSIDE,
            Self::Within(at) => &at.get().0,
        }
    }
}

/// The `ContextVar` of one cache.
///
/// The stable interface of Python has no functions for context variables, so its methods are
/// looked up once and called.
pub(crate) struct Variable {
    get: Py<PyAny>,
    set: Py<PyAny>,
}

impl Variable {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        static CONTEXT_VAR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = CONTEXT_VAR.import(py, "contextvars", "ContextVar")?;
        let options = [("default", py.None())].into_py_dict(py)?;
        let variable = class.call(("onetrip",), Some(&options))?;
        Ok(Self {
            get: variable.getattr("get")?.unbind(),
            set: variable.getattr("set")?.unbind(),
        })
    }

    pub(crate) fn here<'py>(&self, py: Python<'py>) -> PyResult<Here<'py>> {
        let held = self.get.bind(py).call0()?;
        if held.is_none() {
            return Ok(Here::Outside);
        }
        Ok(Here::Within(held.cast_into::<At>()?))
    }

    /// Makes `context` the running one, until the change is undone.
    pub(crate) fn enter(&self, py: Python<'_>, context: Context) -> PyResult<Change> {
        let before = self.get.call0(py)?;
        let at = Py::new(py, At(context))?;
        self.set.call1(py, (&at,))?;
        Ok(Change { at, before })
    }

    /// Goes back to what was before `change`, unless the running code has other contexts: a
    /// generator may be finished elsewhere than where it began.
    pub(crate) fn leave(&self, py: Python<'_>, change: &Change) -> PyResult<()> {
        if self.get.call0(py)?.is(&change.at) {
            self.set.call1(py, (&change.before,))?;
        }
        Ok(())
    }
}

/// A change of the running context.
pub(crate) struct Change {
    at: Py<At>,
    before: Py<PyAny>,
}

impl Change {
    pub(crate) fn context(&self) -> &Context {
        &self.at.get().0
    }
}

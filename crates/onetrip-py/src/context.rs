//! The context of a cache in the running thread or task, kept in a `ContextVar`.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use onetrip::Watch;
use onetrip::internals::{Computing, Context, Scope, WriteBatch};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};

/// A context, as the value of a `ContextVar`.
#[pyclass(frozen, module = "onetrip._core")]
pub(crate) struct At {
    context: Context,
    /// Its layers, outermost first. They may be left in any order.
    layers: Vec<Arc<Layer>>,
}

/// A scope, batch, watch or computation that the running code has entered.
pub(crate) enum Layer {
    Scope(Arc<Scope>, Option<Duration>),
    Watch(Arc<Watch>),
    Batch(Arc<WriteBatch>),
    Computing(Arc<Computing>),
}

impl Layer {
    /// Returns `context` within this layer.
    pub(crate) fn within(&self, context: &Context) -> Context {
        match self {
            Self::Scope(scope, hold) => {
                let within = context.with_scope(Arc::clone(scope));
                hold.map_or(within.clone(), |hold| within.with_hold(hold))
            }
            Self::Watch(watch) => context.with_watch(Arc::clone(watch)),
            Self::Batch(batch) => context.with_batch(Arc::clone(batch)),
            Self::Computing(computing) => context.with_computing(Arc::clone(computing)),
        }
    }
}

impl At {
    fn of(layers: Vec<Arc<Layer>>) -> Self {
        let outside = Context::default();
        let context = layers.iter().fold(outside, |at, layer| layer.within(&at));
        Self { context, layers }
    }
}

/// The context of a call.
pub(crate) enum Here<'py> {
    /// No scope and no watch is open.
    Outside,
    /// The value of the variable.
    Within(Bound<'py, At>),
}

impl Deref for Here<'_> {
    type Target = Context;

    fn deref(&self) -> &Context {
        static OUTSIDE: LazyLock<Context> = LazyLock::new(Context::default);
        match self {
            Self::Outside => &OUTSIDE,
            Self::Within(at) => &at.get().context,
        }
    }
}

/// The `ContextVar` of one cache.
pub(crate) struct Variable(Py<PyAny>);

impl Variable {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        static CONTEXT_VAR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = CONTEXT_VAR.import(py, "contextvars", "ContextVar")?;
        let options = [("default", py.None())].into_py_dict(py)?;
        Ok(Self(class.call(("onetrip",), Some(&options))?.unbind()))
    }

    pub(crate) fn here<'py>(&self, py: Python<'py>) -> PyResult<Here<'py>> {
        let held = self.held(py)?;
        if held.is_none() {
            return Ok(Here::Outside);
        }
        Ok(Here::Within(held.cast_into::<At>()?))
    }

    #[expect(
        unsafe_code,
        reason = "every read of a cache asks this, and to call a method takes ten times as long"
    )]
    fn held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut held = std::ptr::null_mut();
        // SAFETY: the interpreter is held, and this is a `ContextVar`. It has a default, so that
        // what it gives is an object that is ours, or there is an exception.
        unsafe {
            ffi::PyContextVar_Get(self.0.as_ptr(), std::ptr::null_mut(), &raw mut held);
            Bound::from_owned_ptr_or_err(py, held)
        }
    }

    fn hold(&self, py: Python<'_>, held: impl for<'py> IntoPyObject<'py>) -> PyResult<()> {
        self.0.call_method1(py, intern!(py, "set"), (held,))?;
        Ok(())
    }

    /// Enters `layer` for the running code.
    pub(crate) fn enter(&self, py: Python<'_>, layer: Layer) -> PyResult<Entry> {
        let layer = Arc::new(layer);
        let mut layers = match self.here(py)? {
            Here::Outside => Vec::new(),
            Here::Within(at) => at.get().layers.clone(),
        };
        layers.push(Arc::clone(&layer));
        self.hold(py, Py::new(py, At::of(layers))?)?;
        Ok(Entry(layer))
    }

    /// Leaves a layer, whatever was entered or left since. Does nothing if the running code is not
    /// in it: a generator may be finished in another context than it began in.
    pub(crate) fn leave(&self, py: Python<'_>, entry: &Entry) -> PyResult<()> {
        let Here::Within(at) = self.here(py)? else {
            return Ok(());
        };
        let mut layers = at.get().layers.clone();
        layers.retain(|layer| !Arc::ptr_eq(layer, &entry.0));
        if layers.len() == at.get().layers.len() {
            return Ok(());
        }
        if layers.is_empty() {
            self.hold(py, py.None())?;
        } else {
            self.hold(py, Py::new(py, At::of(layers))?)?;
        }
        Ok(())
    }
}

/// Token to leave an entered layer.
pub(crate) struct Entry(Arc<Layer>);

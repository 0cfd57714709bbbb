//! Scopes as Python's `with` opens and closes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onetrip::Scope as Core;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::cache::Cache;
use crate::context::Change;
use crate::error::{Result, configuration};

/// A scope to be entered by `with`, and the keys to preload when it is.
#[pyclass(frozen, module = "onetrip")]
pub(crate) struct Scope {
    cache: Py<Cache>,
    keys: Vec<Vec<u8>>,
    entered: Mutex<Option<Entered>>,
}

struct Entered {
    change: Change,
    scope: Arc<Core>,
    /// Whether this is the outermost scope, which closes what it shares with those within.
    opened: bool,
}

impl Scope {
    pub(crate) fn new(cache: Py<Cache>, keys: Vec<Vec<u8>>) -> Self {
        Self {
            cache,
            keys,
            entered: Mutex::default(),
        }
    }

    fn entered(&self) -> MutexGuard<'_, Option<Entered>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Scope {
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.entered().is_some() {
            return Err(configuration(
                "this scope is open already; make another with cache.scope() or cache.preload()"
                    .into(),
            ));
        }
        let cache = this.cache.get();
        let policy = cache.core.policy();
        let here = cache.variable.here(py)?;
        let (scope, opened) = policy.enter(&here);
        let within = here.with_scope(Arc::clone(&scope));
        cache.travel(py, &within, policy.preload(&scope, &this.keys))?;
        let change = cache.variable.enter(py, within)?;
        *this.entered() = Some(Entered {
            change,
            scope,
            opened,
        });
        Ok(slf.clone())
    }

    #[pyo3(signature = (*exception))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) -> Result<()> {
        let Some(Entered {
            change,
            scope,
            opened,
        }) = self.entered().take()
        else {
            return Ok(());
        };
        let cache = self.cache.get();
        cache.variable.leave(py, &change)?;
        if !opened {
            return Ok(());
        }
        let closed = cache.travel(py, change.context(), cache.core.policy().close(&scope));
        match closed {
            // The exception under way says more than that its writes were lost as well.
            Err(lost) if exception.get_item(0).is_ok_and(|kind| !kind.is_none()) => {
                log::warn!(
                    "the writes of a scope that an exception ended were lost: {}",
                    PyErr::from(lost)
                );
                Ok(())
            }
            closed => closed,
        }
    }

    fn __repr__(&self) -> String {
        let state = if self.entered().is_some() {
            "open"
        } else {
            "not open"
        };
        format!("<Scope of {} preloaded keys, {state}>", self.keys.len())
    }
}

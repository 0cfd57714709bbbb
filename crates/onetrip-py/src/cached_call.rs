//! Keys, computes and stores one cached function.

use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyString, PyTuple};

use crate::cache::Cache;
use crate::error::Result;
use crate::fetch::How;
use crate::key::{self, Key};
use crate::timeout::Timeout;

/// The arguments of one call.
pub(crate) struct Arguments<'py> {
    args: Bound<'py, PyTuple>,
    kwargs: Option<Bound<'py, PyDict>>,
}

impl<'py> Arguments<'py> {
    pub(crate) fn new(args: Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> Self {
        Self {
            args,
            kwargs: kwargs.cloned(),
        }
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.args.py()
    }

    pub(crate) fn unbind(&self) -> Unbound {
        Unbound {
            args: self.args.clone().unbind(),
            kwargs: self.kwargs.clone().map(Bound::unbind),
        }
    }

    /// Returns the positional and keyword arguments as two objects, for a `key_fn`.
    fn pair(&self) -> (&Bound<'py, PyTuple>, Bound<'py, PyDict>) {
        let py = self.args.py();
        (
            &self.args,
            self.kwargs.clone().unwrap_or_else(|| PyDict::new(py)),
        )
    }
}

/// The arguments of one call, held by a coroutine.
pub(crate) struct Unbound {
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

impl Unbound {
    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> Arguments<'py> {
        Arguments {
            args: self.args.bind(py).clone(),
            kwargs: self.kwargs.as_ref().map(|kwargs| kwargs.bind(py).clone()),
        }
    }
}

/// A function, its cache, and how its keys are made.
pub(crate) struct Recipe {
    pub(crate) cache: Py<Cache>,
    pub(crate) function: Py<PyAny>,
    /// Whether the function is a coroutine function.
    pub(crate) is_async: bool,
    namer: Namer,
    pub(crate) timeout: Timeout,
}

/// How keys are made, as given to the decorator.
pub(crate) enum Naming {
    /// A format over the arguments.
    Format(Py<PyString>),
    /// A function of the arguments.
    KeyFn(Py<PyAny>),
    /// A digest of the arguments.
    Digest,
}

enum Namer {
    /// The function's name and a colon, and the function that returns the rest.
    KeyFn(String, Py<PyAny>),
    /// A function with the same parameters that returns the whole key.
    Whole(Py<PyAny>),
}

impl Recipe {
    pub(crate) fn new(
        cache: &Bound<'_, Cache>,
        function: &Bound<'_, PyAny>,
        timeout: Timeout,
        naming: &Naming,
    ) -> Result<Self> {
        let py = cache.py();
        let signature = py.import("onetrip._signature")?;
        let named = [("named", matches!(naming, Naming::Format(_)))].into_py_dict(py)?;
        let is_async = signature
            .call_method("check", (function,), Some(&named))?
            .extract()?;
        let key_maker =
            |format: Option<&Py<PyString>>| signature.call_method1("key_maker", (function, format));
        let namer = match naming {
            Naming::KeyFn(key_fn) => {
                let name: String = function.getattr(intern!(py, "__name__"))?.extract()?;
                Namer::KeyFn(name + ":", key_fn.clone_ref(py))
            }
            Naming::Format(format) => Namer::Whole(key_maker(Some(format))?.unbind()),
            Naming::Digest => Namer::Whole(key_maker(None)?.unbind()),
        };
        Ok(Self {
            cache: cache.clone().unbind(),
            function: function.clone().unbind(),
            is_async,
            namer,
            timeout,
        })
    }

    /// Returns the key of a call.
    pub(crate) fn key(&self, call: &Arguments<'_>) -> Result<Key> {
        let py = call.args.py();
        match &self.namer {
            Namer::KeyFn(name, key_fn) => {
                let part = key_fn.bind(py).call1(call.pair())?;
                let mut key = Key::from_slice(name.as_bytes());
                key::append(&part, &mut key)?;
                Ok(key)
            }
            Namer::Whole(whole) => {
                let key = whole.bind(py).call(&call.args, call.kwargs.as_ref())?;
                key::owned(&key)
            }
        }
    }

    /// Returns the key of a call as a Python string.
    pub(crate) fn key_text<'py>(&self, call: &Arguments<'py>) -> Result<Bound<'py, PyString>> {
        let py = call.args.py();
        let key = self.key(call)?;
        let text = pyo3::types::PyBytes::new(py, &key)
            .call_method1("decode", ("utf-8", "surrogatepass"))?;
        Ok(text.cast_into::<PyString>().map_err(PyErr::from)?)
    }

    /// Calls the function itself.
    pub(crate) fn compute<'py>(&self, call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        Ok(self
            .function
            .bind(call.args.py())
            .call(&call.args, call.kwargs.as_ref())?)
    }

    /// Returns the result of a call, from the cache or computed and stored.
    ///
    /// For a coroutine function, this and the following methods return a coroutine of the result.
    pub(crate) fn call<'py>(self: &Arc<Self>, call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        let py = call.args.py();
        if self.is_async {
            return Ok(self.acall(call)?.into_bound_py_any(py)?);
        }
        let (key, how) = (self.key(call)?, How::new(self.timeout));
        self.cache.get().fetch(py, &key, how, || self.compute(call))
    }

    /// Computes the result of a call anew and stores it.
    pub(crate) fn refresh<'py>(
        self: &Arc<Self>,
        call: &Arguments<'py>,
    ) -> Result<Bound<'py, PyAny>> {
        if self.is_async {
            return Ok(self.arefresh(call)?.into_bound_py_any(call.py())?);
        }
        let (key, how) = (self.key(call)?, How::new(self.timeout).refreshing());
        let cache = self.cache.get();
        cache.fetch(call.py(), &key, how, || self.compute(call))
    }

    /// Deletes the stored result of a call. Returns whether there was one.
    pub(crate) fn bust<'py>(self: &Arc<Self>, call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        let py = call.args.py();
        if self.is_async {
            return Ok(self.abust(call)?.into_bound_py_any(py)?);
        }
        let removed = self.cache.get().remove(py, &[self.key(call)?])?;
        Ok((removed > 0).into_bound_py_any(py)?)
    }

    /// Returns the results of many calls. Reads all in one trip, computes the missing ones, and
    /// stores those together.
    pub(crate) fn many<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        calls: &[Arguments<'py>],
    ) -> Result<Bound<'py, PyAny>> {
        if self.is_async {
            return Ok(self.amany(py, calls)?.into_bound_py_any(py)?);
        }
        let cache = self.cache.get();
        let keys = calls
            .iter()
            .map(|call| self.key(call))
            .collect::<Result<Vec<_>>>()?;
        let values = cache.fetch_many(py, &keys, How::new(self.timeout), |place| {
            match calls.get(place) {
                Some(call) => self.compute(call),
                None => unreachable!("each key is that of a call"),
            }
        })?;
        Ok(values.into_bound_py_any(py)?)
    }
}

//! How one cached function is keyed, computed and kept.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString, PyTuple};

use crate::cache::Cache;
use crate::error::{Result, raise};
use crate::key;
use crate::timeout::Lifetime;

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

    /// Positional and keyword arguments as two objects, for a function that makes a key of them.
    fn pair(&self) -> (&Bound<'py, PyTuple>, Bound<'py, PyDict>) {
        let py = self.args.py();
        (
            &self.args,
            self.kwargs.clone().unwrap_or_else(|| PyDict::new(py)),
        )
    }
}

/// A function, the cache of its results, and how their keys are made.
pub(crate) struct Recipe {
    pub(crate) cache: Py<Cache>,
    pub(crate) function: Py<PyAny>,
    namer: Namer,
    timeout: Lifetime,
}

enum Namer {
    /// The function's name and a colon, and what gives the rest.
    KeyFn(String, Py<PyAny>),
    /// What gives the whole key.
    Whole(Py<PyAny>),
}

impl Recipe {
    pub(crate) fn new(
        cache: &Bound<'_, Cache>,
        function: &Bound<'_, PyAny>,
        timeout: Lifetime,
        key: Option<&Bound<'_, PyString>>,
        key_fn: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let py = cache.py();
        let signature = py.import("onetrip._signature")?;
        signature.call_method1("check", (function,))?;
        let namer = match key_fn {
            Some(key_fn) => {
                let name: String = function.getattr(intern!(py, "__name__"))?.extract()?;
                Namer::KeyFn(name + ":", key_fn.clone().unbind())
            }
            None => Namer::Whole(
                signature
                    .call_method1("key_maker", (function, key))?
                    .unbind(),
            ),
        };
        Ok(Self {
            cache: cache.clone().unbind(),
            function: function.clone().unbind(),
            namer,
            timeout,
        })
    }

    /// The key of a call.
    pub(crate) fn key(&self, call: &Arguments<'_>) -> Result<Vec<u8>> {
        let py = call.args.py();
        match &self.namer {
            Namer::KeyFn(name, key_fn) => {
                let part = key_fn.bind(py).call1(call.pair())?;
                let mut bytes = name.clone().into_bytes();
                bytes.extend_from_slice(&key::bytes(stable_text(&part)?.as_any())?);
                Ok(bytes)
            }
            Namer::Whole(whole) => {
                Ok(key::bytes(&whole.bind(py).call1(call.pair())?)?.into_owned())
            }
        }
    }

    /// The same, as a string.
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

    /// The result of a call: from the cache, or computed and stored.
    pub(crate) fn call<'py>(&self, call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        let py = call.args.py();
        let key = self.key(call)?;
        match self.cache.get().read(py, &key)? {
            Some(value) => Ok(value),
            None => self.make(&key, call),
        }
    }

    /// Computes the result of a call anew and stores it.
    pub(crate) fn refresh<'py>(&self, call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        self.make(&self.key(call)?, call)
    }

    fn make<'py>(&self, key: &[u8], call: &Arguments<'py>) -> Result<Bound<'py, PyAny>> {
        let value = self.compute(call)?;
        self.cache
            .get()
            .write(call.args.py(), [(key, &value)], self.timeout)?;
        Ok(value)
    }

    /// Removes the stored result of a call; whether there was one.
    pub(crate) fn bust(&self, call: &Arguments<'_>) -> Result<bool> {
        let key = self.key(call)?;
        Ok(self.cache.get().remove(call.args.py(), &[key])? > 0)
    }

    /// The results of many calls: all from the cache in one trip, the missing computed, and those
    /// stored in one trip.
    pub(crate) fn many<'py>(
        &self,
        py: Python<'py>,
        calls: &[Arguments<'py>],
    ) -> Result<Vec<Bound<'py, PyAny>>> {
        let cache = self.cache.get();
        let keys = calls
            .iter()
            .map(|call| self.key(call))
            .collect::<Result<Vec<_>>>()?;
        let found = cache.read_many(py, &keys)?;
        let mut made: HashMap<&[u8], Bound<'py, PyAny>> = HashMap::new();
        let mut results = Vec::with_capacity(calls.len());
        let mut failure = None;
        for ((key, call), value) in keys.iter().zip(calls).zip(found) {
            let value = match value.or_else(|| made.get(key.as_slice()).cloned()) {
                Some(value) => value,
                None => match self.compute(call) {
                    Ok(value) => {
                        made.insert(key, value.clone());
                        value
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                },
            };
            results.push(value);
        }
        // What was computed before a failure is not lost.
        cache.write(
            py,
            made.iter().map(|(key, value)| (*key, value)),
            self.timeout,
        )?;
        match failure {
            Some(error) => Err(error),
            None => Ok(results),
        }
    }
}

/// The text of what a `key_fn` gave, unless it would be another one in each process.
fn stable_text<'py>(part: &Bound<'py, PyAny>) -> Result<Bound<'py, PyString>> {
    if let Ok(text) = part.cast_exact::<PyString>() {
        return Ok(text.clone());
    }
    if !part.is_exact_instance_of::<PyInt>() && has_default_text(part)? {
        let type_name = part.get_type().fully_qualified_name()?;
        return Err(raise(
            "BadKeyError",
            format!(
                "key_fn gave a {type_name}, whose text is an address that differs in each process; let it give a string or a number"
            ),
        ));
    }
    Ok(part.str()?)
}

/// Whether the text of an object is only its address: its class has the `__str__` and `__repr__`
/// that every object has.
fn has_default_text(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    let (class, default) = (object.get_type(), py.get_type::<PyAny>());
    for method in [intern!(py, "__str__"), intern!(py, "__repr__")] {
        if !class.getattr(method)?.is(&default.getattr(method)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

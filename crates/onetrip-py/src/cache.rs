//! The blocking face of a cache.

use std::fmt::Write;

use bytes::Bytes;
use onetrip::codec::Presence;
use onetrip::trip::Replies;
use onetrip::{Context, Step};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::cached::{self, Cached, CachedProperty, First};
use crate::context::Variable;
use crate::decode::Decoder;
use crate::encode::encode;
use crate::error::{Result, raise};
use crate::key;
use crate::options;
use crate::scope::Scope;
use crate::stats::Stats;
use crate::timeout::Lifetime;
use crate::watch::Watch;

/// A cache: a store, the keys in it under one prefix, and how its entries are written.
#[pyclass(frozen, subclass, weakref, module = "onetrip")]
pub(crate) struct Cache {
    pub(crate) core: onetrip::Cache,
    pub(crate) variable: Variable,
}

impl Cache {
    /// Answers `step`, making its trip without holding the interpreter if it leaves the process.
    pub(crate) fn travel<T, F: FnOnce(Replies) -> T>(
        &self,
        py: Python<'_>,
        at: &Context,
        step: Step<T, F>,
    ) -> Result<T> {
        match step {
            Step::Done(answer) => Ok(answer),
            Step::Ask(trip, finish) => {
                let send = || self.core.send_blocking(at, &trip);
                let replies = if self.core.is_local() {
                    send()
                } else {
                    py.detach(send)
                };
                Ok(finish(replies?))
            }
        }
    }

    /// The value of `key`, if it has one.
    pub(crate) fn read<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let here = self.variable.here(py)?;
        let decoder = Decoder::new(py);
        let value = self.travel(py, &here, self.core.policy().get(&here, key, &decoder))?;
        Ok(decoder.finish(value)?)
    }

    /// The values of `keys`, in their order.
    pub(crate) fn read_many<'py, K: AsRef<[u8]>>(
        &self,
        py: Python<'py>,
        keys: &[K],
    ) -> Result<Vec<Option<Bound<'py, PyAny>>>> {
        let here = self.variable.here(py)?;
        let decoder = Decoder::new(py);
        let values = self.travel(
            py,
            &here,
            self.core.policy().get_many(&here, keys, &decoder),
        )?;
        Ok(decoder.finish(values)?)
    }

    fn entry(&self, key: &[u8], value: &Bound<'_, PyAny>) -> Result<Bytes> {
        let serializer = self.core.serializer();
        self.core
            .policy()
            .seal(key, |out| encode(serializer, value, out))
    }

    /// Stores values, each under its key.
    pub(crate) fn write<'a, 'py: 'a, K: AsRef<[u8]> + 'a>(
        &self,
        py: Python<'py>,
        values: impl IntoIterator<Item = (K, &'a Bound<'py, PyAny>)>,
        timeout: Lifetime,
    ) -> Result<()> {
        let entries = values
            .into_iter()
            .map(|(key, value)| {
                let entry = self.entry(key.as_ref(), value)?;
                Ok((key, entry))
            })
            .collect::<Result<Vec<_>>>()?;
        let here = self.variable.here(py)?;
        self.travel(
            py,
            &here,
            self.core.policy().set_many(&here, entries, timeout.0),
        )
    }

    /// Removes the entries of `keys`; how many there were.
    pub(crate) fn remove<K: AsRef<[u8]>>(&self, py: Python<'_>, keys: &[K]) -> Result<usize> {
        let here = self.variable.here(py)?;
        self.travel(py, &here, self.core.policy().delete_many(&here, keys))
    }

    fn number(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        let py = key.py();
        let here = self.variable.here(py)?;
        let bytes = key::bytes(key)?;
        let number = self.travel(py, &here, self.core.policy().incr(&here, &bytes, delta))?;
        Ok(number.ok_or_else(|| missing(key))?)
    }
}

fn missing(key: &Bound<'_, PyAny>) -> PyErr {
    PyKeyError::new_err(key.clone().unbind())
}

/// The keys of an iterable of strings.
fn keys_of(keys: &Bound<'_, PyAny>) -> Result<Vec<Vec<u8>>> {
    if keys.is_instance_of::<PyString>() {
        return Err(raise(
            "BadKeyError",
            "one string was given where an iterable of keys is expected; put it in a list".into(),
        ));
    }
    keys.try_iter()?
        .map(|one| Ok(key::bytes(&one?)?.into_owned()))
        .collect()
}

#[pymethods]
impl Cache {
    #[new]
    #[pyo3(
        signature = (url=None, **options),
        text_signature = "(url=..., *, prefix=..., timeout=..., serializer=..., secret=..., compression=..., compression_min=..., on_error=..., connect_timeout=..., trip_timeout=..., scope_max_age=..., defer_writes=..., debug=...)"
    )]
    fn new(py: Python<'_>, url: Option<&str>, options: Option<&Bound<'_, PyDict>>) -> Result<Self> {
        Ok(Self {
            core: options::open(url, options)?,
            variable: Variable::new(py)?,
        })
    }

    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let bytes = key::bytes(key)?;
        Ok(self.read(key.py(), &bytes)?.or(default))
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let value = self.read(key.py(), &key::bytes(key)?)?;
        Ok(value.ok_or_else(|| missing(key))?)
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Result<()> {
        self.set(key, value, Lifetime::default())
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let here = self.variable.here(py)?;
        let found = self.travel(py, &here, self.core.policy().get(&here, &bytes, &Presence))?;
        Ok(found.is_some())
    }

    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> Result<Bound<'py, PyDict>> {
        let py = keys.py();
        let given = keys.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let found = PyDict::new(py);
        let values = self.read_many(py, &keys_of(given.clone().into_pyobject(py)?.as_any())?)?;
        for (key, value) in given.into_iter().zip(values) {
            if let Some(value) = value {
                found.set_item(key, value)?;
            }
        }
        Ok(found)
    }

    #[pyo3(signature = (key, value, timeout=Lifetime::default()), text_signature = "($self, key, value, timeout=...)")]
    fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Lifetime,
    ) -> Result<()> {
        self.write(key.py(), [(&*key::bytes(key)?, value)], timeout)
    }

    #[pyo3(signature = (mapping, timeout=Lifetime::default()), text_signature = "($self, mapping, timeout=...)")]
    fn set_many(&self, mapping: &Bound<'_, PyAny>, timeout: Lifetime) -> Result<()> {
        let values = PyDict::new(mapping.py());
        values.call_method1("update", (mapping,))?;
        let values = values
            .iter()
            .map(|(key, value)| Ok((key::bytes(&key)?.into_owned(), value)))
            .collect::<Result<Vec<_>>>()?;
        let values = values.iter().map(|(key, value)| (key, value));
        self.write(mapping.py(), values, timeout)
    }

    #[pyo3(signature = (key, value, timeout=Lifetime::default()), text_signature = "($self, key, value, timeout=...)")]
    fn add(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Lifetime,
    ) -> Result<bool> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let entry = self.entry(&bytes, value)?;
        let here = self.variable.here(py)?;
        self.travel(
            py,
            &here,
            self.core.policy().add(&here, &bytes, entry, timeout.0),
        )
    }

    #[pyo3(signature = (key, default, timeout=Lifetime::default()), text_signature = "($self, key, default, timeout=...)")]
    fn get_or_set<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Bound<'py, PyAny>,
        timeout: Lifetime,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        if let Some(value) = self.read(py, &bytes)? {
            return Ok(value);
        }
        let value = if default.is_callable() {
            default.call0()?
        } else {
            default
        };
        self.write(py, [(&*bytes, &value)], timeout)?;
        Ok(value)
    }

    #[pyo3(signature = (key, delta=1))]
    fn incr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        self.number(key, delta)
    }

    #[pyo3(signature = (key, delta=1))]
    fn decr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        self.number(key, delta.saturating_neg())
    }

    fn touch(&self, key: &Bound<'_, PyAny>, timeout: Lifetime) -> Result<bool> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let (here, keys) = (self.variable.here(py)?, [bytes]);
        let count = self.travel(
            py,
            &here,
            self.core.policy().touch_many(&here, &keys, timeout.0),
        )?;
        Ok(count > 0)
    }

    fn touch_many(&self, keys: &Bound<'_, PyAny>, timeout: Lifetime) -> Result<usize> {
        let (py, keys) = (keys.py(), keys_of(keys)?);
        let here = self.variable.here(py)?;
        self.travel(
            py,
            &here,
            self.core.policy().touch_many(&here, &keys, timeout.0),
        )
    }

    fn delete(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.remove(key.py(), &[key::bytes(key)?])? > 0)
    }

    fn delete_many(&self, keys: &Bound<'_, PyAny>) -> Result<usize> {
        self.remove(keys.py(), &keys_of(keys)?)
    }

    fn clear(&self, py: Python<'_>) -> Result<u64> {
        let here = self.variable.here(py)?;
        self.travel(py, &here, self.core.policy().clear(&here))
    }

    #[pyo3(signature = (*keys))]
    fn preload(slf: &Bound<'_, Self>, keys: &Bound<'_, PyTuple>) -> Result<Scope> {
        let mut names = Vec::new();
        cached::collect_keys(slf, keys.as_any(), &mut names)?;
        Ok(Scope::new(slf.clone().unbind(), names))
    }

    fn scope(slf: &Bound<'_, Self>) -> Scope {
        Scope::new(slf.clone().unbind(), Vec::new())
    }

    fn watch(slf: &Bound<'_, Self>) -> Watch {
        Watch::new(slf.clone().unbind())
    }

    #[pyo3(
        signature = (timeout=First::Unset, *, key=None, key_fn=None),
        text_signature = "($self, timeout=..., *, key=None, key_fn=None)"
    )]
    fn cached<'py>(
        slf: &Bound<'py, Self>,
        timeout: First<'py>,
        key: Option<Bound<'py, PyString>>,
        key_fn: Option<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        cached::decorate::<Cached>(slf, timeout, key, key_fn)
    }

    #[pyo3(
        signature = (timeout=First::Unset, *, key=None, key_fn=None),
        text_signature = "($self, timeout=..., *, key=None, key_fn=None)"
    )]
    fn cached_property<'py>(
        slf: &Bound<'py, Self>,
        timeout: First<'py>,
        key: Option<Bound<'py, PyString>>,
        key_fn: Option<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        cached::decorate::<CachedProperty>(slf, timeout, key, key_fn)
    }

    fn stats(&self) -> Stats {
        Stats(self.core.stats())
    }

    fn reset_stats(&self) {
        self.core.reset_stats();
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.core.close_idle());
    }

    fn __repr__(&self) -> String {
        let mut text = format!("<onetrip.Cache {}", self.core.label());
        let prefix = self.core.prefix();
        if !prefix.is_empty() {
            let _ = write!(text, " prefix={prefix:?}");
        }
        text + ">"
    }
}

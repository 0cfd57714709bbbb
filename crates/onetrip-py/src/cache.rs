//! The blocking face of a cache.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use onetrip::codec::Decode;
use onetrip::entry::Content;
use onetrip::trip::{Replies, Trip};
use onetrip::{Context, Step};
use pyo3::exceptions::{PyKeyError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::cached::{self, Cached, CachedProperty, First};
use crate::context::Variable;
use crate::decode::Decoder;
use crate::encode::encode;
use crate::error::{Result, raise};
use crate::fetch::How;
use crate::greenlet;
use crate::key;
use crate::options;
use crate::route::Route;
use crate::scope::{self, Batch, Scope};
use crate::stats::Stats;
use crate::timeout::{Timeout, span};
use crate::watch::Watch;

/// A cache: a store, the keys in it under one prefix, and how its entries are written.
///
/// `url` names the store: "memory://" (the default), "redis://host:port/db". Nothing connects
/// until the first trip.
///
/// Options: `prefix` ("") of all keys; `timeout` (300 seconds) of entries that name none;
/// `serializer` "native", "pickle" (needs a secret) or "raw"; `secret`, one or several, to sign
/// entries; `compression` None, "zstd" or "lz4" of payloads from `compression_min` (1024 bytes);
/// `on_error` "miss" or "raise" when the store fails; `connect_timeout` and `trip_timeout`
/// (1 second); `scope_max_age` (10 seconds) of the pieces that a scope holds and `read_max_age` (0.1
/// seconds) of the plain answers that a learned page holds; `debug` (False) to cache nothing;
/// `pages` "preload", "shadow" (only count) or "off" of what pages learn, and `page_keys` (512) and
/// `page_bytes` (1 MiB) of what they preload.
///
/// Raises ConfigurationError if the URL or an option is not known; the message names those that
/// are.
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
            Step::Ask(trip, finish) => Ok(finish(self.send(py, at, trip)?)),
        }
    }

    /// Makes a trip, without holding the interpreter if it leaves the process.
    pub(crate) fn send(&self, py: Python<'_>, at: &Context, trip: Trip) -> Result<Replies> {
        let send = || self.core.send_blocking(at, &trip);
        if self.core.is_local() {
            Ok(send()?)
        } else if let Some(elsewhere) = greenlet::elsewhere(py)? {
            greenlet::travel(&elsewhere, &self.core, at, trip)
        } else {
            Ok(py.detach(send)?)
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

    pub(crate) fn entry(&self, key: &[u8], value: &Bound<'_, PyAny>) -> Result<Bytes> {
        let serializer = self.core.serializer();
        self.core
            .policy()
            .seal(key, |out| encode(serializer, value, out))
    }

    /// The entry of a piece.
    pub(crate) fn piece(
        &self,
        key: &[u8],
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Bytes> {
        let serializer = self.core.serializer();
        let encode = |out: &mut Vec<u8>| encode(serializer, value, out);
        self.core.policy().seal_piece(key, timeout.0, encode)
    }

    /// The entries of values, each with its key.
    pub(crate) fn entries<'a, 'py: 'a, K: AsRef<[u8]>>(
        &self,
        values: impl IntoIterator<Item = (K, &'a Bound<'py, PyAny>)>,
    ) -> Result<Vec<(K, Bytes)>> {
        let values = values.into_iter();
        values
            .map(|(key, value)| {
                let entry = self.entry(key.as_ref(), value)?;
                Ok((key, entry))
            })
            .collect()
    }

    /// Stores values, each under its key.
    pub(crate) fn write<'a, 'py: 'a, K: AsRef<[u8]> + 'a>(
        &self,
        py: Python<'py>,
        values: impl IntoIterator<Item = (K, &'a Bound<'py, PyAny>)>,
        timeout: Timeout,
    ) -> Result<()> {
        let entries = self.entries(values)?;
        let here = self.variable.here(py)?;
        self.travel(
            py,
            &here,
            self.core.policy().set_many(&here, entries, timeout.0),
        )
    }

    /// Reads a piece, and computes nothing.
    pub(crate) fn peek<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let here = self.variable.here(py)?;
        let decoder = Decoder::new(py);
        let step = self.core.policy().get_piece(&here, key, &decoder);
        let value = self.travel(py, &here, step)?;
        Ok(decoder.finish(value)?)
    }

    /// A value as another reader of its entry would get it: equal, and nobody else's.
    pub(crate) fn copy<'py>(&self, value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let mut payload = Vec::new();
        let kind = encode(self.core.serializer(), value, &mut payload)?;
        let payload = Bytes::from(payload);
        let decoder = Decoder::new(value.py());
        let copy = decoder.decode(&Content { kind, payload });
        Ok(decoder.finish(copy.unwrap_or_else(|_| value.clone()))?)
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

/// The items of an iterable of keys.
pub(crate) fn listed<'py>(keys: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
    if keys.is_instance_of::<PyString>() {
        return Err(raise(
            "BadKeyError",
            "one string was given where an iterable of keys is expected; put it in a list".into(),
        ));
    }
    Ok(keys.try_iter()?.collect::<PyResult<_>>()?)
}

/// Keys and values of what `dict` takes.
#[expect(clippy::type_complexity, reason = "two lists")]
pub(crate) fn items<'py>(
    mapping: &Bound<'py, PyAny>,
) -> Result<(Vec<Bound<'py, PyAny>>, Vec<Bound<'py, PyAny>>)> {
    let given = PyDict::new(mapping.py());
    given.call_method1("update", (mapping,))?;
    Ok(given.iter().unzip())
}

/// Those of `keys` that have a value, as a dict.
pub(crate) fn found<'py, K: IntoPyObject<'py>, V: IntoPyObject<'py>>(
    py: Python<'py>,
    keys: impl IntoIterator<Item = K>,
    values: impl IntoIterator<Item = Option<V>>,
) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (key, value) in keys.into_iter().zip(values) {
        if let Some(value) = value {
            found.set_item(key, value)?;
        }
    }
    Ok(found)
}

pub(crate) fn names<'a>(keys: &'a [Bound<'_, PyAny>]) -> Result<Vec<Cow<'a, [u8]>>> {
    keys.iter().map(key::bytes).collect()
}

#[pymethods]
impl Cache {
    #[new]
    #[pyo3(
        signature = (url=None, **options),
        text_signature = "(url=..., *, prefix=..., timeout=..., serializer=..., secret=..., compression=..., compression_min=..., on_error=..., connect_timeout=..., trip_timeout=..., scope_max_age=..., read_max_age=..., debug=..., pages=..., page_keys=..., page_bytes=...)"
    )]
    fn new(
        py: Python<'_>,
        url: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Self> {
        Ok(Self {
            core: options::open(url, options)?,
            variable: Variable::new(py)?,
        })
    }

    /// The value of `key`, or `default` if there is none.
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
        self.set(key, value, Timeout::default())
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> Result<()> {
        match self.delete(key)? {
            true => Ok(()),
            false => Err(missing(key).into()),
        }
    }

    /// Not even by `__getitem__`, which Python would try with 0, 1, 2, …
    #[classattr]
    const __iter__: Option<()> = None;

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.read(key.py(), &key::bytes(key)?)?.is_some())
    }

    /// A dict of those of `keys` that were found, read in one trip.
    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> Result<Bound<'py, PyDict>> {
        let py = keys.py();
        let keys = listed(keys)?;
        let values = self.read_many(py, &names(&keys)?)?;
        Ok(found(py, &keys, values)?)
    }

    /// Store `value` under `key`. It is there when this returns; within `batch()`, when the batch has left.
    ///
    /// `timeout` is in seconds (int, float) or a `timedelta`; left out, it is the cache's default; `None` never expires; zero or less stores nothing and removes what was there.
    ///
    /// Raises SerializationError if the serializer cannot hold the value.
    #[pyo3(signature = (key, value, timeout=Timeout::default()), text_signature = "($self, key, value, timeout=...)")]
    fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<()> {
        self.write(key.py(), [(&*key::bytes(key)?, value)], timeout)
    }

    /// Store many values, in one trip; `timeout` as in `set`. Raises SerializationError, and then stores nothing, if one of them cannot be held.
    #[pyo3(signature = (mapping, timeout=Timeout::default()), text_signature = "($self, mapping, timeout=...)")]
    fn set_many(&self, mapping: &Bound<'_, PyAny>, timeout: Timeout) -> Result<()> {
        let (keys, values) = items(mapping)?;
        self.write(
            mapping.py(),
            names(&keys)?.into_iter().zip(&values),
            timeout,
        )
    }

    /// Store `value` under `key` if there is nothing; True if it did. `timeout` as in `set`.
    #[pyo3(signature = (key, value, timeout=Timeout::default()), text_signature = "($self, key, value, timeout=...)")]
    fn add(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
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

    /// Return the value of `key`. On a miss, store `default` and return it.
    ///
    /// A callable default is called on a miss, with no arguments; callers of this process who miss the key together call it once. If others stored a value meanwhile, that one is kept and returned. `timeout` as in `set`.
    #[pyo3(signature = (key, default, timeout=Timeout::default()), text_signature = "($self, key, default, timeout=...)")]
    fn get_or_set<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Bound<'py, PyAny>,
        timeout: Timeout,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        self.fetch(py, &bytes, How::new(timeout).adding(), || {
            Ok(if default.is_callable() {
                default.call0()?
            } else {
                default
            })
        })
    }

    /// Fetch the markup of a fragment: of `key`, or what `render()` gives, which is then stored. For integrations.
    fn _fragment<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        timeout: Timeout,
        render: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let render = || Ok(render.call0()?);
        self.fetch(py, &bytes, How::new(timeout).text(), render)
    }

    /// Fetch the value of `key`, or what `compute()` gives, which is then stored as that of a cached function is. For integrations.
    fn _fetch<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        timeout: Timeout,
        compute: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        self.fetch(py, &bytes, How::new(timeout), || Ok(compute.call0()?))
    }

    /// As `get`, of a piece. For integrations.
    #[pyo3(signature = (key, default=None))]
    fn _piece_get<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        Ok(self.peek(key.py(), &key::bytes(key)?)?.or(default))
    }

    /// As `set`, of a piece. For integrations.
    #[pyo3(signature = (key, value, timeout=Timeout::default()))]
    fn _piece_set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<()> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let how = How::new(timeout).refreshing();
        self.fetch(py, &bytes, how, || Ok(value.clone()))?;
        Ok(())
    }

    /// Add `delta` to the integer under `key`; the new number. Its time to live stays.
    ///
    /// Raises KeyError if there is no entry, and NotANumberError if it holds no integer or the sum leaves 64 bits.
    #[pyo3(signature = (key, delta=1))]
    fn incr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        self.number(key, delta)
    }

    /// Subtract `delta` from the integer under `key`; otherwise as `incr`.
    #[pyo3(signature = (key, delta=1))]
    fn decr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        let delta = delta.checked_neg().ok_or_else(|| {
            PyOverflowError::new_err("the negative of delta does not fit in 64 bits")
        })?;
        self.number(key, delta)
    }

    /// Give the entry of `key` a new timeout, counted from now; True if there was one.
    fn touch(&self, key: &Bound<'_, PyAny>, timeout: Timeout) -> Result<bool> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        let (here, keys) = (self.variable.here(py)?, [bytes]);
        let count = self.travel(
            py,
            &here,
            self.core.policy().touch_many(&here, &keys, timeout.0),
        )?;
        Ok(count > 0)
    }

    /// Give many entries a new timeout, in one trip; how many there were.
    fn touch_many(&self, keys: &Bound<'_, PyAny>, timeout: Timeout) -> Result<usize> {
        let (py, keys) = (keys.py(), listed(keys)?);
        let (here, names) = (self.variable.here(py)?, names(&keys)?);
        self.travel(
            py,
            &here,
            self.core.policy().touch_many(&here, &names, timeout.0),
        )
    }

    /// Remove the entry of `key`, at once; True if there was one.
    fn delete(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.remove(key.py(), &[key::bytes(key)?])? > 0)
    }

    /// Remove many entries, in one trip; how many there were.
    fn delete_many(&self, keys: &Bound<'_, PyAny>) -> Result<usize> {
        self.remove(keys.py(), &names(&listed(keys)?)?)
    }

    /// Remove every entry under this cache's prefix, and no other; how many there were.
    fn clear(&self, py: Python<'_>) -> Result<u64> {
        let here = self.variable.here(py)?;
        self.travel(py, &here, self.core.policy().clear(&here))
    }

    /// A scope that holds the entries of `keys`, read in one trip when `with` enters it.
    ///
    /// For `scope_max_age` it answers plain reads of these keys, too, and absent ones as absent. Do not preload keys that must be exact, such as locks and counters.
    ///
    /// Takes strings, iterables of strings, and cached functions bound to their arguments: methods, and `functools.partial`.
    #[pyo3(signature = (*keys))]
    fn preload(slf: &Bound<'_, Self>, keys: &Bound<'_, PyTuple>) -> Result<Scope> {
        let mut names = Vec::new();
        cached::collect_keys(slf, keys.as_any(), &mut names, 0)?;
        Ok(Scope::new(slf.clone().unbind(), names))
    }

    /// A scope that holds nothing yet: what is fetched twice in it is asked for once, and what is computed in it is stored without waiting.
    ///
    /// Plain reads ask the store each time, unless `max_age` says for how long (in seconds) the scope may answer them by what it holds, absences included.
    #[pyo3(signature = (*, max_age=None))]
    fn scope(slf: &Bound<'_, Self>, max_age: Option<&Bound<'_, PyAny>>) -> Result<Scope> {
        let hold = max_age.map(|age| span("max_age", age)).transpose()?;
        Ok(Scope::new(slf.clone().unbind(), Vec::new()).holding(hold))
    }

    /// The scope of one request, which is `safe` if it changes nothing. For integrations.
    fn _request_scope(slf: &Bound<'_, Self>, safe: bool) -> Scope {
        Scope::new(slf.clone().unbind(), Vec::new()).of_request(safe)
    }

    /// Gather the values that `set` and `set_many` store in a `with` block: they leave in one trip, with the next operation that asks the store, at the latest when the block ends.
    fn batch(slf: &Bound<'_, Self>) -> Batch {
        Batch::new(slf.clone().unbind())
    }

    /// End the plain answers that the scope of a page holds: the next plain read asks the store. For news that came another way than through this cache, such as a row lock or a message.
    fn fresh(&self, py: Python<'_>) -> Result<()> {
        if let Some(scope) = self.variable.here(py)?.scope() {
            scope.refresh();
        }
        Ok(())
    }

    /// A scope for one visit to a page: its first read brings what visits to that page are likely to read, as they showed before, and what it reads itself is learned.
    ///
    /// `name` is that of the view and `args` what it is called with: from a few visits to some of its pages, those never visited are known as well.
    #[pyo3(signature = (name, /, **args))]
    fn page(slf: &Bound<'_, Self>, name: &str, args: Option<&Bound<'_, PyDict>>) -> Result<Scope> {
        Ok(Scope::of_page(
            slf.clone().unbind(),
            scope::page(name, args)?,
        ))
    }

    /// What was learned of each route, those that are visited most first.
    fn pages(&self) -> Vec<Route> {
        self.core.pages().into_iter().map(Route).collect()
    }

    /// What the workers of a site know of each route that they visited of late, by name, as they told it each other through the store. Two trips.
    fn shared_pages(&self, py: Python<'_>) -> Result<Vec<Route>> {
        let at = Context::clone(&*self.variable.here(py)?);
        let policy = self.core.policy();
        let routes = self.travel(py, &at, policy.shared_routes())?;
        let pages = self.travel(py, &at, policy.shared_pages(&routes))?;
        Ok(pages.into_iter().map(Route).collect())
    }

    /// Whether its pages learn: not with `pages="off"`, and not under `debug`.
    #[getter]
    fn learns(&self) -> bool {
        self.core.policy().learns()
    }

    /// Count and list the trips that a `with` block makes: `with cache.watch() as seen: …; seen.trips`.
    fn watch(slf: &Bound<'_, Self>) -> Watch {
        Watch::new(slf.clone().unbind())
    }

    /// Decorate a function or method, so that its results are cached. Callers of this process who miss a result together compute it once.
    ///
    /// In a scope results may be up to `scope_max_age` old, and what is computed is stored without waiting.
    ///
    /// `key` is a format over the arguments, `"note:{note.id}"`. `key_fn(args, kwargs)` gives what follows the function's name and a colon. With neither, the key is the module and name of the function and a digest of all arguments. `timeout` as in `set`.
    ///
    /// Raises ConfigurationError for what cannot be cached; its calls raise BadKeyError if an argument has no stable form to make a key of.
    #[pyo3(
        signature = (timeout=First::Unset, *, key=None, key_fn=None),
        text_signature = "($self, timeout=..., *, key=None, key_fn=None)"
    )]
    fn cached<'py>(
        slf: &Bound<'py, Self>,
        timeout: First<'py>,
        key: Option<Bound<'py, PyAny>>,
        key_fn: Option<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        cached::decorate::<Cached>(slf, timeout, key, key_fn)
    }

    /// Decorate a method of no arguments, to be a property whose values are cached; options as those of `cached`.
    #[pyo3(
        signature = (timeout=First::Unset, *, key=None, key_fn=None),
        text_signature = "($self, timeout=..., *, key=None, key_fn=None)"
    )]
    fn cached_property<'py>(
        slf: &Bound<'py, Self>,
        timeout: First<'py>,
        key: Option<Bound<'py, PyAny>>,
        key_fn: Option<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        cached::decorate::<CachedProperty>(slf, timeout, key, key_fn)
    }

    /// The counters of this cache since it was opened or last reset, over all threads.
    fn stats(&self) -> Stats {
        Stats(self.core.stats())
    }

    /// Set all counters to zero.
    fn reset_stats(&self) {
        self.core.reset_stats();
    }

    /// Close the connections that are idle. The next trip opens a new one.
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

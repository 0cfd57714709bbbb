//! The blocking methods of a cache.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use onetrip::internals::codec::Decode;
use onetrip::internals::entry::Content;
use onetrip::internals::{Context, Step};
use onetrip::trip::{Replies, Trip};
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

/// Caches values in one store, under one prefix. Thread-safe; share one per process.
///
///     cache = Cache("redis://127.0.0.1:6379/0", prefix="blog", timeout=300)
///
/// `url` names the store: "memory://" (the default), "disk:///path", "redis://host:port/db",
/// "memcached://host:port", "kt://host:port/db". Nothing connects before the first trip. Times
/// are seconds (int or float) or a timedelta.
///
/// - `prefix` (""): prefix of all keys in the store, as in "prefix:key".
/// - `timeout` (300): time to live of entries stored without one. None keeps them until they
///   are evicted.
/// - `serializer` ("native"): "native" for plain data, "pickle" (needs `secret`) or "raw" for
///   bytes without a header.
/// - `secret` (None): signs entries. Of several, the first signs and all are accepted.
/// - `compression` (None): "zstd" or "lz4".
/// - `compression_min` (1024): bytes from which payloads are compressed.
/// - `on_error` ("miss"): "miss" turns a failing store into misses and dropped writes, "raise"
///   into exceptions.
/// - `connect_timeout` (1.0): limit for connecting.
/// - `trip_timeout` (1.0): limit for one trip, connecting not included.
/// - `scope_max_age` (10.0): maximum age of pieces held by a scope.
/// - `read_max_age` (0.1): maximum age of plain answers held by a learned page, and of pieces
///   once the response is being sent.
/// - `debug` (False): True caches nothing.
/// - `pages` ("preload"): "preload" loads what pages are known to read, "shadow" only counts
///   what it would load, "off" learns nothing.
/// - `page_keys` (512), `page_bytes` (1048576): limits of what a page preloads.
///
/// Raises ConfigurationError for an unknown URL scheme, option or value. The message lists the
/// known ones.
#[pyclass(frozen, subclass, weakref, module = "onetrip")]
pub(crate) struct Cache {
    pub(crate) core: onetrip::Cache,
    pub(crate) variable: Variable,
}

impl Cache {
    /// Completes `step`. Releases the interpreter during its trip, unless the store is local.
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

    /// Makes a trip. Releases the interpreter meanwhile, unless the store is local.
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

    /// Returns the value of `key`, if it has one.
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

    /// Returns the values of `keys`, in order.
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

    /// Returns the entry of a piece.
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

    /// Returns the entries of values, each with its key.
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

    /// Reads a piece without computing it.
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

    /// Returns a copy of `value`, as another reader of its entry would decode it.
    pub(crate) fn copy<'py>(&self, value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let mut payload = Vec::new();
        let kind = encode(self.core.serializer(), value, &mut payload)?;
        let payload = Bytes::from(payload);
        let decoder = Decoder::new(value.py());
        let copy = decoder.decode(&Content { kind, payload });
        Ok(decoder.finish(copy.unwrap_or_else(|_| value.clone()))?)
    }

    /// Deletes the entries of `keys`. Returns how many there were.
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

/// Returns the items of an iterable of keys. Refuses a single string.
pub(crate) fn listed<'py>(keys: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
    if keys.is_instance_of::<PyString>() {
        return Err(raise(
            "BadKeyError",
            "one string was given where an iterable of keys is expected; put it in a list".into(),
        ));
    }
    Ok(keys.try_iter()?.collect::<PyResult<_>>()?)
}

/// Returns the keys and the values of anything that `dict` accepts.
#[expect(clippy::type_complexity, reason = "two lists")]
pub(crate) fn items<'py>(
    mapping: &Bound<'py, PyAny>,
) -> Result<(Vec<Bound<'py, PyAny>>, Vec<Bound<'py, PyAny>>)> {
    let given = PyDict::new(mapping.py());
    given.call_method1("update", (mapping,))?;
    Ok(given.iter().unzip())
}

/// Returns a dict of the `keys` that have a value.
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

    /// Returns the value of `key`, or `default` if the key is missing. One trip outside scopes.
    ///
    /// A cached None is a hit. Raises BadKeyError if `key` is not a string.
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

    /// Without it Python would iterate by `__getitem__` with 0, 1, 2, …
    #[classattr]
    const __iter__: Option<()> = None;

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.read(key.py(), &key::bytes(key)?)?.is_some())
    }

    /// Returns a dict of the `keys` that were found, in one trip. Missing keys are left out.
    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> Result<Bound<'py, PyDict>> {
        let py = keys.py();
        let keys = listed(keys)?;
        let values = self.read_many(py, &names(&keys)?)?;
        Ok(found(py, &keys, values)?)
    }

    /// Stores `value` under `key` and waits for the store.
    ///
    /// `timeout` is the time to live: seconds (int or float), a timedelta, or None for "until
    /// evicted". Unset, it is the cache's `timeout`. Zero or less deletes the entry. Within
    /// `batch()` the value leaves with the batch.
    ///
    ///     cache.set("note:5", {"title": "Milk"}, timeout=60)
    ///
    /// Raises SerializationError if the serializer cannot encode `value`.
    #[pyo3(signature = (key, value, timeout=Timeout::default()), text_signature = "($self, key, value, timeout=...)")]
    fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<()> {
        self.write(key.py(), [(&*key::bytes(key)?, value)], timeout)
    }

    /// Stores many values in one trip. `timeout` is as in `set`.
    ///
    /// `mapping` is a dict or an iterable of (key, value) pairs. Raises SerializationError if a
    /// value cannot be encoded; nothing is stored then.
    #[pyo3(signature = (mapping, timeout=Timeout::default()), text_signature = "($self, mapping, timeout=...)")]
    fn set_many(&self, mapping: &Bound<'_, PyAny>, timeout: Timeout) -> Result<()> {
        let (keys, values) = items(mapping)?;
        self.write(
            mapping.py(),
            names(&keys)?.into_iter().zip(&values),
            timeout,
        )
    }

    /// Stores `value` if `key` is absent. Returns True if it was stored.
    ///
    /// Atomic: of several processes that add one key, one gets True. `timeout` is as in `set`.
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

    /// Returns the value of `key`. On a miss, stores `default` and returns it.
    ///
    ///     notes = cache.get_or_set("notes", load_notes, timeout=60)
    ///
    /// A callable `default` is called on a miss, without arguments. Callers of this process that
    /// miss the key together call it once. If another process stores a value first, that value is
    /// kept and returned. `timeout` is as in `set`. One trip on a hit, two on a miss.
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

    /// Returns the markup under `key`, or renders and stores it. For integrations.
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

    /// Returns the value of `key`, or computes and stores it. For integrations.
    fn _fetch<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        timeout: Timeout,
        compute: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, bytes) = (key.py(), key::bytes(key)?);
        self.fetch(py, &bytes, How::new(timeout), || Ok(compute.call0()?))
    }

    /// Does what `get` does, for a piece. For integrations.
    #[pyo3(signature = (key, default=None))]
    fn _piece_get<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        Ok(self.peek(key.py(), &key::bytes(key)?)?.or(default))
    }

    /// Does what `set` does, for a piece. For integrations.
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

    /// Adds `delta` to the integer under `key`, atomically. Returns the sum.
    ///
    /// The entry keeps its timeout. Raises KeyError if the key is missing, NotANumberError if the
    /// entry holds no integer or the sum does not fit in 64 bits.
    #[pyo3(signature = (key, delta=1))]
    fn incr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        self.number(key, delta)
    }

    /// Subtracts `delta` from the integer under `key`, atomically. Returns the difference.
    ///
    /// Raises the errors of `incr`.
    #[pyo3(signature = (key, delta=1))]
    fn decr(&self, key: &Bound<'_, PyAny>, delta: i64) -> Result<i64> {
        let delta = delta.checked_neg().ok_or_else(|| {
            PyOverflowError::new_err("the negative of delta does not fit in 64 bits")
        })?;
        self.number(key, delta)
    }

    /// Gives the entry of `key` a new timeout, counted from now. Returns True if it exists.
    ///
    /// `timeout` is as in `set`.
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

    /// Gives many entries a new timeout, in one trip. Returns how many exist.
    fn touch_many(&self, keys: &Bound<'_, PyAny>, timeout: Timeout) -> Result<usize> {
        let (py, keys) = (keys.py(), listed(keys)?);
        let (here, names) = (self.variable.here(py)?, names(&keys)?);
        self.travel(
            py,
            &here,
            self.core.policy().touch_many(&here, &names, timeout.0),
        )
    }

    /// Deletes the entry of `key`. Returns True if there was one.
    ///
    /// A delete that cannot reach the store is sent again when the store is back. Until then the
    /// key is missing for this process.
    fn delete(&self, key: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.remove(key.py(), &[key::bytes(key)?])? > 0)
    }

    /// Deletes many entries in one trip. Returns how many there were.
    fn delete_many(&self, keys: &Bound<'_, PyAny>) -> Result<usize> {
        self.remove(keys.py(), &names(&listed(keys)?)?)
    }

    /// Deletes every entry under this cache's prefix. Returns how many there were.
    ///
    /// Raises UnsupportedError on Memcached if the cache has a prefix.
    fn clear(&self, py: Python<'_>) -> Result<u64> {
        let here = self.variable.here(py)?;
        self.travel(py, &here, self.core.policy().clear(&here))
    }

    /// Returns a scope that holds the entries of `keys`. Entering it reads them in one trip.
    ///
    ///     with cache.preload("note_markup:5", note.comments):
    ///         html = render(note)
    ///
    /// `keys` are strings, cached methods, functools.partial of cached functions, and iterables of
    /// these. For `scope_max_age` the scope also answers plain reads of these keys; keys found
    /// absent stay absent. Do not preload keys that must be exact, such as locks and counters.
    ///
    /// Raises BadKeyError for any other key.
    #[pyo3(signature = (*keys))]
    fn preload(slf: &Bound<'_, Self>, keys: &Bound<'_, PyTuple>) -> Result<Scope> {
        let mut names = Vec::new();
        cached::collect_keys(slf, keys.as_any(), &mut names, 0)?;
        Ok(Scope::new(slf.clone().unbind(), names))
    }

    /// Returns an empty scope. It fetches each piece once and stores results without waiting.
    ///
    /// Plain reads ask the store each time. With `max_age` (seconds) the scope answers them with
    /// what it holds, absences included, for that long.
    #[pyo3(signature = (*, max_age=None))]
    fn scope(slf: &Bound<'_, Self>, max_age: Option<&Bound<'_, PyAny>>) -> Result<Scope> {
        let hold = max_age.map(|age| span("max_age", age)).transpose()?;
        Ok(Scope::new(slf.clone().unbind(), Vec::new()).holding(hold))
    }

    /// Returns the scope of one request. `safe` requests change nothing. For integrations.
    fn _request_scope(slf: &Bound<'_, Self>, safe: bool) -> Scope {
        Scope::new(slf.clone().unbind(), Vec::new()).of_request(safe)
    }

    /// Returns a context manager that sends the `set` calls of a block in one trip.
    ///
    /// `set_many` calls count too. They leave with the next operation that asks the store, at the
    /// latest when the block ends.
    fn batch(slf: &Bound<'_, Self>) -> Batch {
        Batch::new(slf.clone().unbind())
    }

    /// Drops the plain answers held by the current scope. The next plain read asks the store.
    ///
    /// Call it after news that did not come through this cache: a message, a row lock.
    fn fresh(&self, py: Python<'_>) -> Result<()> {
        if let Some(scope) = self.variable.here(py)?.scope() {
            scope.refresh();
        }
        Ok(())
    }

    /// Returns a scope for one visit to a page. Its first read preloads the page's keys.
    ///
    ///     with cache.page("note_detail", note_id=5):
    ///         html = render(note)
    ///
    /// `name` is the name of the view and `args` are its arguments. The cache learns which keys a
    /// page reads, and predicts the keys of pages of the same view that nobody visited yet.
    #[pyo3(signature = (name, /, **args))]
    fn page(slf: &Bound<'_, Self>, name: &str, args: Option<&Bound<'_, PyDict>>) -> Result<Scope> {
        Ok(Scope::of_page(
            slf.clone().unbind(),
            scope::page(name, args)?,
        ))
    }

    /// Returns what this process learned of each route, the most visited first.
    fn pages(&self) -> Vec<Route> {
        self.core.pages().into_iter().map(Route).collect()
    }

    /// Returns what all workers learned of each recently visited route, by name. Two trips.
    fn shared_pages(&self, py: Python<'_>) -> Result<Vec<Route>> {
        let at = Context::clone(&*self.variable.here(py)?);
        let policy = self.core.policy();
        let routes = self.travel(py, &at, policy.shared_routes())?;
        let pages = self.travel(py, &at, policy.shared_pages(&routes))?;
        Ok(pages.into_iter().map(Route).collect())
    }

    /// Whether pages learn. False with `pages="off"` or `debug=True`.
    #[getter]
    fn learns(&self) -> bool {
        self.core.policy().learns()
    }

    /// Returns a context manager that counts and lists the trips of a block.
    ///
    ///     with cache.watch() as seen:
    ///         cache.get("note:5")
    ///     assert seen.trips == 1
    ///
    /// It sees the trips of this thread or task and of the tasks that it starts.
    fn watch(slf: &Bound<'_, Self>) -> Watch {
        Watch::new(slf.clone().unbind())
    }

    /// Caches the results of a function, method or `async def`.
    ///
    ///     @cache.cached(timeout=60, key="note_markup:{note_id}")
    ///     def note_markup(note_id): ...
    ///
    /// `key` is a format over the arguments. `key_fn(args, kwargs)` returns the part of the key
    /// after the function's name and a colon. With neither, the key is the function's module and
    /// name with a digest of all arguments. `timeout` is as in `set`.
    ///
    /// Callers of this process that miss a result together compute it once. In a scope, results
    /// may be `scope_max_age` old, and new ones are stored without waiting.
    ///
    /// Raises ConfigurationError if the function cannot be cached. Calls raise BadKeyError if an
    /// argument has no stable form for a key.
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

    /// Turns a method without arguments into a property with cached values.
    ///
    /// The options are those of `cached`.
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

    /// Returns a cache of other keys over the same connections, under this cache's prefix.
    ///
    ///     blog = Cache("redis://127.0.0.1:6379/0", prefix="blog")
    ///     notes = blog.prefixed("notes")  # keys "blog:notes:…"
    ///
    /// Options, store, breaker and connections are shared. Counters, scopes, watches and pages are
    /// not. `clear()` of `notes` leaves the other keys of `blog`; `clear()` of `blog` removes the
    /// keys of `notes` too.
    fn prefixed(&self, py: Python<'_>, prefix: &str) -> Result<Self> {
        Ok(Self {
            core: self.core.with_prefix(prefix),
            variable: Variable::new(py)?,
        })
    }

    /// Returns the counters since the cache was opened or reset, over all threads.
    fn stats(&self) -> Stats {
        Stats(self.core.stats())
    }

    /// Sets all counters to zero.
    fn reset_stats(&self) {
        self.core.reset_stats();
    }

    /// Closes idle connections. The next trip opens a new one.
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

//! The asynchronous methods of a cache, twins of the blocking ones.

use bytes::Bytes;
use onetrip::internals::{Context, Step};
use onetrip::trip::{Replies, Trip};
use pyo3::exceptions::{PyKeyError, PyOverflowError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::cache::{Cache, found, items, listed};
use crate::coroutine::{Coroutine, awaited};
use crate::decode::Detached;
use crate::error::Result;
use crate::event_loop;
use crate::fetch::How;
use crate::key::{Key, owned};
use crate::route::Route;
use crate::timeout::Timeout;

/// Result of coroutines that return `None`. Rust's `()` would become an empty tuple.
pub(crate) const NOTHING: Option<()> = None;

/// A cache held by a coroutine.
pub(crate) struct Face(Py<Cache>);

impl Face {
    pub(crate) fn of(cache: &Bound<'_, Cache>) -> Self {
        Self(cache.clone().unbind())
    }

    pub(crate) fn cache(&self) -> &Cache {
        self.0.get()
    }

    /// Returns the context of the running task. Call it within the coroutine, not before.
    pub(crate) fn here(&self) -> Result<Context> {
        Ok(Python::attach(|py| {
            self.cache()
                .variable
                .here(py)
                .map(|here| Context::clone(&here))
        })?)
    }

    /// Completes `step`. Its trip joins the others of this turn, unless the store is local.
    pub(crate) async fn travel<T, F: FnOnce(Replies) -> T>(
        &self,
        at: &Context,
        step: Step<T, F>,
    ) -> Result<T> {
        match step {
            Step::Done(answer) => Ok(answer),
            Step::Ask(trip, finish) => Ok(finish(self.send(at, trip).await?)),
        }
    }

    /// Makes a trip, together with the others of this turn of the loop unless the store is local.
    pub(crate) async fn send(&self, at: &Context, trip: Trip) -> Result<Replies> {
        let core = &self.cache().core;
        if core.is_local() {
            Ok(core.send_blocking(at, &trip)?)
        } else {
            event_loop::send(core, at, trip).await
        }
    }

    /// Returns the value of `key`, if it has one.
    pub(crate) async fn read(&self, key: &[u8]) -> Result<Option<Py<PyAny>>> {
        let (at, decoder) = (self.here()?, Detached::default());
        let step = self.cache().core.policy().get(&at, key, &decoder);
        let value = self.travel(&at, step).await?;
        Ok(decoder.finish(value)?)
    }

    /// Returns the values of `keys`, in order.
    pub(crate) async fn read_many(&self, keys: &[Key]) -> Result<Vec<Option<Py<PyAny>>>> {
        let (at, decoder) = (self.here()?, Detached::default());
        let step = self.cache().core.policy().get_many(&at, keys, &decoder);
        let values = self.travel(&at, step).await?;
        Ok(decoder.finish(values)?)
    }

    /// Stores entries, each under its key.
    pub(crate) async fn write(&self, entries: Vec<(Key, Bytes)>, timeout: Timeout) -> Result<()> {
        let at = self.here()?;
        let step = self.cache().core.policy().set_many(&at, entries, timeout.0);
        self.travel(&at, step).await
    }

    /// Deletes the entries of `keys`. Returns how many there were.
    pub(crate) async fn remove(&self, keys: &[Key]) -> Result<usize> {
        let at = self.here()?;
        let step = self.cache().core.policy().delete_many(&at, keys);
        self.travel(&at, step).await
    }

    async fn touch(&self, keys: &[Key], timeout: Timeout) -> Result<usize> {
        let at = self.here()?;
        let step = self.cache().core.policy().touch_many(&at, keys, timeout.0);
        self.travel(&at, step).await
    }
}

fn all_owned(keys: &[Bound<'_, PyAny>]) -> Result<Vec<Key>> {
    keys.iter().map(owned).collect()
}

fn unbound(keys: Vec<Bound<'_, PyAny>>) -> Vec<Py<PyAny>> {
    keys.into_iter().map(Bound::unbind).collect()
}

fn number(
    cache: &Bound<'_, Cache>,
    name: &'static str,
    key: &Bound<'_, PyAny>,
    delta: i64,
) -> Result<Coroutine> {
    let (face, bytes, given) = (Face::of(cache), owned(key)?, key.clone().unbind());
    Ok(Coroutine::new(name, async move {
        let at = face.here()?;
        let step = face.cache().core.policy().incr(&at, &bytes, delta);
        let number = face.travel(&at, step).await?;
        Ok(number.ok_or_else(|| PyKeyError::new_err(given))?)
    }))
}

#[pymethods]
impl Cache {
    /// Returns a coroutine of `get`. Calls made in one turn of the event loop share a trip.
    #[pyo3(signature = (key, default=None))]
    fn aget(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        Ok(Coroutine::new("aget", async move {
            Ok(face.read(&key).await?.or(default))
        }))
    }

    /// Returns a coroutine of `get_many`.
    fn aget_many(slf: &Bound<'_, Self>, keys: &Bound<'_, PyAny>) -> Result<Coroutine> {
        let (face, keys) = (Face::of(slf), listed(keys)?);
        let (bytes, keys) = (all_owned(&keys)?, unbound(keys));
        Ok(Coroutine::new("aget_many", async move {
            let values = face.read_many(&bytes).await?;
            Ok(Python::attach(|py| {
                found(py, &keys, values).map(Bound::unbind)
            })?)
        }))
    }

    /// Returns a coroutine of `set`. `value` is encoded at once.
    #[pyo3(signature = (key, value, timeout=Timeout::default()), text_signature = "($self, key, value, timeout=...)")]
    fn aset(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        // Sealed at once: the value may change before the coroutine runs.
        let entry = slf.get().entry(&key, value)?;
        Ok(Coroutine::new("aset", async move {
            face.write(vec![(key, entry)], timeout).await?;
            Ok(NOTHING)
        }))
    }

    /// Returns a coroutine of `set_many`. The values are encoded at once.
    #[pyo3(signature = (mapping, timeout=Timeout::default()), text_signature = "($self, mapping, timeout=...)")]
    fn aset_many(
        slf: &Bound<'_, Self>,
        mapping: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (keys, values) = items(mapping)?;
        let entries = slf
            .get()
            .entries(all_owned(&keys)?.into_iter().zip(&values))?;
        let face = Face::of(slf);
        Ok(Coroutine::new("aset_many", async move {
            face.write(entries, timeout).await?;
            Ok(NOTHING)
        }))
    }

    /// Returns a coroutine of `add`. `value` is encoded at once.
    #[pyo3(signature = (key, value, timeout=Timeout::default()), text_signature = "($self, key, value, timeout=...)")]
    fn aadd(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        let entry = slf.get().entry(&key, value)?;
        Ok(Coroutine::new("aadd", async move {
            let at = face.here()?;
            let step = face.cache().core.policy().add(&at, &key, entry, timeout.0);
            face.travel(&at, step).await
        }))
    }

    /// Returns a coroutine of `get_or_set`. A callable `default` may return an awaitable.
    #[pyo3(signature = (key, default, timeout=Timeout::default()), text_signature = "($self, key, default, timeout=...)")]
    fn aget_or_set(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        default: Py<PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        Ok(Coroutine::new("aget_or_set", async move {
            let how = How::new(timeout).adding();
            face.fetch(key, how, || made(default)).await
        }))
    }

    /// Returns a coroutine of `_fragment`. `render` returns an awaitable.
    fn _afragment(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        timeout: Timeout,
        render: Py<PyAny>,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        Ok(Coroutine::new("_afragment", async move {
            let how = How::new(timeout).text();
            face.fetch(key, how, || made(render)).await
        }))
    }

    /// Returns a coroutine of `_piece_get`.
    #[pyo3(signature = (key, default=None))]
    fn _apiece_get(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        Ok(Coroutine::new("_apiece_get", async move {
            let (at, decoder) = (face.here()?, Detached::default());
            let step = face.cache().core.policy().get_piece(&at, &key, &decoder);
            let value = face.travel(&at, step).await?;
            Ok(decoder.finish(value)?.or(default))
        }))
    }

    /// Returns a coroutine of `_piece_set`.
    #[pyo3(signature = (key, value, timeout=Timeout::default()))]
    fn _apiece_set(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: Py<PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, key) = (Face::of(slf), owned(key)?);
        Ok(Coroutine::new("_apiece_set", async move {
            let how = How::new(timeout).refreshing();
            face.fetch(key, how, || async { Ok(value) }).await?;
            Ok(NOTHING)
        }))
    }

    /// Returns a coroutine of `incr`.
    #[pyo3(signature = (key, delta=1))]
    fn aincr(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, delta: i64) -> Result<Coroutine> {
        number(slf, "aincr", key, delta)
    }

    /// Returns a coroutine of `decr`.
    #[pyo3(signature = (key, delta=1))]
    fn adecr(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, delta: i64) -> Result<Coroutine> {
        let delta = delta.checked_neg().ok_or_else(|| {
            PyOverflowError::new_err("the negative of delta does not fit in 64 bits")
        })?;
        number(slf, "adecr", key, delta)
    }

    /// Returns a coroutine of `touch`.
    fn atouch(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, keys) = (Face::of(slf), [owned(key)?]);
        Ok(Coroutine::new("atouch", async move {
            Ok(face.touch(&keys, timeout).await? > 0)
        }))
    }

    /// Returns a coroutine of `touch_many`.
    fn atouch_many(
        slf: &Bound<'_, Self>,
        keys: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> Result<Coroutine> {
        let (face, keys) = (Face::of(slf), all_owned(&listed(keys)?)?);
        Ok(Coroutine::new("atouch_many", async move {
            face.touch(&keys, timeout).await
        }))
    }

    /// Returns a coroutine of `delete`.
    fn adelete(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> Result<Coroutine> {
        let (face, keys) = (Face::of(slf), [owned(key)?]);
        Ok(Coroutine::new("adelete", async move {
            Ok(face.remove(&keys).await? > 0)
        }))
    }

    /// Returns a coroutine of `delete_many`.
    fn adelete_many(slf: &Bound<'_, Self>, keys: &Bound<'_, PyAny>) -> Result<Coroutine> {
        let (face, keys) = (Face::of(slf), all_owned(&listed(keys)?)?);
        Ok(Coroutine::new("adelete_many", async move {
            face.remove(&keys).await
        }))
    }

    /// Returns a coroutine of `clear`.
    fn aclear(slf: &Bound<'_, Self>) -> Coroutine {
        let face = Face::of(slf);
        Coroutine::new("aclear", async move {
            let at = face.here()?;
            let step = face.cache().core.policy().clear(&at);
            face.travel(&at, step).await
        })
    }

    /// Returns a coroutine of `shared_pages`.
    fn ashared_pages(slf: &Bound<'_, Self>) -> Coroutine {
        let face = Face::of(slf);
        Coroutine::new("ashared_pages", async move {
            let at = face.here()?;
            let routes = face.travel(&at, face.cache().core.policy().shared_routes());
            let routes = routes.await?;
            let pages = face.cache().core.policy().shared_pages(&routes);
            let pages = face.travel(&at, pages).await?;
            Ok(pages.into_iter().map(Route).collect::<Vec<_>>())
        })
    }

    /// Returns a coroutine of `close`.
    fn aclose(slf: &Bound<'_, Self>) -> Coroutine {
        let face = Face::of(slf);
        Coroutine::new("aclose", async move {
            face.cache().core.close_idle();
            Ok(NOTHING)
        })
    }
}

/// Returns `default`, or the result of calling it, awaited if it is awaitable.
async fn made(default: Py<PyAny>) -> Result<Py<PyAny>> {
    let (value, waits) = Python::attach(|py| {
        if !default.bind(py).is_callable() {
            return PyResult::Ok((default, false));
        }
        let value = default.call0(py)?;
        let waits = value.bind(py).hasattr(intern!(py, "__await__"))?;
        Ok((value, waits))
    })?;
    if waits {
        awaited(value).await
    } else {
        Ok(value)
    }
}

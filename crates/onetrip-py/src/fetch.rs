//! Runs fetches for Python: on a thread or greenlet, and in a task.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use onetrip::internals::codec::{Decode, Memo};
use onetrip::internals::entry::{BadEntry, Content, Kind};
use onetrip::internals::{
    Caller, Computing, Context, Fetch, Outcome, Read, Stage, Storing, Waiting,
};
use pyo3::intern;
use pyo3::prelude::*;

use crate::aio::Face;
use crate::cache::Cache;
use crate::context::Layer;
use crate::coroutine::awaited;
use crate::decode::{Decoder, Detached};
use crate::error::{Raised, Result};
use crate::event_loop;
use crate::greenlet;
use crate::key::Key;
use crate::timeout::Timeout;

/// Interval at which a waiting thread checks for signals, such as Ctrl-C.
const GLANCE: Duration = Duration::from_millis(50);

/// How a fetch reads and stores.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) timeout: Timeout,
    pub(crate) storing: Storing,
    /// Whether to compute without reading first.
    pub(crate) refresh: bool,
    /// Whether only text is a hit, as for a fragment.
    pub(crate) text: bool,
}

impl How {
    pub(crate) fn new(timeout: Timeout) -> Self {
        Self {
            timeout,
            storing: Storing::Set,
            refresh: false,
            text: false,
        }
    }

    /// Keeps a value that another caller stored first.
    pub(crate) fn adding(self) -> Self {
        Self {
            storing: Storing::Add,
            ..self
        }
    }

    pub(crate) fn refreshing(self) -> Self {
        Self {
            refresh: true,
            ..self
        }
    }

    pub(crate) fn text(self) -> Self {
        Self { text: true, ..self }
    }

    fn apply<'a, K: AsRef<[u8]>, D: Decode>(&self, fetch: Fetch<'a, K, D>) -> Fetch<'a, K, D> {
        let fetch = match self.refresh {
            true => fetch.refreshing(),
            false => fetch,
        };
        match self.storing {
            Storing::Add => fetch.adding(),
            Storing::Set => fetch,
        }
    }
}

/// Reads values by `D`, only text if `text` is set.
struct Reader<D> {
    values: D,
    text: bool,
}

impl<D: Decode> Decode for Reader<D> {
    type Value = D::Value;

    fn decode(&self, content: &Content) -> std::result::Result<D::Value, BadEntry> {
        if self.text && content.kind != Kind::Str {
            return Err(BadEntry::Undecodable);
        }
        self.values.decode(content)
    }

    fn memo(&self, value: &D::Value) -> Option<Memo> {
        self.values.memo(value)
    }

    fn recall(&self, memo: &Memo) -> Option<D::Value> {
        match self.text {
            // What was kept may be of any kind.
            true => None,
            false => self.values.recall(memo),
        }
    }
}

/// Function that returns whether its caller is within a database transaction.
static PROBE: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Sets the function that tells whether its caller is within a database transaction.
///
/// Values computed within a transaction are not shared with other callers. None removes the
/// function.
#[pyfunction]
pub(crate) fn set_transaction_probe(probe: Option<Py<PyAny>>) {
    *PROBE.lock().unwrap_or_else(PoisonError::into_inner) = probe;
}

fn is_in_transaction(py: Python<'_>) -> Result<bool> {
    let probe = PROBE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(probe) = probe.as_ref().map(|probe| probe.clone_ref(py)) else {
        return Ok(false);
    };
    Ok(probe.call0(py)?.extract(py)?)
}

/// Returns the values of a fetch in order: found, computed, and a copy for each repeated key.
fn collect<V>(
    outcomes: impl IntoIterator<Item = Outcome<V>>,
    mut made: Vec<Option<V>>,
    fresh: impl Fn(&V) -> Result<V>,
) -> Result<Vec<Option<V>>> {
    let mut values: Vec<Option<V>> = Vec::with_capacity(made.len());
    for (place, outcome) in outcomes.into_iter().enumerate() {
        let value = match outcome {
            Outcome::Found(value) => Some(value),
            Outcome::Same(first) => match values.get(first).and_then(Option::as_ref) {
                Some(value) => Some(fresh(value)?),
                None => None,
            },
            Outcome::Made | Outcome::Failed => made.get_mut(place).and_then(Option::take),
        };
        values.push(value);
    }
    Ok(values)
}

impl Cache {
    /// Fetches one value on this thread.
    pub(crate) fn fetch<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        how: How,
        compute: impl FnOnce() -> Result<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        // A hit in a scope is not to pay for what has room for many.
        let here = self.variable.here(py)?;
        let held = self.peek_held(py, &here, key, how)?;
        if let Some(Read::Found(value)) = held {
            return Ok(value);
        }
        let mut compute = Some(compute);
        let values = self.fetch_after(py, &here, &[key], how, held, |_| match compute.take() {
            Some(compute) => compute(),
            None => unreachable!("a fetch of one key computes once"),
        })?;
        let value = values.into_iter().next().flatten();
        Ok(value.unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// Fetches values on this thread, in the order of their keys. `compute` makes the value at a
    /// position. The first exception ends the computing; earlier values are stored.
    pub(crate) fn fetch_many<'py, K: AsRef<[u8]>>(
        &self,
        py: Python<'py>,
        keys: &[K],
        how: How,
        compute: impl FnMut(usize) -> Result<Bound<'py, PyAny>>,
    ) -> Result<Vec<Option<Bound<'py, PyAny>>>> {
        let here = self.variable.here(py)?;
        self.fetch_after(py, &here, keys, how, None, compute)
    }

    /// Reads a piece from the scope. Returns `None` if the store must be asked.
    fn peek_held<'py>(
        &self,
        py: Python<'py>,
        here: &Context,
        key: &[u8],
        how: How,
    ) -> Result<Option<Read<Bound<'py, PyAny>>>> {
        if how.refresh {
            return Ok(None);
        }
        let reader = Reader {
            values: Decoder::new(py),
            text: how.text,
        };
        let policy = self.core.policy();
        let held = policy.held_piece(here, key, how.timeout.0, &reader);
        Ok(reader.values.finish(held)?)
    }

    /// Fetches the values that the scope does not hold. For a single key, `held` is its answer.
    fn fetch_after<'py, K: AsRef<[u8]>>(
        &self,
        py: Python<'py>,
        here: &Context,
        keys: &[K],
        how: How,
        held: Option<Read<Bound<'py, PyAny>>>,
        mut compute: impl FnMut(usize) -> Result<Bound<'py, PyAny>>,
    ) -> Result<Vec<Option<Bound<'py, PyAny>>>> {
        let policy = self.core.policy();
        let reader = Reader {
            values: Decoder::new(py),
            text: how.text,
        };
        let caller = match greenlet::elsewhere(py)? {
            Some(_) => Caller::Greenlet,
            None => Caller::Thread,
        };
        let fetch = policy.fetch(here, keys, how.timeout.0, &reader, caller);
        let mut fetch = how.apply(fetch).after(&held).alone(is_in_transaction(py)?);
        let mut made: Vec<Option<Bound<'py, PyAny>>> = keys.iter().map(|_| None).collect();
        let mut failure = None;
        loop {
            let stage = fetch.advance();
            // What stopped the reading of a value stops the fetch, before anything is computed.
            reader.values.check()?;
            match stage {
                Stage::Ask(trip) | Stage::Post(trip) => {
                    fetch.replied(self.send(py, here, trip)?);
                }
                Stage::Compute(places) => {
                    for place in places {
                        if failure.is_some() {
                            fetch.failed(place);
                            continue;
                        }
                        let value = self.within(py, fetch.computing(), || compute(place));
                        let key = keys.get(place).map(AsRef::as_ref).unwrap_or_default();
                        let sealed = value.and_then(|value| {
                            let entry = self.piece(key, &value, how.timeout)?;
                            Ok((value, entry))
                        });
                        match sealed {
                            Ok((value, entry)) => {
                                fetch.made(place, entry);
                                if let Some(made) = made.get_mut(place) {
                                    *made = Some(value);
                                }
                            }
                            Err(error) => {
                                fetch.failed(place);
                                failure = Some(error);
                            }
                        }
                    }
                }
                Stage::Wait(waiting) => {
                    wait(py, &waiting)?;
                    fetch.waited(waiting);
                }
                Stage::Done => break,
            }
        }
        let outcomes = fetch.finish();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let values = collect(outcomes, made, |value| self.copy(value))?;
        Ok(reader.values.finish(values)?)
    }

    /// Calls `body` within the computation `computing`.
    fn within<T>(
        &self,
        py: Python<'_>,
        computing: Arc<Computing>,
        body: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let entry = self.variable.enter(py, Layer::Computing(computing))?;
        let done = body();
        self.variable.leave(py, &entry)?;
        done
    }
}

/// Waits for a flight, at most for its patience, without the interpreter.
fn wait(py: Python<'_>, waiting: &Waiting) -> Result<()> {
    if greenlet::elsewhere(py)?.is_some() {
        return greenlet::wait(py, waiting);
    }
    loop {
        let left = waiting.patience();
        if left.is_zero() || py.detach(|| waiting.wait(left.min(GLANCE))) {
            return Ok(());
        }
        py.check_signals()?;
    }
}

/// Future of the values at some positions.
type Computed<'c> = Pin<Box<dyn Future<Output = Result<Vec<PyResult<Py<PyAny>>>>> + Send + 'c>>;

impl Face {
    /// Fetches one value in this task.
    pub(crate) async fn fetch<F: Future<Output = Result<Py<PyAny>>> + Send>(
        &self,
        key: Key,
        how: How,
        compute: impl FnOnce() -> F + Send,
    ) -> Result<Py<PyAny>> {
        let mut compute = Some(compute);
        let keys = [key];
        let values = self.fetch_many(&keys, how, |_| -> Computed<'_> {
            let compute = compute.take();
            Box::pin(async {
                match compute {
                    Some(compute) => Ok(vec![Ok(compute().await?)]),
                    None => unreachable!("a fetch of one key computes once"),
                }
            })
        });
        let value = values.await?.into_iter().next().flatten();
        Ok(value.unwrap_or_else(|| Python::attach(|py| py.None())))
    }

    /// Fetches values in this task, in the order of their keys. `compute` makes the values at some
    /// positions side by side. Values beside an exception are stored.
    pub(crate) async fn fetch_many<'c>(
        &self,
        keys: &[Key],
        how: How,
        mut compute: impl FnMut(Vec<usize>) -> Computed<'c> + Send,
    ) -> Result<Vec<Option<Py<PyAny>>>> {
        let here = self.here()?;
        let policy = self.cache().core.policy();
        let reader = Reader {
            values: Detached::default(),
            text: how.text,
        };
        let mut held = None;
        if let ([key], false) = (keys, how.refresh) {
            held = policy.held_piece(&here, key, how.timeout.0, &reader);
            if let Some(Read::Found(value)) = held {
                return Ok(vec![reader.values.finish(Some(value))?]);
            }
        }
        reader.values.check()?;
        let alone = Python::attach(is_in_transaction)?;
        let fetch = policy.fetch(&here, keys, how.timeout.0, &reader, Caller::Task);
        let mut fetch = how.apply(fetch).after(&held).alone(alone);
        let mut made: Vec<Option<Py<PyAny>>> = keys.iter().map(|_| None).collect();
        let mut failure: Option<Raised> = None;
        loop {
            let stage = fetch.advance();
            // What stopped the reading of a value stops the fetch, before anything is computed.
            reader.values.check()?;
            match stage {
                Stage::Ask(trip) => {
                    let replies = self.send(&here, trip).await?;
                    fetch.replied(replies);
                }
                Stage::Post(trip) => {
                    let replies = event_loop::post(&self.cache().core, &here, trip)?;
                    fetch.replied(replies);
                }
                Stage::Compute(places) => {
                    let layer = Layer::Computing(fetch.computing());
                    let entry = Python::attach(|py| self.cache().variable.enter(py, layer))?;
                    let values = compute(places.to_vec()).await;
                    Python::attach(|py| self.cache().variable.leave(py, &entry))?;
                    for (place, value) in places.iter().zip(values?) {
                        let key = keys.get(*place).map(|key| &**key).unwrap_or_default();
                        let sealed = value.map_err(Raised::from).and_then(|value| {
                            let entry = Python::attach(|py| {
                                self.cache().piece(key, value.bind(py), how.timeout)
                            })?;
                            Ok((value, entry))
                        });
                        match sealed {
                            Ok((value, entry)) => {
                                fetch.made(*place, entry);
                                if let Some(made) = made.get_mut(*place) {
                                    *made = Some(value);
                                }
                            }
                            Err(error) => {
                                fetch.failed(*place);
                                failure = failure.or(Some(error));
                            }
                        }
                    }
                }
                Stage::Wait(waiting) => {
                    let patience = waiting.patience();
                    let waiting = Arc::new(waiting);
                    let over = Arc::clone(&waiting);
                    awaken(move |context| over.poll(context), Some(patience)).await?;
                    match Arc::try_unwrap(waiting) {
                        Ok(waiting) => fetch.waited(waiting),
                        Err(_) => unreachable!("nobody else has it any more"),
                    }
                }
                Stage::Done => break,
            }
        }
        let outcomes = fetch.finish();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let values = collect(outcomes, made, |value| {
            Python::attach(|py| Ok(self.cache().copy(value.bind(py))?.unbind()))
        })?;
        Ok(reader.values.finish(values)?)
    }
}

/// Wakes a task of an event loop, from any thread.
struct Bell {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // None where the interpreter ends: nobody is to be woken any more.
        let _ = Python::try_attach(|py| {
            let ring = wrap_pyfunction!(ring, py)?;
            let arguments = (ring, self.future.bind(py));
            // A loop that was closed waits for nothing.
            let event_loop = self.event_loop.bind(py);
            event_loop.call_method1(intern!(py, "call_soon_threadsafe"), arguments)?;
            PyResult::Ok(())
        });
    }
}

/// Completes a future, unless it is done already.
#[pyfunction]
fn ring(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// Waits in this task until `poll` is ready, or for `patience`.
pub(crate) async fn awaken(
    poll: impl FnOnce(&mut TaskContext<'_>) -> Poll<()>,
    patience: Option<Duration>,
) -> Result<()> {
    let waits = Python::attach(|py| {
        let event_loop = event_loop::running_loop(py)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let waker = Waker::from(Arc::new(Bell {
            event_loop: event_loop.clone().unbind(),
            future: future.clone().unbind(),
        }));
        if poll(&mut TaskContext::from_waker(&waker)).is_ready() {
            return PyResult::Ok(None);
        }
        let timer = patience.map(|patience| {
            let ring = wrap_pyfunction!(ring, py)?;
            let arguments = (patience.as_secs_f64(), ring, &future);
            event_loop.call_method1(intern!(py, "call_later"), arguments)
        });
        let timer = timer.transpose()?.map(Bound::unbind);
        Ok(Some((future.unbind(), timer)))
    })?;
    if let Some((future, timer)) = waits {
        let woken = awaited(future).await;
        if let Some(timer) = timer {
            Python::attach(|py| timer.call_method0(py, intern!(py, "cancel")))?;
        }
        woken?;
    }
    Ok(())
}

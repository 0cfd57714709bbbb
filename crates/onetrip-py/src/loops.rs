//! Trips for asyncio's event loops.
//!
//! What the tasks of a loop ask for in one turn of it leaves together, in one trip. The core makes
//! that trip in the background and never waits for the interpreter: it wakes the loop by a byte
//! through a socket that the loop watches, and the loop hands out the answers.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onetrip::trip::{Replies, Trip};
use onetrip::{Batch, Context};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;

use crate::coroutine::awaited;
use crate::error::Result;

type Answer = onetrip::Result<Replies>;

/// Makes one trip for the running task, with all others of this turn of its loop.
pub(crate) async fn send(cache: &onetrip::Cache, at: &Context, trip: Trip) -> Result<Replies> {
    let answer = Arc::new(Mutex::new(None));
    let future = Python::attach(|py| {
        let (desk, running) = Desk::of_running_loop(py)?;
        let future = running.call_method0(intern!(py, "create_future"))?;
        let waiter = Waiter {
            future: future.clone().unbind(),
            answer: Arc::clone(&answer),
        };
        Desk::join(&desk, &running, cache, at, trip, waiter)?;
        PyResult::Ok(future.unbind())
    })?;
    awaited(future).await?;
    let answer = lock(&answer).take();
    Ok(answer.unwrap_or_else(|| Err(unanswered()))?)
}

fn unanswered() -> onetrip::Error {
    onetrip::Error::new(
        onetrip::ErrorKind::Unavailable,
        "the event loop went on without the answer of a trip",
    )
}

/// A task that waits.
struct Waiter {
    future: Py<PyAny>,
    answer: Arc<Mutex<Option<Answer>>>,
}

/// The trips of one cache that leave in this turn of the loop.
struct Gathering {
    cache: onetrip::Cache,
    batch: Batch,
    waiters: Vec<Waiter>,
    /// Whether others may join.
    open: bool,
}

/// Where the answers to trips that have left arrive.
struct Inbox {
    answers: Mutex<Vec<(u64, Vec<Answer>)>>,
    bell: UnixStream,
}

/// What the tasks of one event loop wait for.
#[pyclass(frozen, module = "onetrip._core")]
struct Desk {
    /// A forked child that uses its parent's loop must not hear its parent's bell.
    pid: u32,
    state: Mutex<State>,
    inbox: Arc<Inbox>,
    bell: UnixStream,
}

#[derive(Default)]
struct State {
    gatherings: Vec<Gathering>,
    left: HashMap<u64, Vec<Waiter>>,
    count: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Called without the interpreter.
    fn put(&self, number: u64, answers: Vec<Answer>) {
        lock(&self.answers).push((number, answers));
        // A full socket has rung already, and a loop that was closed waits for nothing.
        let _ = (&self.bell).write(&[0]);
    }
}

impl Desk {
    /// The desk of the running loop, which keeps it in an attribute: it lives as long.
    fn of_running_loop(py: Python<'_>) -> PyResult<(Bound<'_, Self>, Bound<'_, PyAny>)> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let running = RUNNING.import(py, "asyncio", "get_running_loop")?.call0()?;
        let place = intern!(py, "_onetrip_desk");
        if let Some(desk) = running.getattr_opt(place)? {
            let desk = desk.cast_into::<Self>()?;
            if desk.get().pid == std::process::id() {
                return Ok((desk, running));
            }
        }
        let desk = Bound::new(py, Self::new()?)?;
        // Its callback belongs to no request, so it must not keep the context of one.
        let outside = outside(py)?;
        let ring = desk.getattr("deliver")?;
        let bell = desk.get().bell.as_raw_fd();
        let watch = running.getattr("add_reader")?;
        outside.call_method1("run", (watch, bell, ring))?;
        running.setattr(place, &desk)?;
        Ok((desk, running))
    }

    fn new() -> PyResult<Self> {
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        Ok(Self {
            pid: std::process::id(),
            state: Mutex::default(),
            inbox: Arc::new(Inbox {
                answers: Mutex::default(),
                bell: ringer,
            }),
            bell,
        })
    }

    fn join(
        slf: &Bound<'_, Self>,
        running: &Bound<'_, PyAny>,
        cache: &onetrip::Cache,
        at: &Context,
        trip: Trip,
        waiter: Waiter,
    ) -> PyResult<()> {
        let py = slf.py();
        let first = {
            let gatherings = &mut lock(&slf.get().state).gatherings;
            let first = gatherings.is_empty();
            let open = Batch::takes(&trip);
            let mut others = gatherings.iter_mut();
            let found = others.find(|other| open && other.open && other.cache.is_same(cache));
            match found {
                Some(gathering) => gathering.take(at, trip, waiter),
                None => {
                    let mut gathering = Gathering {
                        cache: cache.clone(),
                        batch: Batch::default(),
                        waiters: Vec::new(),
                        open,
                    };
                    gathering.take(at, trip, waiter);
                    gatherings.push(gathering);
                }
            }
            first
        };
        if first {
            let flush = slf.getattr(intern!(py, "flush"))?;
            let options = [(intern!(py, "context"), outside(py)?)].into_py_dict(py)?;
            running.call_method(intern!(py, "call_soon"), (flush,), Some(&options))?;
        }
        Ok(())
    }
}

impl Gathering {
    fn take(&mut self, at: &Context, trip: Trip, waiter: Waiter) {
        self.batch.join(at, trip);
        self.waiters.push(waiter);
    }
}

/// A context without variables, so without scopes and watches.
fn outside(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CONTEXT.import(py, "contextvars", "Context")?.call0()
}

#[pymethods]
impl Desk {
    /// Sends what this turn of the loop has gathered.
    fn flush(&self) {
        let gatherings = {
            let state = &mut *lock(&self.state);
            let mut leaving = Vec::with_capacity(state.gatherings.len());
            for gathering in state.gatherings.drain(..) {
                state.count += 1;
                state.left.insert(state.count, gathering.waiters);
                leaving.push((state.count, gathering.cache, gathering.batch));
            }
            leaving
        };
        for (number, cache, batch) in gatherings {
            let inbox = Arc::clone(&self.inbox);
            cache.dispatch(batch, move |answers| inbox.put(number, answers));
        }
    }

    /// Hands out the answers that have arrived.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let mut rings = [0; 64];
        loop {
            match (&self.bell).read(&mut rings) {
                Ok(count) if count == rings.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let arrived = std::mem::take(&mut *lock(&self.inbox.answers));
        for (number, answers) in arrived {
            let waiters = lock(&self.state).left.remove(&number).unwrap_or_default();
            for (waiter, answer) in waiters.into_iter().zip(answers) {
                *lock(&waiter.answer) = Some(answer);
                let future = waiter.future.bind(py);
                // A cancelled task waits no more.
                if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
                    future.call_method1(intern!(py, "set_result"), (py.None(),))?;
                }
            }
        }
        Ok(())
    }
}

//! Trips for asyncio's event loops.
//!
//! Requests of a loop's tasks in one turn leave together, in one trip. The core makes the trip in
//! the background without the interpreter. It wakes the loop by a byte on a socket that the loop
//! watches, and the loop hands out the answers.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onetrip::internals::{Context, Footprint, Latch, MergedTrip};
use onetrip::trip::{Replies, Reply, Trip};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyWeakrefMethods, PyWeakrefReference};

use crate::coroutine::awaited;
use crate::error::Result;

type Answer = onetrip::Result<Replies>;

/// Makes a trip for the running task, together with the others of this turn of its loop.
pub(crate) async fn send(cache: &onetrip::Cache, at: &Context, trip: Trip) -> Result<Replies> {
    let answer = Arc::new(Mutex::new(None));
    let joined = Python::attach(|py| {
        let running = running_loop(py)?;
        let desk = match Desk::of(&running) {
            Ok(desk) => desk,
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                return Ok(Err(onetrip::Error::new(
                    onetrip::ErrorKind::Unavailable,
                    format!(
                        "cannot open a socket to wake the event loop: {error}; check the process's limit of open files"
                    ),
                )));
            }
            Err(error) => return Err(error),
        };
        let future = running.call_method0(intern!(py, "create_future"))?;
        let waiter = Waiter::Task {
            future: PyWeakrefReference::new(&future)?.unbind(),
            answer: Arc::clone(&answer),
        };
        Desk::join(&desk, &running, cache, at, &trip, waiter)?;
        PyResult::Ok(Ok(future.unbind()))
    })?;
    let future = match joined {
        Ok(future) => future,
        Err(error) => return Ok(cache.fail(&trip, error)?),
    };
    awaited(future).await?;
    let answer = lock(&answer).take();
    Ok(answer.unwrap_or_else(|| Err(unanswered()))?)
}

/// Posts a trip at once, with the requests that it must not overtake. Its scope waits for the reply
/// when it closes.
pub(crate) fn post(cache: &onetrip::Cache, at: &Context, trip: Trip) -> Result<Replies> {
    let posted = trip.ops().iter().map(|_| Reply::Posted).collect();
    let sent = Arc::<Latch>::default();
    if let Some(scope) = at.scope() {
        scope.posted(Arc::clone(&sent));
    }
    Python::attach(|py| {
        let running = running_loop(py)?;
        let desk = Desk::of(&running)?;
        Desk::join(
            &desk,
            &running,
            cache,
            at,
            &trip,
            Waiter::Post(SetOnDrop(sent)),
        )
    })?;
    Ok(posted)
}

fn unanswered() -> onetrip::Error {
    onetrip::Error::new(
        onetrip::ErrorKind::Unavailable,
        "the event loop went on without the answer of a trip",
    )
}

/// Who waits for the answer to a trip.
enum Waiter {
    /// A task, by a weak reference: a task that is gone waits no more, and a loop that ended before
    /// its answer is not kept alive.
    Task {
        future: Py<PyWeakrefReference>,
        answer: Arc<Mutex<Option<Answer>>>,
    },
    /// Only the end of a scope.
    Post(SetOnDrop),
}

struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The trips of one cache that leave in this turn of the loop.
struct Gathering {
    cache: onetrip::Cache,
    batch: MergedTrip,
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
    /// Trips that leave at the end of this turn, or after the answers that they must follow.
    gatherings: Vec<Gathering>,
    /// Whether the loop was told to send it.
    scheduled: bool,
    left: HashMap<u64, Left>,
    count: u64,
}

/// A batch that is about to leave.
struct Leaving {
    number: u64,
    cache: onetrip::Cache,
    batch: MergedTrip,
    /// Waiters for posts only.
    posts: Vec<Waiter>,
}

/// A batch that is under way.
struct Left {
    cache: onetrip::Cache,
    footprint: Footprint,
    waiters: Vec<Waiter>,
}

impl State {
    /// Takes out the gatherings that may leave: their keys are neither under way nor in an earlier
    /// gathering. Other trips could overtake them, and a cancelled task cannot see whether its write
    /// has arrived.
    fn take_leaving(&mut self) -> Vec<Leaving> {
        let (mut leaving, mut staying) = (Vec::new(), Vec::<Gathering>::new());
        for gathering in std::mem::take(&mut self.gatherings) {
            let footprint = gathering.batch.footprint();
            let follows = |cache: &onetrip::Cache, other: &Footprint| {
                cache.is_same(&gathering.cache) && footprint.meets(other)
            };
            let waits = self
                .left
                .values()
                .any(|left| follows(&left.cache, &left.footprint))
                || staying
                    .iter()
                    .any(|other| follows(&other.cache, other.batch.footprint()));
            if waits {
                // What comes later and has nothing to do with it need not wait as well.
                staying.push(Gathering {
                    open: false,
                    ..gathering
                });
                continue;
            }
            self.count += 1;
            // Whoever closes a scope on this very thread waits for its posts, and not for the loop.
            let (waiters, posts) = gathering
                .waiters
                .into_iter()
                .partition(|waiter| matches!(waiter, Waiter::Task { .. }));
            let left = Left {
                cache: gathering.cache.clone(),
                footprint: footprint.clone(),
                waiters,
            };
            self.left.insert(self.count, left);
            leaving.push(Leaving {
                number: self.count,
                cache: gathering.cache,
                batch: gathering.batch,
                posts,
            });
        }
        self.gatherings = staying;
        leaving
    }
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
    /// Returns the desk of the running loop. An attribute of the loop keeps it alive.
    fn of<'py>(running: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let py = running.py();
        let place = intern!(py, "_onetrip_desk");
        if let Some(desk) = running.getattr_opt(place)? {
            let desk = desk.cast_into::<Self>()?;
            if desk.get().pid == std::process::id() {
                return Ok(desk);
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
        Ok(desk)
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
        trip: &Trip,
        waiter: Waiter,
    ) -> PyResult<()> {
        let py = slf.py();
        if !lock(&slf.get().state).scheduled {
            let flush = slf.getattr(intern!(py, "flush"))?;
            let options = [(intern!(py, "context"), outside(py)?)].into_py_dict(py)?;
            running.call_method(intern!(py, "call_soon"), (flush,), Some(&options))?;
        }
        let state = &mut *lock(&slf.get().state);
        state.scheduled = true;
        let open = MergedTrip::takes(trip);
        // It goes past those that nobody joins, unless the order matters.
        let footprint = LazyCell::new(|| Footprint::of(trip));
        let own = state.gatherings.iter_mut().rev();
        let own = own.filter(|other| other.cache.is_same(cache));
        let mut passed = own
            .take_while(|other| open && (other.open || !footprint.meets(other.batch.footprint())));
        match passed.find(|other| other.open && other.batch.suits(trip)) {
            Some(last) => last.take(at, trip, waiter),
            None => {
                let mut gathering = Gathering {
                    cache: cache.clone(),
                    batch: MergedTrip::default(),
                    waiters: Vec::new(),
                    open,
                };
                gathering.take(at, trip, waiter);
                state.gatherings.push(gathering);
            }
        }
        Ok(())
    }

    /// Sends the trips that may leave.
    fn send(&self) {
        let leaving = lock(&self.state).take_leaving();
        for Leaving {
            number,
            cache,
            batch,
            posts,
        } in leaving
        {
            let inbox = Arc::clone(&self.inbox);
            cache.dispatch(batch, move |answers| {
                drop(posts);
                inbox.put(number, answers);
            });
        }
    }
}

impl Gathering {
    fn take(&mut self, at: &Context, trip: &Trip, waiter: Waiter) {
        self.batch.join(at, trip);
        self.waiters.push(waiter);
    }
}

/// Returns a context without variables, hence without scopes and watches.
fn outside(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CONTEXT.import(py, "contextvars", "Context")?.call0()
}

#[pymethods]
impl Desk {
    /// Sends the trips gathered in this turn of the loop.
    fn flush(&self) {
        lock(&self.state).scheduled = false;
        self.send();
    }

    /// Hands out the answers that have arrived, and sends the trips that waited for them.
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
        let mut outcome = Ok(());
        for (number, answers) in arrived {
            let left = lock(&self.state).left.remove(&number);
            let waiters = left.map(|left| left.waiters).unwrap_or_default();
            for (waiter, answer) in waiters.into_iter().zip(answers) {
                // Whatever happens to one, the others get theirs.
                outcome = waiter.wake(py, answer).and(outcome);
            }
        }
        self.send();
        outcome
    }
}

impl Waiter {
    fn wake(self, py: Python<'_>, answer: Answer) -> PyResult<()> {
        let (future, place) = match self {
            Self::Task { future, answer } => (future, answer),
            Self::Post(sent) => {
                drop(sent);
                return Ok(());
            }
        };
        *lock(&place) = Some(answer);
        let Some(future) = future.bind(py).upgrade() else {
            return Ok(());
        };
        // A cancelled task waits no more.
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }
}

pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "asyncio", "get_running_loop")?.call0()
}

//! Scopes and batches, for `with` and `async with`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onetrip::Page;
use onetrip::internals::{Context, Policy, Scope as Core, Work, WriteBatch};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::aio::{Face, NOTHING};
use crate::cache::Cache;
use crate::context::{Entry, Layer};
use crate::coroutine::Coroutine;
use crate::error::{Raised, Result, configuration, is_ordinary};
use crate::fetch::awaken;
use crate::key::Key;

/// Holds what one page or task has read from a cache. Opened by `with` or `async with`.
///
/// Belongs to one thread or task, and to the tasks it starts. Made by `Cache.scope`,
/// `Cache.preload` and `Cache.page`.
#[pyclass(frozen, module = "onetrip")]
pub(crate) struct Scope {
    cache: Py<Cache>,
    keys: Vec<Key>,
    /// Its page, if that is known when it is entered.
    page: Option<Page>,
    work: Work,
    /// How long it holds plain answers, if `max_age` was given.
    hold: Option<Duration>,
    entered: Mutex<Option<Entered>>,
}

struct Entered {
    entry: Entry,
    scope: Arc<Core>,
    /// Whether this is the outermost scope, which closes the shared state.
    opened: bool,
    /// The visits that began here.
    visits: Vec<Arc<Page>>,
}

impl Entered {
    fn end_visits(&mut self, policy: &Policy, learn: bool) {
        for page in self.visits.drain(..) {
            policy.end_visit(&self.scope, &page, learn);
        }
    }
}

impl Scope {
    pub(crate) fn new(cache: Py<Cache>, keys: Vec<Key>) -> Self {
        Self {
            cache,
            keys,
            page: None,
            work: Work::Other,
            hold: None,
            entered: Mutex::default(),
        }
    }

    pub(crate) fn holding(self, hold: Option<Duration>) -> Self {
        Self { hold, ..self }
    }

    pub(crate) fn of_request(self, safe: bool) -> Self {
        let work = match safe {
            true => Work::SafeRequest,
            false => Work::Request,
        };
        Self { work, ..self }
    }

    pub(crate) fn of_page(cache: Py<Cache>, page: Page) -> Self {
        Self {
            page: Some(page),
            ..Self::new(cache, Vec::new())
        }
    }

    fn entered(&self) -> MutexGuard<'_, Option<Entered>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scope(&self) -> Option<Arc<Core>> {
        let entered = self.entered();
        entered.as_ref().map(|entered| Arc::clone(&entered.scope))
    }

    /// Returns the scope for code in `here`, whether it was opened now, and the context within it.
    fn open(&self, here: &Context) -> Result<(Arc<Core>, bool, Context)> {
        if self.entered().is_some() {
            return Err(open_already());
        }
        let (scope, opened) = self.cache.get().core.policy().enter(here, self.work);
        let within = here.with_scope(Arc::clone(&scope));
        Ok((scope, opened, within))
    }

    fn end_visits(&self, learn: bool) {
        if let Some(entered) = self.entered().as_mut() {
            entered.end_visits(self.cache.get().core.policy(), learn);
        }
    }

    /// Makes it the scope of the running code.
    fn enter(&self, py: Python<'_>, scope: Arc<Core>, opened: bool) -> Result<()> {
        let mut entered = self.entered();
        if entered.is_some() {
            // Another thread or task came first while this one waited for its preload.
            return Err(open_already());
        }
        let cache = self.cache.get();
        let layer = Layer::Scope(Arc::clone(&scope), self.hold);
        let entry = cache.variable.enter(py, layer)?;
        let visits = self.page.iter().cloned();
        let visits = visits
            .map(|page| cache.core.policy().begin_visit(&scope, page))
            .collect();
        *entered = Some(Entered {
            entry,
            scope,
            opened,
            visits,
        });
        Ok(())
    }

    /// Ends the scope of the running code. Returns the scope to close, if it is the outermost, and
    /// the context to close it in.
    ///
    /// Nothing is learned from a visit that an exception ended: it is not typical.
    fn exit(&self, py: Python<'_>, raising: bool) -> Result<Option<(Arc<Core>, Context)>> {
        let Some(mut entered) = self.entered().take() else {
            return Ok(None);
        };
        let policy = self.cache.get().core.policy();
        entered.end_visits(policy, !raising);
        let variable = &self.cache.get().variable;
        // Those who watch see what was written leave, in whatever order the two end.
        let at = Context::clone(&*variable.here(py)?);
        variable.leave(py, &entered.entry)?;
        Ok(entered.opened.then_some((entered.scope, at)))
    }
}

/// Returns the page of a route and arguments. An argument is its `str`.
pub(crate) fn page(route: &str, args: Option<&Bound<'_, PyDict>>) -> Result<Page> {
    let mut page = Page::new(route);
    for (name, value) in args.into_iter().flatten() {
        let name: String = name.extract()?;
        page = page.arg(name, value.str()?.to_string_lossy());
    }
    Ok(page)
}

fn open_already() -> Raised {
    configuration(
        "this scope is open already; make another with cache.scope() or cache.preload()".into(),
    )
}

/// Returns whether an exception ends the block.
fn is_raising(exception: &Bound<'_, PyTuple>) -> bool {
    exception.get_item(0).is_ok_and(|kind| !kind.is_none())
}

/// Returns the result of closing a scope or a batch. An exception under way comes first.
fn closed(result: Result<()>, raising: bool) -> Result<()> {
    match result {
        Err(lost) if raising => {
            let lost = PyErr::from(lost);
            if !Python::attach(|py| is_ordinary(py, &lost)) {
                // The task was cancelled, or the program stopped, meanwhile.
                return Err(lost.into());
            }
            // The exception under way says more.
            log::warn!("closing after an exception failed: {lost}");
            Ok(())
        }
        result => result,
    }
}

#[pymethods]
impl Scope {
    /// Opens the scope and reads its preloaded keys in one trip.
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        let cache = this.cache.get();
        let (scope, opened, within) = this.open(&*cache.variable.here(py)?)?;
        let preload = cache.core.policy().preload(&within, &this.keys);
        cache.travel(py, &within, preload)?;
        this.enter(py, scope, opened)?;
        Ok(slf.clone())
    }

    /// Closes the scope. Waits for the replies to posted writes, at most `trip_timeout`.
    #[pyo3(signature = (*exception))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) -> Result<()> {
        let Some((scope, at)) = self.exit(py, is_raising(exception))? else {
            return Ok(());
        };
        let cache = self.cache.get();
        let result = cache.travel(py, &at, cache.core.policy().close(&scope));
        // What tasks posted in it, of loops that may be over by now.
        for post in scope.take_posts() {
            py.detach(|| cache.core.await_post(&post));
        }
        closed(result, is_raising(exception))
    }

    /// Returns a coroutine of `__enter__`.
    fn __aenter__(slf: &Bound<'_, Self>) -> Coroutine {
        let face = Face::of(slf.get().cache.bind(slf.py()));
        let slf = slf.clone().unbind();
        Coroutine::new("__aenter__", async move {
            let this = slf.get();
            let (scope, opened, within) = this.open(&face.here()?)?;
            let preload = face.cache().core.policy().preload(&within, &this.keys);
            face.travel(&within, preload).await?;
            Python::attach(|py| this.enter(py, scope, opened))?;
            Ok(slf)
        })
    }

    /// Returns a coroutine of `__exit__`.
    #[pyo3(signature = (*exception))]
    fn __aexit__(slf: &Bound<'_, Self>, exception: &Bound<'_, PyTuple>) -> Coroutine {
        let face = Face::of(slf.get().cache.bind(slf.py()));
        let (slf, raising) = (slf.clone().unbind(), is_raising(exception));
        Coroutine::new("__aexit__", async move {
            let Some((scope, at)) = Python::attach(|py| slf.get().exit(py, raising))? else {
                return Ok(NOTHING);
            };
            let close = face.cache().core.policy().close(&scope);
            closed(face.travel(&at, close).await, raising)?;
            for post in scope.take_posts() {
                awaken(move |context| post.poll(context), None).await?;
            }
            Ok(NOTHING)
        })
    }

    /// Marks this open scope as a visit to the page `route` with the arguments `args`.
    ///
    /// The next read brings what the page usually reads. When the scope closes, the page learns
    /// what the visit read. Raises ConfigurationError if the scope is not open.
    #[pyo3(signature = (route, /, **args))]
    fn visit(&self, route: &str, args: Option<&Bound<'_, PyDict>>) -> Result<()> {
        let page = page(route, args)?;
        let mut entered = self.entered();
        let Some(entered) = entered.as_mut() else {
            return Err(configuration(
                "this scope is not open; call visit() within its with block".into(),
            ));
        };
        let policy = self.cache.get().core.policy();
        // One page after the other: a scope that names many would else read for all of them.
        entered.end_visits(policy, true);
        entered
            .visits
            .push(policy.begin_visit(&entered.scope, page));
        Ok(())
    }

    /// Ends the visit and learns from it. The scope stays open. For integrations.
    fn _end_visit(&self) {
        self.end_visits(true);
    }

    /// Shares the page's first trip with `other`, if both are on one store. For integrations.
    fn _link(&self, other: &Self) {
        let (mine, theirs) = (self.scope(), other.scope());
        if let (Some(mine), Some(theirs)) = (mine, theirs) {
            let cache = &self.cache.get().core;
            cache.link(&mine, &other.cache.get().core, &theirs);
        }
    }

    /// Limits the age of held pieces to `read_max_age` from now on. For integrations.
    fn _begin_sending(&self) {
        if let Some(entered) = self.entered().as_ref() {
            entered.scope.begin_sending();
        }
    }

    /// Learns nothing from the visit, because it failed or is not typical.
    fn discard(&self) {
        self.end_visits(false);
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

/// Sends the plain `set` and `set_many` calls of a block in one trip. Made by `Cache.batch`.
#[pyclass(frozen, module = "onetrip")]
pub(crate) struct Batch {
    cache: Py<Cache>,
    entered: Mutex<Option<(Entry, Arc<WriteBatch>)>>,
}

impl Batch {
    pub(crate) fn new(cache: Py<Cache>) -> Self {
        Self {
            cache,
            entered: Mutex::default(),
        }
    }

    fn entered(&self) -> MutexGuard<'_, Option<(Entry, Arc<WriteBatch>)>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, py: Python<'_>) -> Result<()> {
        let mut entered = self.entered();
        if entered.is_some() {
            return Err(configuration(
                "this batch is open already; make another with cache.batch()".into(),
            ));
        }
        let batch = Arc::<WriteBatch>::default();
        let layer = Layer::Batch(Arc::clone(&batch));
        let entry = self.cache.get().variable.enter(py, layer)?;
        *entered = Some((entry, batch));
        Ok(())
    }

    /// Leaves the block. Returns the context to send the gathered writes in.
    fn exit(&self, py: Python<'_>) -> Result<Option<Context>> {
        let Some((entry, batch)) = self.entered().take() else {
            return Ok(None);
        };
        let variable = &self.cache.get().variable;
        variable.leave(py, &entry)?;
        let at = Context::clone(&*variable.here(py)?);
        batch.close();
        Ok(Some(at.with_batch(batch)))
    }
}

#[pymethods]
impl Batch {
    /// Starts collecting writes.
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, Self>> {
        slf.get().enter(slf.py())?;
        Ok(slf.clone())
    }

    /// Sends the writes that have not left yet.
    #[pyo3(signature = (*exception))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) -> Result<()> {
        let Some(at) = self.exit(py)? else {
            return Ok(());
        };
        let cache = self.cache.get();
        let sent = cache.travel(py, &at, cache.core.policy().flush(&at));
        closed(sent, is_raising(exception))
    }

    /// Returns a coroutine of `__enter__`.
    fn __aenter__(slf: &Bound<'_, Self>) -> Coroutine {
        let slf = slf.clone().unbind();
        Coroutine::new("__aenter__", async move {
            Python::attach(|py| slf.get().enter(py))?;
            Ok(slf)
        })
    }

    /// Returns a coroutine of `__exit__`.
    #[pyo3(signature = (*exception))]
    fn __aexit__(slf: &Bound<'_, Self>, exception: &Bound<'_, PyTuple>) -> Coroutine {
        let face = Face::of(slf.get().cache.bind(slf.py()));
        let (slf, raising) = (slf.clone().unbind(), is_raising(exception));
        Coroutine::new("__aexit__", async move {
            if let Some(at) = Python::attach(|py| slf.get().exit(py))? {
                let flush = face.cache().core.policy().flush(&at);
                closed(face.travel(&at, flush).await, raising)?;
            }
            Ok(NOTHING)
        })
    }
}

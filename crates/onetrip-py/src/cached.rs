//! Functions and properties whose results are cached.

use std::sync::Arc;

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyInt, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyClass, PyClassInitializer};

use crate::cache::Cache;
use crate::error::{Result, configuration, raise};
use crate::key;
use crate::recipe::{Arguments, Recipe};
use crate::timeout::Lifetime;

/// The first argument of `cached`: a timeout, or, where the decorator stands bare, the function.
#[derive(Default)]
pub(crate) enum First<'py> {
    #[default]
    Unset,
    Timeout(Lifetime),
    Function(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for First<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        // A staticmethod is not callable everywhere, but is meant as a function all the same.
        if value.is_callable() || value.hasattr(intern!(value.py(), "__func__"))? {
            return Ok(Self::Function(value.to_owned()));
        }
        Ok(Self::Timeout(value.extract()?))
    }
}

/// What a decorator makes of a function.
pub(crate) trait Decorated: Sized + PyClass + Into<PyClassInitializer<Self>> {
    fn of(recipe: Arc<Recipe>) -> Self;
}

/// Decorates at once if the decorator stands bare, and otherwise gives the decorator.
pub(crate) fn decorate<'py, T: Decorated>(
    cache: &Bound<'py, Cache>,
    first: First<'py>,
    key: Option<Bound<'py, PyString>>,
    key_fn: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    let py = cache.py();
    if key.is_some() && key_fn.is_some() {
        return Err(configuration(
            "cached() takes key= or key_fn=, not both".into(),
        ));
    }
    let timeout = match first {
        First::Function(function) => {
            return wrap::<T>(cache, &function, Lifetime::default(), None, None);
        }
        First::Timeout(timeout) => timeout,
        First::Unset => Lifetime::default(),
    };
    let (cache, key, key_fn) = (
        cache.clone().unbind(),
        key.map(Bound::unbind),
        key_fn.map(Bound::unbind),
    );
    let decorator =
        PyCFunction::new_closure(py, None, None, move |arguments, _| -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            let function = arguments.get_item(0)?;
            let (key, key_fn) = (
                key.as_ref().map(|key| key.bind(py)),
                key_fn.as_ref().map(|key_fn| key_fn.bind(py)),
            );
            Ok(wrap::<T>(cache.bind(py), &function, timeout, key, key_fn)?.unbind())
        })?;
    Ok(decorator.into_any())
}

fn wrap<'py, T: Decorated>(
    cache: &Bound<'py, Cache>,
    function: &Bound<'py, PyAny>,
    timeout: Lifetime,
    key: Option<&Bound<'py, PyString>>,
    key_fn: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    let py = cache.py();
    let recipe = Recipe::new(cache, function, timeout, key, key_fn)?;
    let decorated = Bound::new(py, T::of(Arc::new(recipe)))?.into_any();
    py.import("functools")?
        .call_method1("update_wrapper", (&decorated, function))?;
    Ok(decorated)
}

/// A function whose results are cached; bound to an instance, a method of it.
#[pyclass(frozen, dict, weakref, generic, module = "onetrip")]
pub(crate) struct Cached {
    recipe: Arc<Recipe>,
    instance: Option<Py<PyAny>>,
}

impl Decorated for Cached {
    fn of(recipe: Arc<Recipe>) -> Self {
        Self {
            recipe,
            instance: None,
        }
    }
}

impl Cached {
    /// The arguments of a call, the instance first if there is one.
    fn arguments<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Arguments<'py>> {
        let py = args.py();
        let args = match &self.instance {
            None => args.clone(),
            Some(instance) => {
                let all = std::iter::once(instance.bind(py).clone()).chain(args.iter());
                PyTuple::new(py, all.collect::<Vec<_>>())?
            }
        };
        Ok(Arguments::new(args, kwargs))
    }

    fn belongs_to(&self, cache: &Bound<'_, Cache>) -> Result<()> {
        if self.recipe.cache.is(cache) {
            return Ok(());
        }
        Err(configuration(
            "a function that another cache caches cannot be preloaded here; preload it with its own cache".into(),
        ))
    }
}

#[pymethods]
impl Cached {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.call(&self.arguments(args, kwargs)?)
    }

    /// The key of a call with these arguments.
    #[pyo3(signature = (*args, **kwargs))]
    fn key<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyString>> {
        self.recipe.key_text(&self.arguments(args, kwargs)?)
    }

    /// Remove the stored result of a call with these arguments; True if there was one.
    #[pyo3(signature = (*args, **kwargs))]
    fn bust(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> Result<bool> {
        self.recipe.bust(&self.arguments(args, kwargs)?)
    }

    /// Compute the result of a call anew and store it.
    #[pyo3(signature = (*args, **kwargs))]
    fn refresh<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.refresh(&self.arguments(args, kwargs)?)
    }

    /// Call the function itself, without the cache.
    #[pyo3(signature = (*args, **kwargs))]
    fn uncached<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.compute(&self.arguments(args, kwargs)?)
    }

    /// The results of many calls, in their order: all from the cache in one trip, the missing computed, and those stored in one trip.
    ///
    /// Each item is the tuple of a call's positional arguments, or its only argument.
    fn many<'py>(&self, arguments: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
        let calls = arguments
            .try_iter()?
            .map(|one| {
                let one = one?;
                let args = match one.cast_exact::<PyTuple>() {
                    Ok(args) => args.clone(),
                    Err(_) => PyTuple::new(one.py(), [&one])?,
                };
                self.arguments(&args, None)
            })
            .collect::<Result<Vec<_>>>()?;
        self.recipe.many(arguments.py(), &calls)
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: Option<Bound<'py, PyAny>>,
        owner: Option<&Bound<'py, PyType>>,
    ) -> PyResult<Bound<'py, Self>> {
        let _ = owner;
        match instance {
            Some(instance) if slf.get().instance.is_none() => {
                let recipe = Arc::clone(&slf.get().recipe);
                Bound::new(
                    slf.py(),
                    Self {
                        recipe,
                        instance: Some(instance.unbind()),
                    },
                )
            }
            _ => Ok(slf.clone()),
        }
    }

    /// What a method does not have itself, its function has: `__name__`, `__doc__`, …
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let function = self.recipe.function.bind(py);
        match (name, &self.instance) {
            ("__self__", Some(instance)) => Ok(instance.bind(py).clone()),
            ("__wrapped__", Some(instance)) => function.call_method1("__get__", (instance,)),
            ("__wrapped__" | "__self__", None) => Err(PyAttributeError::new_err(name.to_owned())),
            _ => function.getattr(name),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let function = self.recipe.function.bind(py);
        Ok(match &self.instance {
            None => format!("<cached {}>", function.repr()?),
            Some(instance) => format!(
                "<cached {} of {}>",
                function.repr()?,
                instance.bind(py).repr()?
            ),
        })
    }
}

/// A property whose values are cached, by instance.
#[pyclass(frozen, dict, weakref, generic, module = "onetrip")]
pub(crate) struct CachedProperty {
    recipe: Arc<Recipe>,
}

impl Decorated for CachedProperty {
    fn of(recipe: Arc<Recipe>) -> Self {
        Self { recipe }
    }
}

fn only<'py>(instance: &Bound<'py, PyAny>) -> Result<Arguments<'py>> {
    Ok(Arguments::new(
        PyTuple::new(instance.py(), [instance])?,
        None,
    ))
}

#[pymethods]
impl CachedProperty {
    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: Option<&Bound<'py, PyAny>>,
        owner: Option<&Bound<'py, PyType>>,
    ) -> Result<Bound<'py, PyAny>> {
        let _ = owner;
        match instance {
            Some(instance) => slf.get().recipe.call(&only(instance)?),
            None => Ok(slf.clone().into_any()),
        }
    }

    /// The key of the property of `instance`.
    fn key<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyString>> {
        self.recipe.key_text(&only(instance)?)
    }

    /// Remove the stored value of the property of `instance`; True if there was one.
    fn bust(&self, instance: &Bound<'_, PyAny>) -> Result<bool> {
        self.recipe.bust(&only(instance)?)
    }

    /// Compute the property of `instance` anew and store it.
    fn refresh<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.recipe.refresh(&only(instance)?)
    }

    /// The property of `instance`, computed without the cache.
    fn uncached<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.recipe.compute(&only(instance)?)
    }

    /// The values for many instances, in their order: one trip to read, one to store the missing.
    fn many<'py>(&self, instances: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
        let calls = instances
            .try_iter()?
            .map(|instance| only(&instance?))
            .collect::<Result<Vec<_>>>()?;
        self.recipe.many(instances.py(), &calls)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<cached property {}>",
            self.recipe.function.bind(py).repr()?
        ))
    }
}

/// Appends the keys that `what` names: a string, a cached function bound to its arguments, or an
/// iterable of such.
pub(crate) fn collect_keys(
    cache: &Bound<'_, Cache>,
    what: &Bound<'_, PyAny>,
    keys: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let py = what.py();
    if what.is_instance_of::<PyString>() {
        keys.push(key::bytes(what)?.into_owned());
    } else if let Ok(cached) = what.cast::<Cached>() {
        let cached = cached.get();
        cached.belongs_to(cache)?;
        keys.push(
            cached
                .recipe
                .key(&cached.arguments(&PyTuple::empty(py), None)?)?,
        );
    } else if let Some((cached, args, kwargs)) = partial(what)? {
        cached.get().belongs_to(cache)?;
        keys.push(
            cached
                .get()
                .recipe
                .key(&cached.get().arguments(&args, Some(&kwargs))?)?,
        );
    } else if what.is_instance_of::<PyBytes>() || what.is_instance_of::<PyInt>() {
        return Err(not_a_key(what)?);
    } else {
        let Ok(items) = what.try_iter() else {
            return Err(not_a_key(what)?);
        };
        for item in items {
            collect_keys(cache, &item?, keys)?;
        }
    }
    Ok(())
}

fn not_a_key(what: &Bound<'_, PyAny>) -> Result<crate::error::Raised> {
    let type_name = what.get_type().fully_qualified_name()?;
    Ok(raise(
        "BadKeyError",
        format!(
            "preload takes strings, cached functions bound to their arguments, and iterables of them, not a {type_name}"
        ),
    ))
}

/// The parts of a `functools.partial` of a cached function.
type Partial<'py> = (Bound<'py, Cached>, Bound<'py, PyTuple>, Bound<'py, PyDict>);

fn partial<'py>(what: &Bound<'py, PyAny>) -> PyResult<Option<Partial<'py>>> {
    let py = what.py();
    if !what.is_instance(
        &py.import(intern!(py, "functools"))?
            .getattr(intern!(py, "partial"))?,
    )? {
        return Ok(None);
    }
    let function = what.getattr(intern!(py, "func"))?;
    let Ok(cached) = function.cast_into::<Cached>() else {
        return Ok(None);
    };
    let args = what.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
    let kwargs = what
        .getattr(intern!(py, "keywords"))?
        .cast_into::<PyDict>()?;
    Ok(Some((cached, args, kwargs)))
}

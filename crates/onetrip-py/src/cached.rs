//! Functions and properties whose results are cached.

use std::sync::Arc;

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyClass, PyClassInitializer};

use crate::cache::Cache;
use crate::cached_call::{Arguments, Naming, Recipe};
use crate::error::{Result, configuration, raise, shown};
use crate::key::{self, Key};
use crate::timeout::Timeout;

/// First argument of `cached`: a timeout, or the function if the decorator is used bare.
#[derive(Default)]
pub(crate) enum First<'py> {
    #[default]
    Unset,
    Timeout(Timeout),
    Function(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for First<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        // A staticmethod or a property is meant as a function, and told so when it is refused.
        let py = value.py();
        if value.is_callable()
            || value.hasattr(intern!(py, "__func__"))?
            || value.hasattr(intern!(py, "fget"))?
        {
            return Ok(Self::Function(value.to_owned()));
        }
        Ok(Self::Timeout(value.extract()?))
    }
}

/// Result of a decorator.
pub(crate) trait Decorated: Sized + PyClass + Into<PyClassInitializer<Self>> {
    fn of(recipe: Arc<Recipe>) -> Self;
}

/// Decorates the function if the decorator is used bare. Otherwise returns a decorator.
pub(crate) fn decorate<'py, T: Decorated>(
    cache: &Bound<'py, Cache>,
    first: First<'py>,
    key: Option<Bound<'py, PyAny>>,
    key_fn: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    let naming = match (key, key_fn) {
        (None, None) => Naming::Digest,
        (Some(key), None) => match key.cast_into::<PyString>() {
            Ok(key) => Naming::Format(key.unbind()),
            Err(wrong) => {
                return Err(configuration(format!(
                    "key={} is not a format; give a string such as \"note:{{note.id}}\"",
                    shown(&wrong.into_inner())
                )));
            }
        },
        (None, Some(key_fn)) if key_fn.is_callable() => Naming::KeyFn(key_fn.unbind()),
        (None, Some(wrong)) => {
            return Err(configuration(format!(
                "key_fn={} is not a function; pass a function of (args, kwargs)",
                shown(&wrong)
            )));
        }
        (Some(_), Some(_)) => {
            return Err(configuration(
                "cached() takes key= or key_fn=, not both".into(),
            ));
        }
    };
    let timeout = match first {
        First::Function(function) => {
            return wrap::<T>(cache, &function, Timeout::default(), &naming);
        }
        First::Timeout(timeout) => timeout,
        First::Unset => Timeout::default(),
    };
    let owner = cache.clone().unbind();
    let decorator = PyCFunction::new_closure(
        cache.py(),
        None,
        None,
        move |arguments: &Bound<'_, PyTuple>, options| -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            let (function,): (Bound<'_, PyAny>,) = match (arguments.extract(), options) {
                (Ok(function), None) => function,
                _ => {
                    let message = "a caching decorator takes one function and no options; pass options to cached()";
                    return Err(configuration(message.into()).into());
                }
            };
            Ok(wrap::<T>(owner.bind(py), &function, timeout, &naming)?.unbind())
        },
    )?;
    Ok(decorator.into_any())
}

fn wrap<'py, T: Decorated>(
    cache: &Bound<'py, Cache>,
    function: &Bound<'py, PyAny>,
    timeout: Timeout,
    naming: &Naming,
) -> Result<Bound<'py, PyAny>> {
    let py = cache.py();
    let recipe = Recipe::new(cache, function, timeout, naming)?;
    let decorated = Bound::new(py, T::of(Arc::new(recipe)))?.into_any();
    py.import("functools")?
        .call_method1("update_wrapper", (&decorated, function))?;
    Ok(decorated)
}

// A function whose results are cached; bound to an instance, a method of it. It has no docstring,
// which would hide the one that `__doc__` below gives a method.
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
    /// Returns the arguments of a call, the instance first if there is one.
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
            "this function belongs to another cache; preload it with that cache".into(),
        ))
    }
}

fn own_attributes<'py>(cached: &Bound<'py, Cached>) -> PyResult<Bound<'py, PyDict>> {
    let attributes = cached.getattr(intern!(cached.py(), "__dict__"))?;
    Ok(attributes.cast_into::<PyDict>()?)
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

    /// Returns the key of the call with these arguments.
    #[pyo3(signature = (*args, **kwargs))]
    fn key<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyString>> {
        self.recipe.key_text(&self.arguments(args, kwargs)?)
    }

    /// Deletes the stored result of the call. Returns True if it existed.
    #[pyo3(signature = (*args, **kwargs))]
    fn bust<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.bust(&self.arguments(args, kwargs)?)
    }

    /// Computes the result of the call anew, stores it and returns it.
    #[pyo3(signature = (*args, **kwargs))]
    fn refresh<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.refresh(&self.arguments(args, kwargs)?)
    }

    /// Calls the function itself, without the cache.
    #[pyo3(signature = (*args, **kwargs))]
    fn uncached<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        self.recipe.compute(&self.arguments(args, kwargs)?)
    }

    /// Returns the results of many calls, in order.
    ///
    /// Reads all of them in one trip, computes the missing ones and stores those together. Each
    /// item is a call's only argument, or the tuple of its positional arguments.
    ///
    ///     first, second = note_markup.many([5, 6])
    fn many<'py>(&self, arguments: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
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

    /// Docstring of the function, unless another one was set.
    #[getter]
    fn __doc__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let name = intern!(slf.py(), "__doc__");
        match own_attributes(slf)?.get_item(name)? {
            Some(own) => Ok(own),
            None => slf.get().recipe.function.bind(slf.py()).getattr(name),
        }
    }

    #[setter(__doc__)]
    fn set_doc(slf: &Bound<'_, Self>, text: &Bound<'_, PyAny>) -> PyResult<()> {
        own_attributes(slf)?.set_item(intern!(slf.py(), "__doc__"), text)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let Ok(other) = other.cast::<Self>() else {
            return false;
        };
        let same_instance = match (&self.instance, &other.get().instance) {
            (Some(mine), Some(theirs)) => mine.is(theirs),
            (None, None) => true,
            _ => false,
        };
        same_instance && Arc::ptr_eq(&self.recipe, &other.get().recipe)
    }

    fn __hash__(&self) -> usize {
        let instance = self
            .instance
            .as_ref()
            .map_or(0, |instance| instance.as_ptr() as usize);
        Arc::as_ptr(&self.recipe) as usize ^ instance.rotate_left(1)
    }

    /// Looks up missing attributes on the function: `__name__`, `__doc__`, …
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let py = name.py();
        let function = self.recipe.function.bind(py);
        match (&*name.to_string_lossy(), &self.instance) {
            ("__self__", Some(instance)) => Ok(instance.bind(py).clone()),
            ("__wrapped__", Some(instance)) => function.call_method1("__get__", (instance,)),
            ("__wrapped__" | "__self__", None) => {
                Err(PyAttributeError::new_err(name.clone().unbind()))
            }
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

/// A property with cached values, made by `Cache.cached_property`.
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

    /// Returns the key of the property of `instance`.
    fn key<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyString>> {
        self.recipe.key_text(&only(instance)?)
    }

    /// Deletes the stored value of `instance`. Returns True if it existed.
    fn bust<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.recipe.bust(&only(instance)?)
    }

    /// Computes the value of `instance` anew, stores it and returns it.
    fn refresh<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.recipe.refresh(&only(instance)?)
    }

    /// Computes the value of `instance` without the cache.
    fn uncached<'py>(&self, instance: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.recipe.compute(&only(instance)?)
    }

    /// Returns the values of many instances, in order.
    ///
    /// Reads all of them in one trip, computes the missing ones and stores those together.
    fn many<'py>(&self, instances: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
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

/// Limit of nested iterables of keys.
const MAX_NESTING: usize = 100;

/// Appends the keys named by `what`: a string, a cached function bound to its arguments, or an
/// iterable of these.
pub(crate) fn collect_keys(
    cache: &Bound<'_, Cache>,
    what: &Bound<'_, PyAny>,
    keys: &mut Vec<Key>,
    depth: usize,
) -> Result<()> {
    let py = what.py();
    if depth > MAX_NESTING {
        return Err(raise(
            "BadKeyError",
            format!(
                "keys nest deeper than {MAX_NESTING} iterables, or one contains itself; pass a flat list to preload"
            ),
        ));
    }
    if what.is_instance_of::<PyString>() {
        keys.push(key::owned(what)?);
    } else if let Ok(cached) = what.cast::<Cached>() {
        let cached = cached.get();
        cached.belongs_to(cache)?;
        keys.push(
            cached
                .recipe
                .key(&cached.arguments(&PyTuple::empty(py), None)?)?,
        );
    } else if let Some((cached, args, kwargs)) = partial(what)? {
        let cached = cached.get();
        cached.belongs_to(cache)?;
        keys.push(
            cached
                .recipe
                .key(&cached.arguments(&args, Some(&kwargs))?)?,
        );
    } else if what.is_instance_of::<PyBytes>() {
        return Err(not_a_key(what)?);
    } else {
        let Ok(items) = what.try_iter() else {
            return Err(not_a_key(what)?);
        };
        for item in items {
            collect_keys(cache, &item?, keys, depth + 1)?;
        }
    }
    Ok(())
}

fn not_a_key(what: &Bound<'_, PyAny>) -> Result<crate::error::Raised> {
    let type_name = crate::error::type_name(what);
    Ok(raise(
        "BadKeyError",
        format!(
            "preload takes strings, cached methods, functools.partial of cached functions, and iterables of these, not {type_name}; for anything else pass its .key(…)"
        ),
    ))
}

/// Function, positional and keyword arguments of a `functools.partial` of a cached function.
type Partial<'py> = (Bound<'py, Cached>, Bound<'py, PyTuple>, Bound<'py, PyDict>);

fn partial<'py>(what: &Bound<'py, PyAny>) -> PyResult<Option<Partial<'py>>> {
    static PARTIAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = what.py();
    if !what.is_instance(PARTIAL.import(py, "functools", "partial")?)? {
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

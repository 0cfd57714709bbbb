//! How one cached coroutine function is computed and kept: as [`Recipe`] does, to be awaited.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyTuple};

use crate::aio::Face;
use crate::coroutine::{Coroutine, awaited};
use crate::error::Result;
use crate::key::Key;
use crate::recipe::{Arguments, Recipe, Unbound};

impl Recipe {
    fn face(&self, py: Python<'_>) -> Face {
        Face::of(self.cache.bind(py))
    }

    /// What the function returns is awaited within the coroutine that `work` makes.
    pub(crate) fn acall(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        let (recipe, call) = (Arc::clone(self), call.unbind());
        Ok(Coroutine::new("cached call", async move {
            match face.read(&key).await? {
                Some(value) => Ok(value),
                None => recipe.amake(&face, key, &call).await,
            }
        }))
    }

    pub(crate) fn arefresh(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        let (recipe, call) = (Arc::clone(self), call.unbind());
        Ok(Coroutine::new("refresh", async move {
            recipe.amake(&face, key, &call).await
        }))
    }

    pub(crate) fn abust(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        Ok(Coroutine::new("bust", async move {
            Ok(face.remove(&[key]).await? > 0)
        }))
    }

    async fn amake(&self, face: &Face, key: Key, call: &Unbound) -> Result<Py<PyAny>> {
        let coroutine = Python::attach(|py| self.compute(&call.bind(py)).map(Bound::unbind))?;
        let value = awaited(coroutine).await?;
        face.write_value(key, &value, self.timeout).await?;
        Ok(value)
    }

    /// The results of many calls: all from the cache in one trip, the missing computed side by
    /// side, and those stored in one trip.
    pub(crate) fn amany(
        self: &Arc<Self>,
        py: Python<'_>,
        calls: &[Arguments<'_>],
    ) -> Result<Coroutine> {
        let face = self.face(py);
        let keys = calls
            .iter()
            .map(|call| self.key(call))
            .collect::<Result<Vec<_>>>()?;
        let calls: Vec<_> = calls.iter().map(Arguments::unbind).collect();
        let recipe = Arc::clone(self);
        Ok(Coroutine::new("many", async move {
            let found = face.read_many(&keys).await?;
            // The first call of each missing key.
            let mut missing: HashMap<&[u8], &Unbound> = HashMap::new();
            for ((key, call), value) in keys.iter().zip(&calls).zip(&found) {
                if value.is_none() {
                    missing.entry(key).or_insert(call);
                }
            }
            let (wanted, calls): (Vec<&[u8]>, Vec<&Unbound>) = missing.into_iter().unzip();
            let outcomes = match calls[..] {
                [] => Vec::new(),
                _ => recipe.compute_all(&calls).await?,
            };
            let mut made: HashMap<&[u8], Py<PyAny>> = HashMap::new();
            let mut failure = None;
            for (key, outcome) in wanted.into_iter().zip(outcomes) {
                match outcome {
                    Ok(value) => drop(made.insert(key, value)),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            // What was computed beside a failure is not lost.
            let entries = Python::attach(|py| {
                made.iter()
                    .map(|(key, value)| {
                        let entry = face.cache().entry(key, value.bind(py))?;
                        Ok((Key::from_slice(key), entry))
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            face.write(entries, recipe.timeout).await?;
            if let Some(failure) = failure {
                return Err(failure.into());
            }
            Python::attach(|py| {
                let mut given = HashSet::new();
                keys.iter()
                    .zip(found)
                    .map(|(key, value)| match (value, made.get(key.as_slice())) {
                        (None, Some(made)) if given.insert(key) => Ok(made.clone_ref(py)),
                        (None, Some(made)) => Ok(face.cache().fresh(made.bind(py))?.unbind()),
                        (value, _) => Ok(value.unwrap_or_else(|| py.None())),
                    })
                    .collect::<Result<Vec<_>>>()
            })
        }))
    }

    /// What each call comes to, all computed side by side.
    async fn compute_all(&self, calls: &[&Unbound]) -> Result<Vec<PyResult<Py<PyAny>>>> {
        let (tasks, all) = Python::attach(|py| {
            let asyncio = py.import(intern!(py, "asyncio"))?;
            let begin = |call: &Unbound| {
                let coroutine = self.compute(&call.bind(py))?;
                asyncio.call_method1(intern!(py, "ensure_future"), (coroutine,))
            };
            let tasks: Vec<PyResult<Py<PyAny>>> =
                calls.iter().map(|call| Ok(begin(call)?.unbind())).collect();
            let begun: Vec<_> = tasks.iter().flatten().collect();
            let options = [("return_exceptions", true)].into_py_dict(py)?;
            let all = asyncio.call_method(
                intern!(py, "gather"),
                PyTuple::new(py, begun)?,
                Some(&options),
            )?;
            PyResult::Ok((tasks, all.unbind()))
        })?;
        awaited(all).await?;
        Ok(Python::attach(|py| {
            let outcomes = tasks.into_iter();
            outcomes
                .map(|task| task?.call_method0(py, intern!(py, "result")))
                .collect()
        }))
    }
}

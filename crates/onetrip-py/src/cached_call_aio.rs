//! How one cached coroutine function is computed and kept: as [`Recipe`] does, to be awaited.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyTuple};

use crate::aio::Face;
use crate::cached_call::{Arguments, Recipe, Unbound};
use crate::coroutine::{Coroutine, awaited};
use crate::error::Result;
use crate::fetch::How;

impl Recipe {
    fn face(&self, py: Python<'_>) -> Face {
        Face::of(self.cache.bind(py))
    }

    /// What the function returns is awaited within the coroutine that `work` makes.
    pub(crate) fn acall(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        let (recipe, call) = (Arc::clone(self), call.unbind());
        Ok(Coroutine::new("cached call", async move {
            let how = How::new(recipe.timeout);
            face.fetch(key, how, || recipe.acompute(&call)).await
        }))
    }

    pub(crate) fn arefresh(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        let (recipe, call) = (Arc::clone(self), call.unbind());
        Ok(Coroutine::new("refresh", async move {
            let how = How::new(recipe.timeout).refreshing();
            face.fetch(key, how, || recipe.acompute(&call)).await
        }))
    }

    pub(crate) fn abust(self: &Arc<Self>, call: &Arguments<'_>) -> Result<Coroutine> {
        let (face, key) = (self.face(call.py()), self.key(call)?);
        Ok(Coroutine::new("bust", async move {
            Ok(face.remove(&[key]).await? > 0)
        }))
    }

    async fn acompute(&self, call: &Unbound) -> Result<Py<PyAny>> {
        let coroutine = Python::attach(|py| self.compute(&call.bind(py)).map(Bound::unbind))?;
        awaited(coroutine).await
    }

    /// Returns the results of many calls. Reads all in one trip, computes the missing ones side by
    /// side, and stores those together.
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
            let values = face.fetch_many(&keys, How::new(recipe.timeout), |places| {
                let calls: Vec<&Unbound> = places.iter().filter_map(|at| calls.get(*at)).collect();
                let recipe = &recipe;
                Box::pin(async move { recipe.compute_all(&calls).await })
            });
            values.await
        }))
    }

    /// Computes calls side by side. Returns the result of each.
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

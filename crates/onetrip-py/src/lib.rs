//! `onetrip._core`: the cache for Python.
//!
//! This crate converts and delegates. The `onetrip` crate decides what an operation means. The
//! Python package holds what only Python can do. The `///` comments of public items are the
//! docstrings of `python/onetrip/_core.pyi`.

mod aio;
mod cache;
mod cached;
mod cached_call;
mod cached_call_aio;
mod context;
mod coroutine;
mod decode;
mod encode;
mod error;
mod event_loop;
mod extension;
mod fetch;
mod fork;
mod greenlet;
mod interned_keys;
mod key;
mod logging;
mod options;
mod route;
mod scope;
mod stats;
mod text;
mod timeout;
mod watch;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::cache::Cache;
    #[pymodule_export]
    use super::cached::{Cached, CachedProperty};
    #[pymodule_export]
    use super::coroutine::Coroutine;
    #[pymodule_export]
    use super::fetch::set_transaction_probe;
    #[pymodule_export]
    use super::key::{digest, stable};
    #[pymodule_export]
    use super::route::Route;
    #[pymodule_export]
    use super::scope::{Batch, Scope};
    #[pymodule_export]
    use super::stats::Stats;
    #[pymodule_export]
    use super::watch::{Everything, Trip, Watch};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::logging::install();
        super::fork::prepare(module.py())
    }
}

//! Prepares for forks and for the end of the process.

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

/// Registers hooks: close idle connections before a fork, so that children get no copies of their
/// sockets, and drain posted writes at exit.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    let before = [("before", wrap_pyfunction!(close_all_idle, py)?)].into_py_dict(py)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&before))?;
    py.import("atexit")?
        .call_method1("register", (wrap_pyfunction!(drain_all, py)?,))?;
    Ok(())
}

/// Reads the replies to posted writes before the program ends.
#[pyfunction]
fn drain_all(py: Python<'_>) {
    py.detach(onetrip::internals::drain_all);
}

/// Holds the interpreter, so that no other thread begins a trip before the fork.
#[pyfunction]
fn close_all_idle() {
    onetrip::internals::close_all_idle();
}

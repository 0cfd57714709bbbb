//! What is to be done before the process forks, and before it ends.

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

/// Has idle connections closed before each fork, so that children hold no copies of their sockets,
/// and posted writes drained before the end.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    let before = [("before", wrap_pyfunction!(close_all_idle, py)?)].into_py_dict(py)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&before))?;
    py.import("atexit")?
        .call_method1("register", (wrap_pyfunction!(drain_all, py)?,))?;
    Ok(())
}

/// Reads what servers replied to posted writes, before the program ends and its sockets with it.
#[pyfunction]
fn drain_all(py: Python<'_>) {
    py.detach(onetrip::drain_all);
}

/// Keeps the interpreter, so that no other thread begins a trip before the fork.
#[pyfunction]
fn close_all_idle() {
    onetrip::close_all_idle();
}

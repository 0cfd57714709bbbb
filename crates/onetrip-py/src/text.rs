//! Bytes as Python strings.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Returns the string of UTF-8 bytes. Raises UnicodeDecodeError if they are not UTF-8.
pub(crate) fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // Python keeps the shortest strings itself, and looks at the others eight bytes at a time.
    match bytes.len() {
        0 | 1 => PyString::from_bytes(py, bytes),
        // Without leaving off early, many bytes are looked at in one step.
        _ if bytes.iter().fold(0, |all, byte| all | byte).is_ascii() => ascii(py, bytes),
        _ => PyString::from_bytes(py, bytes),
    }
}

#[expect(
    unsafe_code,
    reason = "no safe function makes a string of bytes that were looked at already"
)]
fn ascii<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    debug_assert!(bytes.is_ascii());
    const LARGEST: ffi::Py_UCS4 = 0x7F;
    // No slice is longer than isize::MAX.
    let length = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: the interpreter is held. A string of characters up to 0x7F has a byte for each, and
    // this one is nobody else's yet; all of them are written, and they are ASCII, before it is.
    unsafe {
        let string = Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(length, LARGEST))?;
        let data = ffi::PyUnicode_DATA(string.as_ptr()).cast::<u8>();
        data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        Ok(string.cast_into_unchecked())
    }
}

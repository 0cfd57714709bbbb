//! Turns onetrip's errors into Python's exceptions.

use onetrip::ErrorKind;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A Python exception to raise. `?` makes it from the core's errors.
pub(crate) struct Raised(PyErr);

/// A `Result` whose error becomes a Python exception.
pub(crate) type Result<T> = std::result::Result<T, Raised>;

impl From<PyErr> for Raised {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<Raised> for PyErr {
    fn from(raised: Raised) -> Self {
        raised.0
    }
}

impl From<onetrip::Error> for Raised {
    fn from(error: onetrip::Error) -> Self {
        let class = match error.kind() {
            ErrorKind::Configuration => "ConfigurationError",
            ErrorKind::Serialization => "SerializationError",
            ErrorKind::NotANumber => "NotANumberError",
            ErrorKind::Unsupported => "UnsupportedError",
            ErrorKind::TooLarge => "EntryTooLargeError",
            ErrorKind::Refused => "StoreRefusedError",
            ErrorKind::Timeout => "StoreTimeoutError",
            ErrorKind::Unavailable => "StoreUnavailableError",
            _ => "OneTripError",
        };
        raise(class, error.to_string())
    }
}

/// Returns an exception of the class `class` of `onetrip.errors`.
pub(crate) fn raise(class: &str, message: String) -> Raised {
    Python::attach(|py| {
        let found = py
            .import("onetrip.errors")
            .and_then(|errors| errors.getattr(class))
            .and_then(|found| Ok(found.cast_into::<PyType>()?));
        Raised(match found {
            Ok(found) => PyErr::from_type(found, message),
            Err(missing) => missing,
        })
    })
}

/// Returns such an exception with `cause` as its `__cause__`.
pub(crate) fn raise_from(py: Python<'_>, class: &str, message: String, cause: PyErr) -> Raised {
    let raised = raise(class, message);
    raised.0.set_cause(py, Some(cause));
    raised
}

/// Returns a ConfigurationError.
pub(crate) fn configuration(message: String) -> Raised {
    raise("ConfigurationError", message)
}

/// Returns the `repr` of a value, for a message.
pub(crate) fn shown(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| "?".into(), |text| text.to_string())
}

/// Returns the qualified name of a value's type, for a message.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    let class = value.get_type();
    class
        .fully_qualified_name()
        .or_else(|_| class.qualname())
        .map_or_else(|_| "?".into(), |name| name.to_string())
}

/// Returns whether `error` is an `Exception`, not an interruption such as `KeyboardInterrupt` or
/// `SystemExit`.
pub(crate) fn is_ordinary(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
}

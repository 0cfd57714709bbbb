//! The border where onetrip's errors become Python's exceptions, and its log Python's.

use onetrip::ErrorKind;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A Python exception on its way out; made of the core's errors by `?`.
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

/// An exception of the class of `onetrip.errors` with this name.
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

/// The same, with the exception that led to it as its cause.
pub(crate) fn raise_from(py: Python<'_>, class: &str, message: String, cause: PyErr) -> Raised {
    let raised = raise(class, message);
    raised.0.set_cause(py, Some(cause));
    raised
}

/// An option, an argument or a decoration that cannot work.
pub(crate) fn configuration(message: String) -> Raised {
    raise("ConfigurationError", message)
}

/// A value as Python writes it, for a message.
pub(crate) fn shown(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| "?".into(), |text| text.to_string())
}

/// The name of a value's type, for a message; whatever its class says of itself.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    let class = value.get_type();
    class
        .fully_qualified_name()
        .or_else(|_| class.qualname())
        .map_or_else(|_| "?".into(), |name| name.to_string())
}

/// Whether `error` is of the kind that a program handles, rather than one that stops it
/// (`KeyboardInterrupt`, `SystemExit`).
pub(crate) fn is_ordinary(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
}

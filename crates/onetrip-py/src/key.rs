//! Python strings as keys.

use std::borrow::Cow;

use onetrip::internals::codec::MAX_DEPTH;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;

use crate::encode::{self, Form};
use crate::error::{Result, raise};

/// Returns the bytes of a key: UTF-8, with lone surrogates encoded the same way.
pub(crate) fn bytes<'a>(key: &'a Bound<'_, PyAny>) -> Result<Cow<'a, [u8]>> {
    let Ok(text) = key.cast::<PyString>() else {
        let type_name = crate::error::type_name(key);
        return Err(raise(
            "BadKeyError",
            format!(
                "a key is a string, not {type_name}; convert it with str(), or join its parts with colons"
            ),
        ));
    };
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let encoded = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
    Ok(Cow::Owned(
        encoded
            .cast::<PyBytes>()
            .map_err(PyErr::from)?
            .as_bytes()
            .to_vec(),
    ))
}

/// An owned key. Short keys, the usual case, are stored inline.
pub(crate) type Key = SmallVec<[u8; 40]>;

/// Returns the bytes of a key as an owned key.
pub(crate) fn owned(key: &Bound<'_, PyAny>) -> Result<Key> {
    Ok(Key::from_slice(&bytes(key)?))
}

/// Appends the `str` of a part of a key.
pub(crate) fn append(part: &Bound<'_, PyAny>, key: &mut Key) -> Result<()> {
    // The usual ones without a string in between.
    if part.is_exact_instance_of::<PyInt>()
        && let Ok(number) = part.extract::<i64>()
    {
        key.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    } else {
        key.extend_from_slice(&bytes(stable_text(part)?.as_any())?);
    }
    Ok(())
}

fn stable_text<'py>(part: &Bound<'py, PyAny>) -> Result<Bound<'py, PyString>> {
    match part.cast_exact::<PyString>() {
        Ok(text) => Ok(text.clone()),
        Err(_) => Ok(stable(part)?.str()?),
    }
}

/// Returns `part`, a part of a key, if its text is the same in every process.
///
/// Raises BadKeyError otherwise, as for an object whose text is an address, or for a set.
#[pyfunction]
pub(crate) fn stable<'a, 'py>(part: &'a Bound<'py, PyAny>) -> Result<&'a Bound<'py, PyAny>> {
    if is_stable(part, 0)? {
        return Ok(part);
    }
    let type_name = crate::error::type_name(part);
    Err(raise(
        "BadKeyError",
        format!(
            "a key cannot be made of {type_name}, whose text differs between processes; pass a string, a number, or a tuple of these"
        ),
    ))
}

/// Returns whether the text of an object depends only on its value: numbers and strings, tuples and
/// lists of these, and objects whose class defines `__str__` or `__repr__`.
fn is_stable(part: &Bound<'_, PyAny>, depth: usize) -> PyResult<bool> {
    let py = part.py();
    if part.is_none()
        || part.is_exact_instance_of::<PyString>()
        || part.is_instance_of::<PyInt>()
        || part.is_instance_of::<PyFloat>()
        || part.is_exact_instance_of::<PyBytes>()
    {
        return Ok(true);
    }
    if part.is_exact_instance_of::<PyTuple>() || part.is_exact_instance_of::<PyList>() {
        for item in part.try_iter()? {
            if depth >= MAX_DEPTH || !is_stable(&item?, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let class = part.get_type();
    if class.module().is_ok_and(|module| module == "builtins") {
        return Ok(false);
    }
    let of_all = py.get_type::<PyAny>();
    for method in [intern!(py, "__str__"), intern!(py, "__repr__")] {
        if !class.getattr(method)?.is(&of_all.getattr(method)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a digest of a call's arguments by name, the same in every process.
///
/// Raises BadKeyError if an argument has no stable form.
#[pyfunction]
pub(crate) fn digest(arguments: &Bound<'_, PyDict>) -> Result<String> {
    let mut form = Vec::new();
    for (name, value) in arguments {
        encode::append(&name, &mut form, Form::Stable)?;
        if let Err(error) = encode::append(&value, &mut form, Form::Stable) {
            let type_name = crate::error::type_name(&value);
            return Err(crate::error::raise_from(
                arguments.py(),
                "BadKeyError",
                format!(
                    "argument {name} ({type_name}) has no stable form for a key; pass key= or key_fn= to cached()"
                ),
                error.into(),
            ));
        }
    }
    Ok(onetrip::internals::digest(&form))
}

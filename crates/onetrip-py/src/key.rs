//! Python strings as keys.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::encode::{self, Form};
use crate::error::{Result, raise};

/// The bytes of a key: UTF-8, with the lone surrogates that Python allows encoded alike.
pub(crate) fn bytes<'a>(key: &'a Bound<'_, PyAny>) -> Result<Cow<'a, [u8]>> {
    let Ok(text) = key.cast::<PyString>() else {
        let type_name = key.get_type().fully_qualified_name()?;
        return Err(raise(
            "BadKeyError",
            format!(
                "a key is a string, not a {type_name}; convert it with str(), or join its parts with colons"
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

/// A digest of a call's arguments by name: the same for equal arguments, in every process.
///
/// Raises BadKeyError if one of them has no stable form.
#[pyfunction]
pub(crate) fn digest(arguments: &Bound<'_, PyDict>) -> Result<String> {
    let mut form = Vec::new();
    for (name, value) in arguments {
        encode::append(&name, &mut form, Form::Stable)?;
        if let Err(error) = encode::append(&value, &mut form, Form::Stable) {
            let type_name = value.get_type().fully_qualified_name()?;
            return Err(crate::error::raise_from(
                arguments.py(),
                "BadKeyError",
                format!(
                    "argument {name} ({type_name}) has no stable form to make a key of; give cached() a key= or key_fn="
                ),
                error.into(),
            ));
        }
    }
    Ok(onetrip::digest(&form))
}

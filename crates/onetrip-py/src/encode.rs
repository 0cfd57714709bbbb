//! Python values as payloads.

use onetrip::Serializer;
use onetrip::internals::codec::{MAX_DEPTH, tag};
use onetrip::internals::entry::Kind;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple,
};

use crate::error::{Result, is_ordinary, raise, raise_from};
use crate::extension::{self, Inner};

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In full.
    Faithful,
    /// In full, up to [`MAX_BRIEF`] bytes.
    Brief,
    /// The same bytes for equal values in every process: sets and maps are sorted by their bytes.
    Stable,
}

/// Appends `value` as `serializer` writes it. Returns the kind of the payload.
pub(crate) fn encode(
    serializer: Serializer,
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> Result<Kind> {
    // Strings, bytes and integers alone are stored as they are, whatever the serializer.
    if let Ok(text) = value.cast_exact::<PyString>() {
        if let Ok(text) = text.to_str() {
            out.extend_from_slice(text.as_bytes());
            return Ok(Kind::Str);
        }
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        out.extend_from_slice(bytes.as_bytes());
        return Ok(Kind::Bytes);
    } else if let Ok(number) = value.cast_exact::<PyInt>()
        && let Ok(number) = number.extract::<i64>()
    {
        out.extend_from_slice(number.to_string().as_bytes());
        return Ok(Kind::Integer);
    }
    if serializer == Serializer::Pickle {
        return pickle_unless_native(value, out);
    }
    append(value, out, Form::Faithful)?;
    Ok(Kind::Native)
}

fn pickle_unless_native(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<Kind> {
    let start = out.len();
    match append(value, out, Form::Brief).map_err(PyErr::from) {
        Ok(()) => Ok(Kind::Native),
        Err(error) if is_ordinary(value.py(), &error) => {
            out.truncate(start);
            pickle(value, out)
        }
        Err(interruption) => Err(interruption.into()),
    }
}

fn pickle(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<Kind> {
    /// The newest protocol of the oldest Python that this package runs on.
    const PROTOCOL: u8 = 5;
    let py = value.py();
    let pickled = py
        .import(intern!(py, "pickle"))?
        .call_method1(intern!(py, "dumps"), (value, PROTOCOL));
    let pickled = match pickled {
        Err(error) if is_ordinary(py, &error) => {
            let type_name = crate::error::type_name(value);
            return Err(raise_from(
                py,
                "SerializationError",
                format!(
                    "a value of type {type_name} cannot be pickled: {error}; cache a part that can"
                ),
                error,
            ));
        }
        pickled => pickled?,
    };
    out.extend_from_slice(pickled.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes());
    Ok(Kind::Pickle)
}

/// Limit of an encoded value in bytes, as in Redis. Shared containers are written out each time
/// they occur, so a small value could otherwise grow without end.
const MAX_NATIVE: usize = 512 << 20;

/// Limit in bytes above which a value is pickled instead: pickle writes shared containers once.
const MAX_BRIEF: usize = 4 << 20;

/// Appends `value` in MessagePack with extension types.
pub(crate) fn append(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, form: Form) -> Result<()> {
    write(value, out, form, 0)
}

// Writing to a vector does not fail; `rmp` says so in its types, as `Infallible` within its error.
macro_rules! put {
    ($write:expr) => {
        $write.map_err(|error| raise("SerializationError", error.to_string()))?
    };
}

fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, form: Form, depth: usize) -> Result<()> {
    check_depth(depth)?;
    let most = if form == Form::Brief {
        MAX_BRIEF
    } else {
        MAX_NATIVE
    };
    if out.len() > most {
        return Err(raise(
            "SerializationError",
            format!(
                "a value takes more than {} MiB; cache less at once",
                most >> 20
            ),
        ));
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return write_str(text, out);
    }
    if let Ok(number) = value.cast_exact::<PyInt>() {
        return write_int(number, out, depth);
    }
    if value.is_none() {
        put!(rmp::encode::write_nil(out));
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        put!(rmp::encode::write_bool(out, truth.is_true()));
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        put!(rmp::encode::write_f64(out, number.value()));
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        put!(rmp::encode::write_bin(out, bytes.as_bytes()));
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        put!(rmp::encode::write_array_len(out, length(list.len())?));
        for item in list {
            write(&item, out, form, depth + 1)?;
        }
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        write_dict(dict, out, form, depth)?;
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        return tagged(tag::TUPLE, out, |out| {
            put!(rmp::encode::write_array_len(out, length(tuple.len())?));
            tuple
                .iter()
                .try_for_each(|item| write(&item, out, form, depth + 2))
        });
    } else if let Ok(set) = value.cast_exact::<PySet>() {
        return tagged(tag::SET, out, |out| {
            write_set(set.iter(), set.len(), out, form, depth)
        });
    } else if let Ok(set) = value.cast_exact::<PyFrozenSet>() {
        return tagged(tag::FROZENSET, out, |out| {
            write_set(set.iter(), set.len(), out, form, depth)
        });
    } else if let Ok(bytes) = value.cast_exact::<PyByteArray>() {
        check_depth(depth + 1)?;
        return tagged(tag::BYTEARRAY, out, |out| {
            put!(rmp::encode::write_bin(out, &bytes.to_vec()));
            Ok(())
        });
    } else {
        return write_extension(value, out, depth);
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<()> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(raise(
        "SerializationError",
        format!(
            "a value nests deeper than {MAX_DEPTH} containers, or contains itself; cache something flatter"
        ),
    ))
}

fn length(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| {
        raise(
            "SerializationError",
            "a container has more than 4294967295 items; cache less at once".into(),
        )
    })
}

fn write_str(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> Result<()> {
    let Ok(text) = text.to_str() else {
        return Err(raise(
            "SerializationError",
            "a string has lone surrogates, which UTF-8 cannot hold; encode it to bytes with errors=\"surrogatepass\"".into(),
        ));
    };
    put!(rmp::encode::write_str(out, text));
    Ok(())
}

fn write_int(number: &Bound<'_, PyInt>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if let Ok(number) = number.extract::<i64>() {
        put!(rmp::encode::write_sint(out, number));
    } else if let Ok(number) = number.extract::<u64>() {
        put!(rmp::encode::write_uint(out, number));
    } else {
        check_depth(depth + 1)?;
        let py = number.py();
        // One bit more than its magnitude, for the sign.
        let bits: usize = number.call_method0(intern!(py, "bit_length"))?.extract()?;
        let options = pyo3::types::IntoPyDict::into_py_dict([("signed", true)], py)?;
        let bytes = number.call_method("to_bytes", (bits / 8 + 1, "big"), Some(&options))?;
        let bytes = bytes.cast::<PyBytes>().map_err(PyErr::from)?;
        return tagged(tag::INTEGER, out, |out| {
            put!(rmp::encode::write_bin(out, bytes.as_bytes()));
            Ok(())
        });
    }
    Ok(())
}

fn write_dict(dict: &Bound<'_, PyDict>, out: &mut Vec<u8>, form: Form, depth: usize) -> Result<()> {
    put!(rmp::encode::write_map_len(out, length(dict.len())?));
    if form != Form::Stable {
        for (key, value) in dict {
            write(&key, out, form, depth + 1)?;
            write(&value, out, form, depth + 1)?;
        }
        return Ok(());
    }
    let mut pairs = Vec::with_capacity(dict.len());
    for (key, value) in dict {
        let mut pair = Vec::new();
        write(&key, &mut pair, form, depth + 1)?;
        write(&value, &mut pair, form, depth + 1)?;
        pairs.push(pair);
    }
    pairs.sort_unstable();
    out.extend(pairs.into_iter().flatten());
    Ok(())
}

fn write_set<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    count: usize,
    out: &mut Vec<u8>,
    form: Form,
    depth: usize,
) -> Result<()> {
    put!(rmp::encode::write_array_len(out, length(count)?));
    let mut written = Vec::with_capacity(count);
    for item in items {
        let mut bytes = Vec::new();
        write(&item, &mut bytes, form, depth + 2)?;
        written.push(bytes);
    }
    if form == Form::Stable {
        written.sort_unstable();
    }
    out.extend(written.into_iter().flatten());
    Ok(())
}

fn write_extension(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    // The deepest that any of them is read at: a number in an array in the extension.
    check_depth(depth + 2)?;
    let Some((tag, inner)) = extension::inner(value)? else {
        let type_name = crate::error::type_name(value);
        return Err(raise(
            "SerializationError",
            format!(
                "a value of type {type_name} cannot be cached as it is: convert it to plain data (None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, Decimal, UUID), or open the cache with serializer=\"pickle\" and a secret"
            ),
        ));
    };
    tagged(tag, out, |out| {
        match inner {
            Inner::Text(text) => write_str(&text, out)?,
            Inner::Bytes(bytes) => put!(rmp::encode::write_bin(out, bytes.as_bytes())),
            Inner::Numbers(numbers) => {
                put!(rmp::encode::write_array_len(out, 3));
                for number in numbers {
                    put!(rmp::encode::write_sint(out, number));
                }
            }
        }
        Ok(())
    })
}

/// Appends an extension around the output of `write`. Reserves room for a short header, and widens
/// it if the output is longer.
fn tagged(
    tag: i8,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    const SHORT: usize = 3;
    let start = out.len();
    out.extend_from_slice(&[0; SHORT]);
    write(out)?;
    let held = out.len() - start - SHORT;
    let mut header = Vec::with_capacity(6);
    match u8::try_from(held) {
        // `write_ext_meta` would choose yet shorter headers for some lengths.
        Ok(held) => header.extend_from_slice(&[0xC7, held, tag.cast_unsigned()]),
        Err(_) => {
            put!(rmp::encode::write_ext_meta(&mut header, length(held)?, tag));
        }
    }
    out.splice(start..start + SHORT, header);
    Ok(())
}

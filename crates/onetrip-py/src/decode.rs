//! Payloads as Python values.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use onetrip::internals::codec::{Decode, MAX_DEPTH, Memo, tag};
use onetrip::internals::entry::{BadEntry, Content, Kind, integer};
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};
use rmp::Marker;
use rmp::decode::{RmpRead, read_marker};

use crate::error::is_ordinary;
use crate::extension;
use crate::interned_keys::Names;
use crate::text::text;

/// Reads values for Python.
pub(crate) struct Decoder<'py> {
    py: Python<'py>,
    /// An interruption while a value was read, such as `KeyboardInterrupt`. Must be raised.
    interrupted: RefCell<Option<PyErr>>,
}

impl<'py> Decoder<'py> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        Self {
            py,
            interrupted: RefCell::default(),
        }
    }

    /// Fails if the program was interrupted while values were read.
    pub(crate) fn check(&self) -> PyResult<()> {
        self.interrupted.take().map_or(Ok(()), Err)
    }

    /// Returns `answer`, unless the program was interrupted while it was read.
    pub(crate) fn finish<T>(self, answer: T) -> PyResult<T> {
        match self.interrupted.into_inner() {
            Some(interruption) => Err(interruption),
            None => Ok(answer),
        }
    }

    fn unpickle(&self, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        py.import(intern!(py, "pickle"))?
            .call_method1(intern!(py, "loads"), (PyBytes::new(py, payload),))
    }
}

impl<'py> Decode for Decoder<'py> {
    type Value = Bound<'py, PyAny>;

    fn decode(&self, content: &Content) -> Result<Bound<'py, PyAny>, BadEntry> {
        let payload: &[u8] = &content.payload;
        let read = match content.kind {
            Kind::Bytes => return Ok(PyBytes::new(self.py, payload).into_any()),
            Kind::Str => text(self.py, payload).map(Bound::into_any),
            Kind::Integer => {
                let number = integer(payload).ok_or(BadEntry::Undecodable)?;
                number.into_bound_py_any(self.py)
            }
            Kind::Pickle => self.unpickle(payload),
            Kind::Native => {
                let mut reader = Reader {
                    py: self.py,
                    rest: payload,
                    names: Names::default(),
                };
                match reader.value(0) {
                    Ok(_) if !reader.rest.is_empty() => return Err(BadEntry::Undecodable),
                    Ok(value) => Ok(value),
                    Err(Bad::Bytes) => return Err(BadEntry::Undecodable),
                    Err(Bad::Python(error)) => Err(error),
                }
            }
            _ => return Err(BadEntry::Undecodable),
        };
        read.map_err(|error| {
            if !is_ordinary(self.py, &error) {
                *self.interrupted.borrow_mut() = Some(error);
            }
            BadEntry::Undecodable
        })
    }

    fn memo(&self, value: &Bound<'py, PyAny>) -> Option<Memo> {
        let immutable = value.is_exact_instance_of::<PyString>()
            || value.is_exact_instance_of::<PyBytes>()
            || value.is_exact_instance_of::<PyInt>()
            || value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyBool>()
            || value.is_none();
        immutable.then(|| Arc::new(value.clone().unbind()) as Memo)
    }

    fn recall(&self, memo: &Memo) -> Option<Bound<'py, PyAny>> {
        let kept = memo.downcast_ref::<Py<PyAny>>()?;
        Some(kept.bind(self.py).clone())
    }
}

/// A `Decoder` for callers that release the interpreter, such as waiting coroutines.
#[derive(Default)]
pub(crate) struct Detached {
    interrupted: Mutex<Option<PyErr>>,
}

impl Detached {
    /// Fails if the program was interrupted while values were read.
    pub(crate) fn check(&self) -> PyResult<()> {
        let mut interrupted = self
            .interrupted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        interrupted.take().map_or(Ok(()), Err)
    }

    /// Does what [`Decoder::finish`] does.
    pub(crate) fn finish<T>(self, answer: T) -> PyResult<T> {
        let interrupted = self.interrupted.into_inner();
        match interrupted.unwrap_or_else(PoisonError::into_inner) {
            Some(interruption) => Err(interruption),
            None => Ok(answer),
        }
    }
}

impl Decode for Detached {
    type Value = Py<PyAny>;

    fn decode(&self, content: &Content) -> Result<Py<PyAny>, BadEntry> {
        Python::attach(|py| {
            let decoder = Decoder::new(py);
            let value = decoder.decode(content).map(Bound::unbind);
            if let Err(interruption) = decoder.finish(()) {
                let mut slot = self
                    .interrupted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *slot = Some(interruption);
            }
            value
        })
    }

    fn memo(&self, value: &Py<PyAny>) -> Option<Memo> {
        Python::attach(|py| Decoder::new(py).memo(value.bind(py)))
    }

    fn recall(&self, memo: &Memo) -> Option<Py<PyAny>> {
        Python::attach(|py| Decoder::new(py).recall(memo).map(Bound::unbind))
    }
}

/// Why a payload is not a value.
enum Bad {
    Bytes,
    Python(PyErr),
}

impl From<PyErr> for Bad {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl<E: rmp::decode::RmpReadErr> From<rmp::decode::ValueReadError<E>> for Bad {
    fn from(_: rmp::decode::ValueReadError<E>) -> Self {
        Self::Bytes
    }
}

/// Reads one MessagePack value after another.
struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
    names: Names<'a, 'py>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn value(&mut self, depth: usize) -> Result<Bound<'py, PyAny>, Bad> {
        if depth > MAX_DEPTH {
            return Err(Bad::Bytes);
        }
        let py = self.py;
        Ok(match read_marker(&mut self.rest).map_err(|_| Bad::Bytes)? {
            Marker::Null => py.None().into_bound(py),
            Marker::True => true.into_bound_py_any(py)?,
            Marker::False => false.into_bound_py_any(py)?,
            Marker::FixPos(number) => number.into_bound_py_any(py)?,
            Marker::FixNeg(number) => number.into_bound_py_any(py)?,
            Marker::U8 => self.rest.read_data_u8()?.into_bound_py_any(py)?,
            Marker::U16 => self.rest.read_data_u16()?.into_bound_py_any(py)?,
            Marker::U32 => self.rest.read_data_u32()?.into_bound_py_any(py)?,
            Marker::U64 => self.rest.read_data_u64()?.into_bound_py_any(py)?,
            Marker::I8 => self.rest.read_data_i8()?.into_bound_py_any(py)?,
            Marker::I16 => self.rest.read_data_i16()?.into_bound_py_any(py)?,
            Marker::I32 => self.rest.read_data_i32()?.into_bound_py_any(py)?,
            Marker::I64 => self.rest.read_data_i64()?.into_bound_py_any(py)?,
            Marker::F32 => self.rest.read_data_f32()?.into_bound_py_any(py)?,
            Marker::F64 => self.rest.read_data_f64()?.into_bound_py_any(py)?,
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => {
                let length = self.rest.read_data_u8()?;
                self.text(length.into())?
            }
            Marker::Str16 => {
                let length = self.rest.read_data_u16()?;
                self.text(length.into())?
            }
            Marker::Str32 => {
                let length = self.rest.read_data_u32()?;
                self.text(length)?
            }
            Marker::Bin8 => {
                let length = self.rest.read_data_u8()?;
                self.bytes(length.into())?
            }
            Marker::Bin16 => {
                let length = self.rest.read_data_u16()?;
                self.bytes(length.into())?
            }
            Marker::Bin32 => {
                let length = self.rest.read_data_u32()?;
                self.bytes(length)?
            }
            Marker::FixArray(count) => self.list(count.into(), depth)?,
            Marker::Array16 => {
                let count = self.rest.read_data_u16()?;
                self.list(count.into(), depth)?
            }
            Marker::Array32 => {
                let count = self.rest.read_data_u32()?;
                self.list(count, depth)?
            }
            Marker::FixMap(count) => self.dict(count.into(), depth)?,
            Marker::Map16 => {
                let count = self.rest.read_data_u16()?;
                self.dict(count.into(), depth)?
            }
            Marker::Map32 => {
                let count = self.rest.read_data_u32()?;
                self.dict(count, depth)?
            }
            Marker::FixExt1 => self.extension(1, depth)?,
            Marker::FixExt2 => self.extension(2, depth)?,
            Marker::FixExt4 => self.extension(4, depth)?,
            Marker::FixExt8 => self.extension(8, depth)?,
            Marker::FixExt16 => self.extension(16, depth)?,
            Marker::Ext8 => {
                let length = self.rest.read_data_u8()?;
                self.extension(length.into(), depth)?
            }
            Marker::Ext16 => {
                let length = self.rest.read_data_u16()?;
                self.extension(length.into(), depth)?
            }
            Marker::Ext32 => {
                let length = self.rest.read_data_u32()?;
                self.extension(length, depth)?
            }
            Marker::Reserved => return Err(Bad::Bytes),
        })
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length as usize)
            .ok_or(Bad::Bytes)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, length: u32) -> Result<Bound<'py, PyAny>, Bad> {
        Ok(text(self.py, self.take(length)?)?.into_any())
    }

    fn bytes(&mut self, length: u32) -> Result<Bound<'py, PyAny>, Bad> {
        Ok(PyBytes::new(self.py, self.take(length)?).into_any())
    }

    fn items(&mut self, count: u32, depth: usize) -> Result<Vec<Bound<'py, PyAny>>, Bad> {
        // Each takes a byte at least, so that a damaged count cannot ask for more than there is.
        let count = count as usize;
        if count > self.rest.len() {
            return Err(Bad::Bytes);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(items)
    }

    fn list(&mut self, count: u32, depth: usize) -> Result<Bound<'py, PyAny>, Bad> {
        let items = self.items(count, depth)?;
        Ok(PyList::new(self.py, items)?.into_any())
    }

    fn dict(&mut self, count: u32, depth: usize) -> Result<Bound<'py, PyAny>, Bad> {
        let dict = PyDict::new(self.py);
        self.names.enter_dict();
        for _ in 0..count {
            let key = self.key(depth + 1)?;
            let value = self.value(depth + 1)?;
            dict.set_item(key, value)?;
        }
        Ok(dict.into_any())
    }

    /// Reads a key of a dict, usually a string.
    fn key(&mut self, depth: usize) -> Result<Bound<'py, PyAny>, Bad> {
        let Some(Marker::FixStr(length)) = self.rest.first().map(|byte| Marker::from_u8(*byte))
        else {
            return self.value(depth);
        };
        self.take(1)?;
        let name = self.take(length.into())?;
        Ok(self.names.get(self.py, name)?.into_any())
    }

    fn extension(&mut self, length: u32, depth: usize) -> Result<Bound<'py, PyAny>, Bad> {
        let tag = self.rest.read_data_i8()?;
        let mut held = Reader {
            py: self.py,
            rest: self.take(length)?,
            names: Names::default(),
        };
        let value = match tag {
            tag::TUPLE => PyTuple::new(self.py, held.array(depth + 1)?)?.into_any(),
            tag::SET => PySet::new(self.py, held.array(depth + 1)?)?.into_any(),
            tag::FROZENSET => PyFrozenSet::new(self.py, held.array(depth + 1)?)?.into_any(),
            tag => {
                let inner = held.value(depth + 1)?;
                extension::outer(tag, inner)?.ok_or(Bad::Bytes)?
            }
        };
        // The extension's length must be that of the value it holds.
        if held.rest.is_empty() {
            Ok(value)
        } else {
            Err(Bad::Bytes)
        }
    }

    /// Reads the items of an array within an extension.
    fn array(&mut self, depth: usize) -> Result<Vec<Bound<'py, PyAny>>, Bad> {
        let count = rmp::decode::read_array_len(&mut self.rest)?;
        self.items(count, depth)
    }
}

//! Python's types beyond those of MessagePack, and the extension types that carry them.
//!
//! Each is written as one MessagePack value under a tag of [`onetrip::codec::tag`].

use onetrip::codec::tag;
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyString, PyType};

/// How an extension's value is written within its tag.
pub(crate) enum Inner<'py> {
    Text(Bound<'py, PyString>),
    Bytes(Bound<'py, PyBytes>),
    Numbers([i64; 3]),
}

/// The tag and inner value of an object that is not a container: `None` if it has none.
///
/// Types are told by their names, so that modules which a program does not use are not imported.
pub(crate) fn inner<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<(i8, Inner<'py>)>> {
    let py = value.py();
    let class = value.get_type();
    let (module, name) = (class.module()?, class.qualname()?);
    let text = |value: Bound<'py, PyAny>| -> PyResult<Inner<'py>> {
        Ok(Inner::Text(value.cast_into::<PyString>()?))
    };
    Ok(Some(match (module.to_str()?, name.to_str()?) {
        ("datetime", "datetime") => match datetime(value)? {
            Some(written) => (tag::DATETIME, Inner::Text(written)),
            None => return Ok(None),
        },
        ("datetime", "date") => (
            tag::DATE,
            text(value.call_method0(intern!(py, "isoformat"))?)?,
        ),
        ("datetime", "time") => {
            let zone = value.getattr(intern!(py, "tzinfo"))?;
            if !zone.is_none() && !is_fixed_offset(&zone)? {
                return Ok(None);
            }
            (
                tag::TIME,
                text(value.call_method0(intern!(py, "isoformat"))?)?,
            )
        }
        ("datetime", "timedelta") => {
            let part = |name: &str| -> PyResult<i64> { value.getattr(name)?.extract() };
            (
                tag::TIMEDELTA,
                Inner::Numbers([part("days")?, part("seconds")?, part("microseconds")?]),
            )
        }
        ("decimal", "Decimal") => (tag::DECIMAL, Inner::Text(value.str()?)),
        ("uuid", "UUID") => {
            let bytes = value
                .getattr(intern!(py, "bytes"))?
                .cast_into::<PyBytes>()?;
            (tag::UUID, Inner::Bytes(bytes))
        }
        ("markupsafe", "Markup") => (tag::MARKUP, text(plain(value)?)?),
        _ => return Ok(None),
    }))
}

/// The characters of a subclass of `str`, as a `str`.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    value
        .py()
        .get_type::<PyString>()
        .call_method1("__str__", (value,))
}

fn is_fixed_offset(zone: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = zone.get_type();
    Ok(class.module()?.to_str()? == "datetime" && class.qualname()?.to_str()? == "timezone")
}

/// RFC 9557: the name of the zone in brackets behind its offset. `None` for zones without a name.
fn datetime<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let py = value.py();
    let written = value
        .call_method0(intern!(py, "isoformat"))?
        .cast_into::<PyString>()?;
    let zone = value.getattr(intern!(py, "tzinfo"))?;
    if zone.is_none() || is_fixed_offset(&zone)? {
        return Ok(Some(written));
    }
    if zone.get_type().module()?.to_str()? != "zoneinfo" {
        return Ok(None);
    }
    let name = zone.getattr(intern!(py, "key"))?;
    if name.is_none() {
        return Ok(None);
    }
    Ok(Some(PyString::new(py, &format!("{written}[{name}]"))))
}

/// The object that a tag and its inner value stand for: `None` for an unknown tag.
pub(crate) fn outer<'py>(tag: i8, inner: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = inner.py();
    macro_rules! class {
        ($module:literal, $name:literal) => {{
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            CLASS.import(py, $module, $name)?
        }};
    }
    Ok(Some(match tag {
        tag::INTEGER => {
            let options = [("signed", true)].into_py_dict(py)?;
            class!("builtins", "int").call_method("from_bytes", (inner, "big"), Some(&options))?
        }
        tag::DECIMAL => class!("decimal", "Decimal").call1((inner.cast_into::<PyString>()?,))?,
        tag::UUID => {
            let options = [("bytes", inner.cast_into::<PyBytes>()?)].into_py_dict(py)?;
            class!("uuid", "UUID").call((), Some(&options))?
        }
        tag::DATETIME => read_datetime(
            class!("datetime", "datetime"),
            &inner.cast_into::<PyString>()?,
        )?,
        tag::DATE => class!("datetime", "date").call_method1("fromisoformat", (inner,))?,
        tag::TIME => class!("datetime", "time").call_method1("fromisoformat", (inner,))?,
        tag::TIMEDELTA => {
            let [days, seconds, microseconds]: [i64; 3] = inner.extract()?;
            class!("datetime", "timedelta").call1((days, seconds, microseconds))?
        }
        tag::BYTEARRAY => {
            class!("builtins", "bytearray").call1((inner.cast_into::<PyBytes>()?,))?
        }
        tag::MARKUP => class!("markupsafe", "Markup").call1((inner.cast_into::<PyString>()?,))?,
        _ => return Ok(None),
    }))
}

fn read_datetime<'py>(
    class: &Bound<'py, PyType>,
    text: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    static ZONE_INFO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = text.py();
    let written = text.to_str()?;
    let Some((offset_time, zone)) = written.split_once('[') else {
        return class.call_method1("fromisoformat", (text,));
    };
    let aware = class.call_method1("fromisoformat", (offset_time,))?;
    let zone = ZONE_INFO
        .import(py, "zoneinfo", "ZoneInfo")?
        .call1((zone.trim_end_matches(']'),))?;
    // The same wall clock, in whichever fold has the offset that was written.
    for fold in 0..2 {
        let options = [
            ("tzinfo", zone.clone()),
            ("fold", fold.into_bound_py_any(py)?),
        ]
        .into_py_dict(py)?;
        let local = aware.call_method("replace", (), Some(&options))?;
        if local
            .call_method0("utcoffset")?
            .eq(aware.call_method0("utcoffset")?)?
        {
            return Ok(local);
        }
    }
    // The zone's rules have changed since: the instant counts.
    aware.call_method1("astimezone", (zone,))
}

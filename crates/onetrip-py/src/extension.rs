//! Python's types beyond those of MessagePack, and the extension types that carry them.
//!
//! Each is written as one MessagePack value under a tag of [`onetrip::internals::codec::tag`].

use onetrip::internals::codec::tag;
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

/// Returns the tag and inner value of an object that is not a container, or `None`.
///
/// Compares types by name, so that no unused module is imported.
pub(crate) fn inner<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<(i8, Inner<'py>)>> {
    let py = value.py();
    let class = value.get_type();
    // A class may say anything of where it comes from.
    let (Ok(module), Ok(name)) = (class.module(), class.qualname()) else {
        return Ok(None);
    };
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
            (tag::TIME, Inner::Text(written(value, "")?))
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

/// Returns a subclass of `str` as a plain `str`.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    value
        .py()
        .get_type::<PyString>()
        .call_method1("__str__", (value,))
}

/// Returns whether the `__module__` of a class is `module`.
fn is_of(class: &Bound<'_, PyType>, module: &str) -> PyResult<bool> {
    class
        .module()
        .map_or(Ok(false), |named| Ok(named.to_str()? == module))
}

fn is_fixed_offset(zone: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = zone.get_type();
    Ok(is_of(&class, "datetime")? && class.qualname()?.to_str()? == "timezone")
}

/// Returns the zone's name in brackets (RFC 9557), or `None` if the zone has no name.
fn datetime<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let zone = value.getattr(intern!(value.py(), "tzinfo"))?;
    if zone.is_none() || is_fixed_offset(&zone)? {
        return Ok(Some(written(value, "")?));
    }
    if !is_of(&zone.get_type(), "zoneinfo")? {
        return Ok(None);
    }
    let name = zone.getattr(intern!(value.py(), "key"))?;
    if name.is_none() {
        return Ok(None);
    }
    Ok(Some(written(value, &format!("[{name}]"))?))
}

/// Suffix of a time with `fold=1`, the second of two equal wall times. RFC 9557 leaves tags with a
/// leading underscore to applications.
const FOLD: &str = "[_fold=1]";

/// Returns a time in ISO 8601, followed by `zone` and the fold if it is set.
fn written<'py>(value: &Bound<'py, PyAny>, zone: &str) -> PyResult<Bound<'py, PyString>> {
    let py = value.py();
    let time = value.call_method0(intern!(py, "isoformat"))?;
    let fold: u8 = value.getattr(intern!(py, "fold"))?.extract()?;
    let fold = if fold == 1 { FOLD } else { "" };
    Ok(PyString::new(py, &format!("{time}{zone}{fold}")))
}

/// Reads what [`written`] wrote: the time and, in brackets, its zone.
fn read_time<'py>(
    class: &Bound<'py, PyType>,
    text: &str,
) -> PyResult<(Bound<'py, PyAny>, Option<String>)> {
    let (text, fold) = match text.strip_suffix(FOLD) {
        Some(text) => (text, 1),
        None => (text, 0),
    };
    let (time, zone) = match text.split_once('[') {
        Some((time, zone)) => (time, Some(zone.trim_end_matches(']').to_owned())),
        None => (text, None),
    };
    let offset = tiny_offset(time);
    let clock = offset.map_or(time, |(clock, _)| clock);
    let mut time = class.call_method1("fromisoformat", (clock,))?;
    if let Some((_, microseconds)) = offset {
        let module = class.py().import("datetime")?;
        let offset = module.call_method1("timedelta", (0, 0, microseconds))?;
        let options = [("tzinfo", module.call_method1("timezone", (offset,))?)];
        let options = options.into_py_dict(class.py())?;
        time = time.call_method("replace", (), Some(&options))?;
    }
    if fold == 0 {
        return Ok((time, zone));
    }
    let options = [("fold", fold)].into_py_dict(class.py())?;
    Ok((time.call_method("replace", (), Some(&options))?, zone))
}

/// Splits off an offset below one second, in microseconds. Python's `fromisoformat` ignores such an
/// offset.
fn tiny_offset(time: &str) -> Option<(&str, i32)> {
    let (clock, digits) = time.rsplit_once("00:00:00.")?;
    let microseconds: i32 = digits.parse().ok()?;
    match clock.strip_suffix('-') {
        Some(clock) => Some((clock, -microseconds)),
        None => Some((clock.strip_suffix('+')?, microseconds)),
    }
}

/// Returns the object of a tag and its inner value, or `None` for an unknown tag.
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
            inner.cast_into::<PyString>()?.to_str()?,
        )?,
        tag::DATE => class!("datetime", "date").call_method1("fromisoformat", (inner,))?,
        tag::TIME => {
            read_time(
                class!("datetime", "time"),
                inner.cast_into::<PyString>()?.to_str()?,
            )?
            .0
        }
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

fn read_datetime<'py>(class: &Bound<'py, PyType>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static ZONE_INFO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = class.py();
    let (aware, zone) = read_time(class, text)?;
    let Some(zone) = zone else {
        return Ok(aware);
    };
    let zone = ZONE_INFO
        .import(py, "zoneinfo", "ZoneInfo")?
        .call1((zone,))?;
    let options = [("tzinfo", zone.clone())].into_py_dict(py)?;
    let local = aware.call_method("replace", (), Some(&options))?;
    let offset = intern!(py, "utcoffset");
    if local
        .call_method0(offset)?
        .eq(aware.call_method0(offset)?)?
    {
        return Ok(local);
    }
    // The zone's rules have changed since: the instant counts.
    aware.call_method1("astimezone", (zone,))
}

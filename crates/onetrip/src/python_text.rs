//! The text of values in keys, the same in Python and in Rust.
//!
//! For most values `Display` in Rust equals `str` in Python. This module writes the others as
//! Python does.

use std::fmt::Write;

/// Appends a number as Python writes it: `1.0`, `1e+16`, `1e-05`, `nan`.
pub(crate) fn append_float(number: f64, out: &mut String) {
    if number.is_nan() {
        return out.push_str("nan");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { "inf" } else { "-inf" });
    }
    // The shortest digits that give this number, as in Python.
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let written = if (-4..16).contains(&exponent) {
        write!(out, "{number:?}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs())
    };
    written.unwrap_or_else(|never| unreachable!("{never}: writing to a string never fails"));
}

/// Appends a boolean as Python writes it.
pub(crate) fn append_bool(truth: bool, out: &mut String) {
    out.push_str(if truth { "True" } else { "False" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(number: f64) -> String {
        let mut out = String::new();
        append_float(number, &mut out);
        out
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // From Python's `str`.
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456_789.125, "123456789.125"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e22, "1e+22"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}

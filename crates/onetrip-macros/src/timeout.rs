//! The ttl of results: `"60s"`, `"5m"`, seconds as a number, or any expression.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Result};

const EXPECTED: &str = "a timeout is a duration such as \"500ms\", \"60s\", \"5m\", \"2h\" or \"7d\", seconds as a number, or an expression that converts into an onetrip::Ttl";

/// Returns an expression that makes the `Ttl`.
pub(crate) fn expression(timeout: Option<&Expr>) -> Result<TokenStream> {
    let Some(timeout) = timeout else {
        return Ok(quote!(::onetrip::Ttl::Default));
    };
    let refuse = || Err(Error::new_spanned(timeout, EXPECTED));
    let nanoseconds = match timeout {
        Expr::Lit(ExprLit { lit, .. }) => match lit {
            Lit::Str(span) => span_of(span)?,
            Lit::Int(seconds) => seconds.base10_parse::<u64>()?.checked_mul(1_000_000_000),
            Lit::Float(seconds) => decimal(seconds.base10_digits(), 1_000_000_000),
            _ => return refuse(),
        },
        Expr::Unary(_) => return refuse(),
        other => return Ok(quote!(::core::convert::Into::<::onetrip::Ttl>::into(#other))),
    };
    match nanoseconds {
        Some(nanoseconds) => Ok(quote! {
            ::onetrip::Ttl::After(::core::time::Duration::from_nanos(#nanoseconds))
        }),
        None => refuse(),
    }
}

fn span_of(written: &LitStr) -> Result<Option<u64>> {
    let text = written.value();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(Error::new(written.span(), EXPECTED)),
    };
    Ok(decimal(digits, unit))
}

/// Converts a decimal number of units of `unit` nanoseconds, exactly. Finer parts are cut off.
fn decimal(digits: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !whole.is_empty() && (whole.len() == digits.len() || !fraction.is_empty());
    if !is_number || !(whole.bytes().chain(fraction.bytes())).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let mut nanoseconds = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut unit = unit;
    for digit in fraction.bytes() {
        unit /= 10;
        nanoseconds = nanoseconds.checked_add(unit * u64::from(digit - b'0'))?;
    }
    Some(nanoseconds)
}

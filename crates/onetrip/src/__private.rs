//! What the code that `#[onetrip::cached]` writes calls. Nobody else should.

use std::fmt::{Display, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::drive::Fetching;
use crate::error::{Error, Result};
use crate::key;
use crate::policy::Ttl;
use crate::python_text::{append_bool, append_float};

/// Logs an error that a function has no way to return: it goes on as after a miss.
pub fn untold(key: &str, error: &Error) {
    log::warn!(
        "the cached result {:?} was neither read nor stored: {error}",
        key::display(key.as_bytes())
    );
}

fn fetching(key: &str, ttl: Ttl, refresh: bool) -> Fetching<'_> {
    Fetching {
        refresh,
        ..Fetching::new(key.as_bytes(), ttl)
    }
}

/// Reads a result, or computes and stores it. An error of the cache goes to `failed`.
pub async fn fetch<T, E, F>(
    cache: &Cache,
    key: &str,
    ttl: Ttl,
    refresh: bool,
    make: impl FnOnce() -> F,
    failed: impl Fn(Error) -> Result<(), E>,
) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    F: Future<Output = Result<T, E>>,
{
    let what = fetching(key, ttl, refresh);
    cache.fetch_awaiting(what, make, failed).await
}

/// The same for threads.
pub fn fetch_blocking<T: Serialize + DeserializeOwned, E>(
    cache: &Cache,
    key: &str,
    ttl: Ttl,
    refresh: bool,
    make: impl FnOnce() -> Result<T, E>,
    failed: impl Fn(Error) -> Result<(), E>,
) -> Result<T, E> {
    cache.fetch_blocking(fetching(key, ttl, refresh), make, failed)
}

/// Removes a result; whether there was one.
pub async fn remove(cache: &Cache, key: &str) -> Result<bool> {
    cache.delete(key).await
}

/// The same for threads.
pub fn remove_blocking(cache: &Cache, key: &str) -> Result<bool> {
    cache.blocking().delete(key)
}

/// A field of a key's format, in what `#[cached]` writes.
///
/// `(&Part(&value)).append(…)` finds [`PythonPart`] first, where it is implemented, and otherwise
/// [`DisplayPart`]: what a method is called on is looked at before a reference to it is.
#[derive(Debug)]
pub struct Part<'a, T: ?Sized>(pub &'a T);

/// What Python writes in another way than `Display`.
pub trait PythonPart {
    /// Appends it to a key.
    fn append(&self, out: &mut String);
}

/// What says its own text.
pub trait DisplayPart {
    /// Appends it to a key.
    fn append(&self, out: &mut String);
}

impl<T: Display + ?Sized> DisplayPart for &Part<'_, T> {
    fn append(&self, out: &mut String) {
        write!(out, "{}", self.0).unwrap_or_else(|_| {
            unreachable!("a string takes every text, and Display has no failures of its own")
        });
    }
}

macro_rules! python_parts {
    ($($type:ty: |$value:ident, $out:ident| $append:expr;)+) => {$(
        impl PythonPart for Part<'_, $type> {
            fn append(&self, $out: &mut String) {
                let $value = *self.0;
                $append
            }
        }

        impl PythonPart for Part<'_, &$type> {
            fn append(&self, out: &mut String) {
                Part(*self.0).append(out);
            }
        }
    )+};
}

python_parts! {
    bool: |truth, out| append_bool(truth, out);
    f64: |number, out| append_float(number, out);
    f32: |number, out| append_float(f64::from(number), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::needless_borrow,
        reason = "as the macro writes it: what is borrowed decides which trait is found"
    )]
    #[test]
    fn a_part_is_written_as_python_does_where_it_does_otherwise() {
        let mut out = String::new();
        let (truth, half) = (&true, 0.5_f32);
        (&Part(&truth)).append(&mut out);
        (&Part(&half)).append(&mut out);
        (&Part("text")).append(&mut out);
        (&Part(&7_u8)).append(&mut out);
        assert_eq!(out, "True0.5text7");
    }
}

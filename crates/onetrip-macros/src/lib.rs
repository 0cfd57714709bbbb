//! The attribute `#[onetrip::cached]`, which `onetrip` exports with its feature `macros` and
//! documents there.

mod expand;
mod function;
mod key;
mod options;
#[cfg(test)]
mod tests;
mod timeout;

use proc_macro::TokenStream;

/// Keeps the results of a function in a cache; `onetrip::cached` tells how.
#[proc_macro_attribute]
pub fn cached(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(options.into(), function.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}

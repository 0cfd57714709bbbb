//! The attribute `#[onetrip::cached]`. `onetrip` exports and documents it under its feature
//! `macros`.

mod expand;
mod function;
mod key;
mod options;
#[cfg(test)]
mod tests;
mod timeout;

use proc_macro::TokenStream;

/// Caches the results of a function; documented at `onetrip::cached`.
#[proc_macro_attribute]
pub fn cached(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(options.into(), function.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}

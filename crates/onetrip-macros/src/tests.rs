//! What is refused, and what is said then.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand::expand;

/// The error of `#[cached(options)] function`.
fn refused(options: TokenStream, function: TokenStream) -> String {
    match expand(options, function) {
        Ok(written) => panic!("it was taken: {written}"),
        Err(error) => error.to_string(),
    }
}

/// The error of these options on a function that may be cached.
fn refused_options(options: TokenStream) -> String {
    refused(
        options,
        quote! { fn markup(cache: &Cache, note: &Note, n: u8) -> String {} },
    )
}

/// The error of good options on this function.
fn refused_function(function: TokenStream) -> String {
    refused(quote!(cache = CACHE, key = String::new()), function)
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn options_are_checked() {
    for (options, said) in [
        (
            quote!(key = "{n}", ttl = 5),
            "cached has no option ttl; there are cache, key, timeout and map_err",
        ),
        (quote!(key = "{n}", key = "{n}"), "key is given twice"),
        (quote!(key), "an option is written key = …"),
        (quote!(key("{n}")), "an option is written key = …"),
        (
            quote!(key = "{n}", map_err = Into::into),
            "this function returns none",
        ),
    ] {
        says(&refused_options(options), &[said]);
    }
}

#[test]
fn a_key_is_checked() {
    for (options, said) in [
        (
            quote!(),
            "markup needs a key: name arguments of it in braces, as in key = \"markup:{note}\"",
        ),
        (
            quote!(key = "all"),
            "so all calls would share one result: name arguments",
        ),
        (quote!(key = "all"), "key = String::from(\"all\")"),
        (
            quote!(key = "note:{id}"),
            "names id, which is no argument of markup (it has note, n)",
        ),
        (quote!(key = "note:{note.id"), "a brace is not closed"),
        (quote!(key = "note:n}"), "a brace is not opened"),
        (quote!(key = "note:{n:>5}"), "format specification"),
        (quote!(key = "note:{n!r}"), "format specification"),
        (quote!(key = "note:{}"), "{} is not an argument"),
        (quote!(key = "note:{n + 1}"), "{n + 1} is not an argument"),
        (
            quote!(key = "note:{note[0]}"),
            "{note[0]} is not an argument",
        ),
        (
            quote!(key = "note:{note.of(n)}"),
            "{note.of(n)} is not an argument",
        ),
    ] {
        says(&refused_options(options), &[said]);
    }
    let method = quote! { fn markup(&self) -> String {} };
    says(
        &refused(quote!(cache = C), method),
        &["key = \"markup:{self.id}\""],
    );
    let plain = quote! { fn all() -> String {} };
    says(
        &refused(quote!(cache = C), plain),
        &["all needs a key: such as key = \"all\""],
    );
}

#[test]
fn a_cache_is_asked_for() {
    let message = refused(
        quote!(key = "{n}"),
        quote! { fn markup(n: u8) -> String {} },
    );
    says(
        &message,
        &[
            "markup needs a cache",
            "cache = CACHE",
            "cache: &onetrip::Cache",
        ],
    );
}

#[test]
fn a_timeout_is_checked() {
    for timeout in [
        quote!("60"),
        quote!("s"),
        quote!("5 m"),
        quote!("5y"),
        quote!("-5s"),
        quote!("1.s"),
        quote!(".5s"),
        quote!("1e3s"),
        quote!("999999999999999d"),
        quote!(-5),
        quote!(true),
    ] {
        let message = refused_options(quote!(key = "{n}", timeout = #timeout));
        says(
            &message,
            &[
                "a timeout is a span such as",
                "\"5m\"",
                "seconds as a number",
            ],
        );
    }
}

#[test]
fn a_function_is_checked() {
    for (function, said) in [
        (quote! { struct Note; }, "cached stands above a function"),
        (quote! { fn f() {} }, "returns nothing that could be cached"),
        (
            quote! { fn f() -> () {} },
            "returns nothing that could be cached",
        ),
        (
            quote! { fn f() -> Result<(), E> {} },
            "returns nothing that could be cached",
        ),
        (
            quote! { fn f() -> &'static str {} },
            "return what owns its data, such as String",
        ),
        (
            quote! { fn f() -> Result<&str, E> {} },
            "return what owns its data",
        ),
        (quote! { fn f() -> impl Display {} }, "has to be named"),
        (quote! { fn f() -> Result {} }, "Result<String, Error>"),
        (
            quote! { const fn f() -> u8 {} },
            "a const fn has no cache at hand",
        ),
        (quote! { unsafe fn f() -> u8 {} }, "cache a safe one"),
        (quote! { extern "C" fn f() -> u8 {} }, "an extern function"),
    ] {
        says(&refused_function(function), &[said]);
    }
}

//! Tests of what is error_of, and with which message.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand::expand;

/// Returns the error of `#[cached(options)] function`.
fn error_of(options: TokenStream, function: TokenStream) -> String {
    match expand(options, function) {
        Ok(written) => panic!("it was taken: {written}"),
        Err(error) => error.to_string(),
    }
}

/// Returns the error of these options on a valid function.
fn error_of_options(options: TokenStream) -> String {
    error_of(
        options,
        quote! { fn markup(cache: &Cache, note: &Note, n: u8) -> String {} },
    )
}

/// Returns the error of valid options on this function.
fn error_of_function(function: TokenStream) -> String {
    error_of(quote!(cache = CACHE, key = String::new()), function)
}

#[track_caller]
fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn options_are_checked() {
    for (options, said) in [
        (
            quote!(key = "{n}", ttl = 5),
            "cached has no option ttl; it has cache, key, timeout and map_err",
        ),
        (quote!(key = "{n}", key = "{n}"), "key is given twice"),
        (quote!(key), "write this option as key = …"),
        (quote!(key("{n}")), "write this option as key = …"),
        (
            quote!(key = "{n}", map_err = Into::into),
            "this function does not return a Result",
        ),
    ] {
        assert_contains(&error_of_options(options), &[said]);
    }
}

#[test]
fn key_is_checked() {
    for (options, said) in [
        (
            quote!(),
            "markup needs a key: name its arguments in braces, as in key = \"markup:{note}\"",
        ),
        (
            quote!(key = "all"),
            "so all calls would share one result: name its arguments",
        ),
        (quote!(key = "all"), "key = String::from(\"all\")"),
        (
            quote!(key = "note:{id}"),
            "names id, which is not an argument of markup (it has note, n)",
        ),
        (quote!(key = "note:{note.id"), "an unclosed brace"),
        (quote!(key = "note:n}"), "an unopened brace"),
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
        assert_contains(&error_of_options(options), &[said]);
    }
    let method = quote! { fn markup(&self) -> String {} };
    assert_contains(
        &error_of(quote!(cache = C), method),
        &["key = \"markup:{self.id}\""],
    );
    let plain = quote! { fn all() -> String {} };
    assert_contains(
        &error_of(quote!(cache = C), plain),
        &["all needs a key: such as key = \"all\""],
    );
}

#[test]
fn cache_is_required() {
    let message = error_of(
        quote!(key = "{n}"),
        quote! { fn markup(n: u8) -> String {} },
    );
    assert_contains(
        &message,
        &[
            "markup needs a cache",
            "cache = CACHE",
            "cache: &onetrip::Cache",
        ],
    );
}

#[test]
fn timeout_is_checked() {
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
        let message = error_of_options(quote!(key = "{n}", timeout = #timeout));
        assert_contains(
            &message,
            &[
                "a timeout is a duration such as",
                "\"5m\"",
                "seconds as a number",
            ],
        );
    }
}

#[test]
fn function_is_checked() {
    for (function, said) in [
        (quote! { struct Note; }, "cached belongs on a function"),
        (quote! { fn f() {} }, "returns nothing to cache"),
        (quote! { fn f() -> () {} }, "returns nothing to cache"),
        (
            quote! { fn f() -> Result<(), E> {} },
            "returns nothing to cache",
        ),
        (
            quote! { fn f() -> &'static str {} },
            "return an owned type, such as String",
        ),
        (
            quote! { fn f() -> Result<&str, E> {} },
            "return an owned type",
        ),
        (quote! { fn f() -> impl Display {} }, "must be named"),
        (quote! { fn f() -> Result {} }, "Result<String, Error>"),
        (
            quote! { const fn f() -> u8 {} },
            "a const fn cannot be cached",
        ),
        (quote! { unsafe fn f() -> u8 {} }, "cache a safe function"),
        (quote! { extern "C" fn f() -> u8 {} }, "an extern function"),
    ] {
        assert_contains(&error_of_function(function), &[said]);
    }
}

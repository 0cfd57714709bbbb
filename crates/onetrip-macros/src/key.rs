//! Keys of calls: a format over the arguments, or any expression.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Error, Expr, ExprLit, Lit, LitStr, Member, Result};

use crate::function::Function;

/// The key of a call.
pub(crate) struct Key {
    /// An expression of type `String`.
    pub(crate) expression: TokenStream,
    /// The part that the user wrote, which may name arguments.
    pub(crate) written: TokenStream,
}

impl Key {
    pub(crate) fn new(key: Option<&Expr>, function: &Function) -> Result<Self> {
        let Some(key) = key else {
            let message = format!("{} needs a key: {}", function.name(), advice(function));
            return Err(Error::new(function.name().span(), message));
        };
        match key {
            Expr::Lit(ExprLit {
                lit: Lit::Str(format),
                ..
            }) => formatted(format, function),
            other => Ok(Self {
                expression: quote!(::std::string::String::from(#other)),
                written: quote!(#other),
            }),
        }
    }
}

/// Suggests a key for this function.
fn advice(function: &Function) -> String {
    let name = function.name();
    match function.key_arguments().first() {
        Some(first) if *first == "self" => {
            format!("name what it depends on in braces, as in key = \"{name}:{{self.id}}\"")
        }
        Some(first) => {
            format!("name its arguments in braces, as in key = \"{name}:{{{first}}}\"")
        }
        None => format!("such as key = \"{name}\""),
    }
}

fn formatted(format: &LitStr, function: &Function) -> Result<Key> {
    let refuse = |message: String| Error::new(format.span(), message);
    // These names cannot clash with arguments.
    let here = Span::mixed_site();
    let mut pieces = Vec::new();
    let mut written = Vec::new();
    for piece in split(&format.value()).map_err(refuse)? {
        match piece {
            Piece::Text(text) => pieces.push(quote_spanned!(here=> text.push_str(#text);)),
            Piece::Field(field) => {
                let value = parse_field(&field, format, function)?;
                let span = here.located_at(format.span());
                pieces.push(quote_spanned!(span=> (&Part(&#value)).append(&mut text);));
                written.push(value);
            }
        }
    }
    if written.is_empty() && !function.key_arguments().is_empty() {
        return Err(refuse(format!(
            "this key names no argument, so all calls would share one result: {}; if they should, write an expression, key = String::from({:?})",
            advice(function),
            format.value(),
        )));
    }
    let expression = quote_spanned! {here=> {
        #[allow(unused_imports)]
        use ::onetrip::__private::{DisplayPart as _, Part, PythonPart as _};
        let mut text = ::std::string::String::new();
        #(#pieces)*
        text
    }};
    Ok(Key {
        expression,
        written: quote!(#(#written)*),
    })
}

enum Piece {
    Text(String),
    Field(String),
}

/// Splits a format as Python and Rust both read it: `{{` and `}}` are braces.
fn split(format: &str) -> std::result::Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else if let Some(after) = from.strip_prefix('{') {
            let Some((field, after)) = after.split_once('}') else {
                return Err("this key has an unclosed brace; write {{ for a literal brace".into());
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Field(field.trim().to_owned()));
            rest = after;
        } else {
            return Err("this key has an unopened brace; write }} for a literal brace".into());
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// Parses a field: an argument, followed by fields or methods without arguments.
fn parse_field(field: &str, format: &LitStr, function: &Function) -> Result<Expr> {
    let refuse = |message: String| Err(Error::new(format.span(), message));
    if field.contains([':', '!']) {
        return refuse(format!(
            "{{{field}}} has a format specification, which Python and Rust read differently; write an expression, key = format!(…)"
        ));
    }
    let value = LitStr::new(field, format.span()).parse::<Expr>();
    let Some((root, value)) = value.ok().and_then(|value| Some((root(&value)?, value))) else {
        return refuse(format!(
            "{{{field}}} is not an argument, or a field of one as in {{note.id}}; write an expression, key = format!(…)"
        ));
    };
    if !function.has(&root) {
        let has = function.key_arguments();
        let has = if has.is_empty() {
            "none".to_owned()
        } else {
            has.join(", ")
        };
        return refuse(format!(
            "this key names {root}, which is not an argument of {} (it has {has})",
            function.name()
        ));
    }
    Ok(value)
}

/// Returns the argument that `value` begins with; `None` if it has other parts than fields and
/// methods without arguments.
fn root(value: &Expr) -> Option<Ident> {
    match value {
        Expr::Path(path) => path.path.get_ident().cloned(),
        Expr::Field(field) => match field.member {
            Member::Named(_) | Member::Unnamed(_) => root(&field.base),
        },
        Expr::MethodCall(call) if call.args.is_empty() && call.turbofish.is_none() => {
            root(&call.receiver)
        }
        _ => None,
    }
}

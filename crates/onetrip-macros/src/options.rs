//! The options in the parentheses of `#[cached(…)]`.

use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, Ident, Result, Token};

const ALL: &str = "cache, key, timeout and map_err";

/// The options of a cached function, as written.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) cache: Option<Expr>,
    pub(crate) key: Option<Expr>,
    pub(crate) timeout: Option<Expr>,
    pub(crate) map_err: Option<Expr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let option = match name.to_string().as_str() {
                "cache" => &mut options.cache,
                "key" => &mut options.key,
                "timeout" => &mut options.timeout,
                "map_err" => &mut options.map_err,
                other => {
                    let message = format!("cached has no option {other}; it has {ALL}");
                    return Err(Error::new(name.span(), message));
                }
            };
            if option.is_some() {
                let message = format!("{name} is given twice; keep one");
                return Err(Error::new(name.span(), message));
            }
            if !input.peek(Token![=]) {
                let message = format!("write this option as {name} = …");
                return Err(Error::new(name.span(), message));
            }
            input.parse::<Token![=]>()?;
            *option = Some(match input.parse()? {
                // Tokens passed on by another macro come in an invisible group.
                Expr::Group(group) => *group.expr,
                value => value,
            });
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

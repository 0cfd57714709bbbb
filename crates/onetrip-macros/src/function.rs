//! Parses the function to cache.

use std::collections::HashSet;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident};
use syn::{
    Error, FnArg, GenericArgument, GenericParam, Generics, ItemFn, Pat, PatType, PathArguments,
    Receiver, Result, ReturnType, Safety, Type,
};

/// A function to cache.
pub(crate) struct Function {
    pub(crate) item: ItemFn,
    /// The argument named `cache`, used unless another cache is given.
    pub(crate) cache: Option<Ident>,
    inputs: Vec<Input>,
    pub(crate) returns: Returns,
}

/// An argument with a name.
struct Input {
    name: Ident,
    argument: FnArg,
}

/// The return type.
pub(crate) struct Returns {
    /// The type that is stored.
    pub(crate) value: Type,
    /// Whether it is the `Ok` type of a `Result`.
    pub(crate) is_result: bool,
}

impl Function {
    pub(crate) fn new(item: ItemFn) -> Result<Self> {
        let signature = &item.sig;
        let refuse = |what: &dyn ToTokens, message: &str| Err(Error::new_spanned(what, message));
        if let Some(word) = &signature.constness {
            return refuse(word, "a const fn cannot be cached; remove const");
        }
        if let Some(word) = &signature.abi {
            return refuse(
                word,
                "an extern function cannot be cached; cache a function that it calls",
            );
        }
        if let Safety::Unsafe(word) = &signature.safety {
            return refuse(
                word,
                "an unsafe function cannot be cached, since its callers would not see its safety conditions; cache a safe function that calls it",
            );
        }
        let returns = Returns::new(&signature.output, signature.ident.span())?;
        let inputs: Vec<Input> = signature
            .inputs
            .iter()
            .enumerate()
            .map(|(index, argument)| Input::new(index, argument))
            .collect();
        let cache = inputs
            .iter()
            .map(|input| input.name.clone())
            .find(|name| name == "cache");
        Ok(Self {
            item,
            cache,
            inputs,
            returns,
        })
    }

    pub(crate) fn name(&self) -> &Ident {
        &self.item.sig.ident
    }

    /// Returns `self`, if this is a method.
    pub(crate) fn receiver(&self) -> Option<&Ident> {
        let mut inputs = self.inputs.iter();
        let receiver = inputs.find(|input| matches!(input.argument, FnArg::Receiver(_)));
        receiver.map(|input| &input.name)
    }

    pub(crate) fn has(&self, name: &Ident) -> bool {
        self.inputs.iter().any(|input| input.name == *name)
    }

    /// Returns the arguments that a result may depend on: all but the cache.
    pub(crate) fn key_arguments(&self) -> Vec<String> {
        let names = self.inputs.iter().map(|input| &input.name);
        names
            .filter(|name| Some(*name) != self.cache.as_ref())
            .map(Ident::to_string)
            .collect()
    }

    /// Returns all arguments, as declared and as passed on.
    pub(crate) fn arguments(&self) -> (Vec<&FnArg>, Vec<&Ident>) {
        let named = |input: &&Input| !matches!(input.argument, FnArg::Receiver(_));
        (
            self.inputs.iter().map(|input| &input.argument).collect(),
            self.inputs
                .iter()
                .filter(named)
                .map(|input| &input.name)
                .collect(),
        )
    }

    /// Returns the arguments that these expressions name, except `self`.
    pub(crate) fn named(&self, expressions: &[&TokenStream]) -> Vec<&Ident> {
        let inputs = self.inputs_in(expressions).into_iter();
        inputs
            .filter(|input| !matches!(input.argument, FnArg::Receiver(_)))
            .map(|input| &input.name)
            .collect()
    }

    /// Returns the declarations of the same arguments, with `self`, and the generics they need.
    pub(crate) fn narrowed(&self, expressions: &[&TokenStream]) -> (Vec<&FnArg>, Generics) {
        let inputs = self.inputs_in(expressions).into_iter();
        let arguments: Vec<&FnArg> = inputs.map(|input| &input.argument).collect();
        let generics = narrow(&self.item.sig.generics, &arguments);
        (arguments, generics)
    }

    fn inputs_in(&self, expressions: &[&TokenStream]) -> Vec<&Input> {
        let mut named = HashSet::new();
        for expression in expressions {
            names((*expression).clone(), &mut named);
        }
        let inputs = self.inputs.iter();
        inputs
            .filter(|input| named.contains(&input.name.to_string()))
            .collect()
    }
}

impl Input {
    fn new(index: usize, argument: &FnArg) -> Self {
        match argument {
            FnArg::Receiver(receiver) => Self {
                name: Ident::new("self", receiver.self_token.span),
                argument: FnArg::Receiver(plain(receiver)),
            },
            FnArg::Typed(typed) => {
                let name = match &*typed.pat {
                    Pat::Ident(pattern) if pattern.subpat.is_none() => pattern.ident.clone(),
                    // The function that computes matches the pattern.
                    _ => format_ident!("argument_{index}"),
                };
                let pat = Box::new(syn::parse_quote!(#name));
                Self {
                    argument: FnArg::Typed(PatType {
                        attrs: Vec::new(),
                        pat,
                        colon_token: typed.colon_token,
                        ty: typed.ty.clone(),
                    }),
                    name,
                }
            }
        }
    }
}

/// Returns the receiver without `mut`: `mut self` becomes `self`.
fn plain(receiver: &Receiver) -> Receiver {
    let mut receiver = receiver.clone();
    receiver.mutability = None;
    receiver
}

impl Returns {
    fn new(output: &ReturnType, function: Span) -> Result<Self> {
        let refuse = |what: &dyn ToTokens, message: &str| Err(Error::new_spanned(what, message));
        let ReturnType::Type(_, whole) = output else {
            return Err(Error::new(
                function,
                "this function returns nothing to cache; return a value",
            ));
        };
        let is_result = last_segment(whole).is_some_and(|segment| segment.ident == "Result");
        let value = if is_result {
            let first = last_segment(whole).and_then(|segment| match &segment.arguments {
                PathArguments::AngleBracketed(list) => {
                    list.args.iter().find_map(|argument| match argument {
                        GenericArgument::Type(value) => Some(value.clone()),
                        _ => None,
                    })
                }
                _ => None,
            });
            match first {
                Some(value) => value,
                None => {
                    return refuse(
                        whole,
                        "name the cached type here, as in Result<String, Error>",
                    );
                }
            }
        } else {
            (**whole).clone()
        };
        match &value {
            Type::ImplTrait(_) => refuse(
                &value,
                "the cached type must be named, since results are read back from the cache; return a type that serde can serialize and deserialize",
            ),
            Type::Reference(_) => refuse(
                &value,
                "a borrow cannot be cached; return an owned type, such as String instead of &str",
            ),
            Type::Tuple(tuple) if tuple.elems.is_empty() => refuse(
                &value,
                "this function returns nothing to cache; return a value",
            ),
            _ => Ok(Self { value, is_result }),
        }
    }
}

fn last_segment(of: &Type) -> Option<&syn::PathSegment> {
    match of {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// Returns the generics that `arguments` need. Unneeded ones could not be inferred at calls.
fn narrow(generics: &Generics, arguments: &[&FnArg]) -> Generics {
    let mut used = HashSet::new();
    for argument in arguments {
        names(argument.to_token_stream(), &mut used);
    }
    let mut dropped = HashSet::new();
    let mut narrowed = generics.clone();
    narrowed.params = generics
        .params
        .iter()
        .filter(|parameter| {
            let name = match parameter {
                GenericParam::Type(parameter) => parameter.ident.to_string(),
                GenericParam::Const(parameter) => parameter.ident.to_string(),
                GenericParam::Lifetime(_) => return true,
            };
            let is_used = used.contains(&name);
            if !is_used {
                dropped.insert(name);
            }
            is_used
        })
        .cloned()
        .collect();
    if let Some(clause) = &mut narrowed.where_clause {
        clause.predicates = std::mem::take(&mut clause.predicates)
            .into_iter()
            .filter(|predicate| {
                let mut named = HashSet::new();
                names(predicate.to_token_stream(), &mut named);
                named.is_disjoint(&dropped)
            })
            .collect();
    }
    narrowed
}

/// Collects every identifier in `tokens`, at any depth.
fn names(tokens: TokenStream, found: &mut HashSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                found.insert(name.to_string());
            }
            TokenTree::Group(group) => names(group.stream(), found),
            _ => {}
        }
    }
}

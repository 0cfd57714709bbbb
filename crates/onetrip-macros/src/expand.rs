//! Expands a cached function: the function itself and its four siblings.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Generics, ItemFn, Result, Signature};

use crate::function::Function;
use crate::key::Key;
use crate::options::Options;
use crate::timeout;

/// Span of generated variables: they cannot clash with the user's.
const HERE: fn() -> Span = Span::mixed_site;

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let item = syn::parse2::<ItemFn>(item).map_err(|error| {
        let message = "cached belongs on a function, or on a method that takes self";
        Error::new(error.span(), message)
    })?;
    let function = Function::new(item)?;
    let options: Options = syn::parse2(options)?;
    let expansion = Expansion {
        cache: cache(options.cache.as_ref(), &function)?,
        key: Key::new(options.key.as_ref(), &function)?,
        timeout: timeout::expression(options.timeout.as_ref())?,
        failed: failed(options.map_err.as_ref(), &function)?,
        attributes: Attributes::new(&function.item.attrs),
        function: &function,
    };
    Ok(expansion.write())
}

/// The parts of the generated code, as expressions.
struct Expansion<'a> {
    function: &'a Function,
    attributes: Attributes,
    /// The cache, as the user named it.
    cache: TokenStream,
    key: Key,
    timeout: TokenStream,
    /// Handles an `error` of the cache called `key`.
    failed: TokenStream,
}

fn cache(cache: Option<&Expr>, function: &Function) -> Result<TokenStream> {
    match (cache, &function.cache) {
        (Some(cache), _) => Ok(quote!(#cache)),
        (None, Some(cache)) => Ok(quote!(#cache)),
        (None, None) => Err(Error::new(
            function.name().span(),
            format!(
                "{} needs a cache: set the option, as in cache = CACHE or cache = self.cache, or add an argument cache: &onetrip::Cache",
                function.name()
            ),
        )),
    }
}

fn failed(map_err: Option<&Expr>, function: &Function) -> Result<TokenStream> {
    match map_err {
        None => Ok(quote_spanned! {HERE()=> {
            ::onetrip::__private::untold(&key, &error);
            ::core::result::Result::Ok(())
        }}),
        Some(map) if function.returns.is_result => Ok(quote_spanned! {HERE()=>
            ::core::result::Result::Err((#map)(error))
        }),
        Some(map) => Err(Error::new_spanned(
            map,
            "map_err converts the cache's error into the error of a Result; this function does not return a Result",
        )),
    }
}

impl Expansion<'_> {
    fn write(&self) -> TokenStream {
        let [uncached, refresh, key, bust] = self.siblings();
        let caller = self.caller(&uncached);
        let bodies = [
            self.uncached(&uncached),
            self.refresh(&refresh, &uncached),
            self.key(&key),
            self.bust(&bust),
        ];
        quote!(#caller #(#bodies)*)
    }

    fn siblings(&self) -> [Ident; 4] {
        let name = self.function.name();
        ["uncached", "refresh", "key", "bust"].map(|what| format_ident!("{name}_{what}"))
    }

    /// Generates the function: reads the cache, or computes.
    fn caller(&self, uncached: &Ident) -> TokenStream {
        let function = self.function;
        let Attributes {
            on_all, on_caller, ..
        } = &self.attributes;
        let (signature, bounds) = self.signature(function.name());
        let vis = &function.item.vis;
        let (prepare, fetch) = (self.prepare(), self.fetch(uncached, false));
        quote_spanned! {HERE()=>
            #(#on_all)*
            #(#on_caller)*
            #[allow(clippy::too_many_arguments)]
            #vis #signature #bounds {
                #prepare
                #fetch
            }
        }
    }

    /// Generates the function as it was written.
    fn uncached(&self, name: &Ident) -> TokenStream {
        let Attributes {
            on_all, on_body, ..
        } = &self.attributes;
        let ItemFn {
            vis, sig, block, ..
        } = &self.function.item;
        let mut signature = sig.clone();
        signature.ident = name.clone();
        // Arguments used only for the cache or the key must not look unused.
        let used = self.function.named(&[&self.key.written, &self.cache]);
        let doc = format!("Computes {} without the cache.", self.link());
        quote! {
            #(#on_all)*
            #(#on_body)*
            #[doc = #doc]
            #vis #signature {
                #(_ = &#used;)*
                #block
            }
        }
    }

    fn refresh(&self, name: &Ident, uncached: &Ident) -> TokenStream {
        let on_all = &self.attributes.on_all;
        let (signature, bounds) = self.signature(name);
        let vis = &self.function.item.vis;
        let (prepare, fetch) = (self.prepare(), self.fetch(uncached, true));
        let doc = format!("Computes {} again and stores the result.", self.link());
        quote_spanned! {HERE()=>
            #(#on_all)*
            #[doc = #doc]
            #[allow(dead_code, clippy::too_many_arguments)]
            #vis #signature #bounds {
                #prepare
                #fetch
            }
        }
    }

    fn key(&self, name: &Ident) -> TokenStream {
        let on_all = &self.attributes.on_all;
        let vis = &self.function.item.vis;
        let Key {
            expression: key,
            written,
        } = &self.key;
        let (
            arguments,
            Generics {
                params,
                where_clause,
                ..
            },
        ) = self.function.narrowed(&[written]);
        let doc = format!("Returns the key of {} for these arguments.", self.link());
        quote! {
            #(#on_all)*
            #[doc = #doc]
            #[allow(dead_code, clippy::too_many_arguments)]
            #[must_use]
            #vis fn #name <#params> (#(#arguments),*) -> ::std::string::String #where_clause {
                #key
            }
        }
    }

    fn bust(&self, name: &Ident) -> TokenStream {
        let on_all = &self.attributes.on_all;
        let vis = &self.function.item.vis;
        let expressions = [&self.key.written, &self.cache];
        let (
            arguments,
            Generics {
                params,
                where_clause,
                ..
            },
        ) = self.function.narrowed(&expressions);
        let (remove, awaited) = self.driven("remove");
        let asyncness = &self.function.item.sig.asyncness;
        let prepare = self.prepare();
        let doc = format!(
            "Deletes the stored result of {}. Returns `true` if there was one.",
            self.link()
        );
        quote_spanned! {HERE()=>
            #(#on_all)*
            #[doc = #doc]
            ///
            /// # Errors
            ///
            /// See `onetrip::Cache::delete`.
            #[allow(dead_code, clippy::too_many_arguments)]
            #vis #asyncness fn #name <#params> (#(#arguments),*) -> ::onetrip::Result<bool>
            #where_clause
            {
                #prepare
                ::onetrip::__private::#remove(&cache, &key) #awaited
            }
        }
    }

    /// Returns the function's signature with every argument named, and its bounds.
    fn signature(&self, name: &Ident) -> (TokenStream, TokenStream) {
        let Signature {
            asyncness,
            generics,
            output,
            ..
        } = &self.function.item.sig;
        let Generics {
            params,
            where_clause,
            ..
        } = generics;
        let (arguments, _) = self.function.arguments();
        (
            quote!(#asyncness fn #name <#params> (#(#arguments),*) #output),
            quote!(#where_clause),
        )
    }

    /// Generates the variables `key` and `cache`.
    fn prepare(&self) -> TokenStream {
        let (key, cache) = (&self.key.expression, &self.cache);
        let written = HERE().located_at(cache.span());
        // Method lookup dereferences: `&Cache`, `LazyLock<Cache>` and `Arc<Cache>` all work.
        let cache = quote_spanned! {written=>
            <::onetrip::Cache as ::core::clone::Clone>::clone(&#cache)
        };
        quote_spanned! {HERE()=>
            let key: ::std::string::String = #key;
            let cache = #cache;
        }
    }

    /// Generates the fetch: reads the result, or computes and stores it. `refresh` skips the read.
    fn fetch(&self, uncached: &Ident, refresh: bool) -> TokenStream {
        let Self {
            function,
            timeout,
            failed,
            ..
        } = self;
        let (_, handed) = function.arguments();
        let called = match function.receiver() {
            Some(receiver) => quote!(#receiver.#uncached(#(#handed),*)),
            None => quote!(#uncached(#(#handed),*)),
        };
        let is_async = function.item.sig.asyncness.is_some();
        let is_result = function.returns.is_result;
        let make = match (is_result, is_async) {
            (true, _) => quote_spanned!(HERE()=> || #called),
            (false, false) => quote_spanned!(HERE()=> || ::core::result::Result::Ok(#called)),
            (false, true) => quote_spanned! {HERE()=>
                || {
                    let computing = #called;
                    async move { ::core::result::Result::Ok(computing.await) }
                }
            },
        };
        let (fetch, awaited) = self.driven("fetch");
        let value = &function.returns.value;
        // The asynchronous helpers have one more type parameter, the future.
        let more = is_async.then(|| quote!(, _));
        let fetched = quote_spanned! {HERE()=>
            ::onetrip::__private::#fetch::<#value, _ #more>(
                &cache,
                &key,
                #timeout,
                #refresh,
                #make,
                |error| #failed,
            ) #awaited
        };
        if is_result {
            return fetched;
        }
        quote_spanned! {HERE()=>
            match #fetched {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(never) => {
                    let never: ::core::convert::Infallible = never;
                    match never {}
                }
            }
        }
    }

    /// Returns the helper of this name, and the code that follows its call.
    fn driven(&self, helper: &str) -> (Ident, TokenStream) {
        if self.function.item.sig.asyncness.is_some() {
            (format_ident!("{helper}"), quote!(.await))
        } else {
            (format_ident!("{helper}_blocking"), quote!())
        }
    }

    /// Returns a documentation link to the function.
    fn link(&self) -> String {
        let name = self.function.name();
        match self.function.receiver() {
            Some(_) => format!("[`{name}`](Self::{name})"),
            None => format!("[`{name}`]"),
        }
    }
}

/// The function's attributes, by where they belong.
#[derive(Default)]
struct Attributes {
    on_all: Vec<Attribute>,
    on_caller: Vec<Attribute>,
    on_body: Vec<Attribute>,
}

impl Attributes {
    fn new(attributes: &[Attribute]) -> Self {
        let mut kept = Self::default();
        for attribute in attributes {
            let path = attribute.path();
            let list = if path.is_ident("cfg") {
                &mut kept.on_all
            } else if ["doc", "must_use", "deprecated"]
                .iter()
                .any(|name| path.is_ident(name))
            {
                &mut kept.on_caller
            } else {
                // Lints, tracing and the like concern the computation.
                &mut kept.on_body
            };
            list.push(attribute.clone());
        }
        kept
    }
}

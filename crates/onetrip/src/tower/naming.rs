//! Finds out which page a request is for.

use std::fmt;
use std::sync::Arc;

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::learn::Page;

type Name = dyn Fn(&mut Parts) -> Option<Page> + Send + Sync;
type Facets = dyn Fn(&Parts) -> Vec<(String, String)> + Send + Sync;
type IsBot = dyn Fn(&Parts) -> bool + Send + Sync;

/// How a layer names pages.
#[derive(Clone)]
pub(super) struct Naming {
    pub(super) name: Arc<Name>,
    pub(super) query: Arc<[String]>,
    pub(super) facets: Option<Arc<Facets>>,
    pub(super) bots: Option<Arc<IsBot>>,
}

/// A page, and whether to learn from this visit.
pub(super) struct Named {
    pub(super) page: Page,
    pub(super) learns: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            name: Arc::new(super::axum::page),
            query: Arc::default(),
            facets: None,
            bots: None,
        }
    }
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Naming")
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl Naming {
    /// Returns the page of a request with a safe method (GET, HEAD).
    pub(super) fn page(&self, request: &mut Parts) -> Option<Named> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let named = (self.name)(request)?;
        // Arguments of the route win over declared query parameters, and those over facets.
        let mut page = Page::new(named.route());
        for (name, value) in self.facets.iter().flat_map(|facets| facets(request)) {
            page = page.arg(name, value);
        }
        for (name, value) in declared(&self.query, request.uri.query().unwrap_or_default()) {
            page = page.arg(name, value);
        }
        for (name, value) in named.args() {
            page = page.arg(name, value);
        }
        let is_bot = self.bots.as_ref().is_some_and(|is_bot| is_bot(request));
        let learns = !is_bot;
        Some(Named { page, learns })
    }
}

/// Returns the query parameters with these names; of a repeated one, the last.
fn declared<'a>(
    names: &'a [String],
    query: &'a str,
) -> impl Iterator<Item = (String, String)> + 'a {
    let pairs = query.split('&').filter(move |_| !names.is_empty());
    pairs.filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        names.contains(&name).then(|| (name, decoded(value)))
    })
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

//! Reads routes of axum.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use http::request::Parts;

use crate::learn::Page;

/// Returns the matched route and its path parameters.
pub(crate) fn page(request: &mut Parts) -> Option<Page> {
    let route = request.extensions.get::<MatchedPath>()?;
    let page = Page::new(route.as_str());
    let parameters = pin!(RawPathParams::from_request_parts(request, &()));
    // They are in the request already, so the future is ready.
    let Poll::Ready(parameters) = parameters.poll(&mut Context::from_waker(Waker::noop())) else {
        return Some(page);
    };
    // A route without parameters gives an error here; it has none.
    let parameters = parameters.ok();
    let parameters = parameters.iter().flatten();
    Some(parameters.fold(page, |page, (name, value)| page.arg(name, value)))
}

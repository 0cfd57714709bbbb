//! No axum, and so no routes that are known by themselves.

use http::request::Parts;

use crate::learn::Page;

pub(crate) fn page(_request: &mut Parts) -> Option<Page> {
    None
}

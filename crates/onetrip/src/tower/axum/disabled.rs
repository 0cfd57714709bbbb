//! Without axum: no route is known.

use http::request::Parts;

use crate::learn::Page;

pub(crate) fn page(_request: &mut Parts) -> Option<Page> {
    None
}

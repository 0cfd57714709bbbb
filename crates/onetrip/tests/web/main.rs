//! What web applications use of the crate: functions, requests and templates.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod cached;
mod carry;
mod fragments;
mod markup;
mod named;
mod pages;
mod programs;
mod requests;
mod streams;
mod support;

//! Functions, requests and templates: what web applications use of the crate.

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

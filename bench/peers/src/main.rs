//! Measures onetrip beside its peers in Rust: `onetrip-peers redis://… [quick]`.
//!
//! Each comparison is told as lines of JSON, one for a competitor, which `bench/jobs/rust.py`
//! reads. Whoever gives a wrong answer ends the program.

mod local;
mod measure;
mod remote;

use std::error::Error;

use measure::Pace;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .ok_or("the URL of a Redis server is missing")?;
    let pace = Pace::of(arguments.next().as_deref() == Some("quick"));
    remote::multi_get(&url, pace)?;
    local::hit_in_a_scope(pace)?;
    local::memory(pace)?;
    Ok(())
}

/// What is cached: 1.5 kB, as in Python.
fn text() -> String {
    "0123456789abcde".repeat(100)
}

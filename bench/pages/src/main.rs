//! What learned pages cost and bring, workload by workload.
//!
//! Each workload is a list of visits: a page, and the keys that it reads with the bytes of their
//! entries. It is replayed by four ways of preloading: none, an exact list by hand (the oracle),
//! the keys of the last visit to the same page, and the learner.

mod replay;
mod workloads;

use replay::{Outcome, exact, last_visit, learned, none};

fn main() {
    println!(
        "{:<34} {:<10} {:>6} {:>7} {:>9} {:>7} {:>9} {:>9} {:>8}",
        "workload",
        "preload",
        "trips",
        "recall",
        "precision",
        "unused",
        "µs/visit",
        "ns/read",
        "KiB"
    );
    for workload in workloads::all() {
        for (name, outcome) in [
            ("none", none(&workload)),
            ("by hand", exact(&workload)),
            ("last", last_visit(&workload)),
            ("learned", learned(&workload)),
        ] {
            row(workload.name, name, &outcome);
        }
    }
}

fn row(workload: &str, name: &str, outcome: &Outcome) {
    println!(
        "{workload:<34} {name:<10} {:>6.3} {:>6.1}% {:>8.1}% {:>6.1}% {:>9.1} {:>9.0} {:>8}",
        outcome.trips(),
        100.0 * outcome.recall(),
        100.0 * outcome.precision(),
        100.0 * outcome.unused(),
        outcome.micros_per_visit(),
        outcome.nanos_per_read(),
        outcome.memory / 1024,
    );
}

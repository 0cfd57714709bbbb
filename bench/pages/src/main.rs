//! What learned pages cost and bring, workload by workload.
//!
//! Each workload is a list of visits: a page, and the keys that it reads with the bytes of their
//! entries. It is replayed by four ways of preloading: none, an exact list by hand (the oracle),
//! the keys of the last visit to the same page, and the learner.
//!
//! Words behind the command name workloads and a way, `pages stable learned`, so that an instrument
//! such as callgrind sees nothing else.

mod replay;
mod workloads;

use replay::{Outcome, exact, last_visit, learned, none};
use workloads::Workload;

/// A way of loading pages.
type Replay = fn(&Workload) -> Outcome;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
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
    let ways: [(&str, Replay); 4] = [
        ("none", none),
        ("by hand", exact),
        ("last", last_visit),
        ("learned", learned),
    ];
    for workload in workloads::all() {
        for (name, replay) in ways {
            let told = format!("{} {name}", workload.name);
            if only.iter().all(|word| told.contains(word)) {
                row(workload.name, name, &replay(&workload));
            }
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

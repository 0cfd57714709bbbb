//! The laws that a store of a third party is tested by, over the stores of this crate.

use std::time::Duration;

use onetrip::Clock;
use onetrip::store::{StoreOptions, conformance};

use crate::support::{Bed, Face, Outcome};

on_every_store![store_conforms];

async fn store_conforms(bed: Bed) -> Outcome {
    let options = StoreOptions {
        clock: Clock::system(),
        connect_timeout: Duration::from_secs(20),
        trip_timeout: Duration::from_secs(20),
    };
    let store = onetrip::store::open(bed.url(), &options)?;
    // Stores have one face. A named memory store keeps the clock that it was opened with.
    if let Face::Awaited(_) = bed.cache() {
        return Ok(());
    }
    conformance::run(|| store.clone()).unwrap();
    Ok(())
}

//! Caches of other prefixes over the same connections.

use onetrip::{Cache, Page};

use crate::support::hand::{Hand, elsewhere};
use crate::support::{Bed, Face, Outcome, Server, turn};

on_every_store![inner_prefix_is_cleared_alone];

async fn inner_prefix_is_cleared_alone(bed: Bed) -> Outcome {
    let outer = bed.cache();
    let inner = match &outer {
        Face::Awaited(cache) => Face::Awaited(cache.with_prefix("in")),
        Face::Blocking(cache) => Face::Blocking(cache.with_prefix("in")),
    };
    assert_eq!(inner.cache().prefix(), format!("{}:in", bed.prefix()));
    outer.set("a", &1).await?;
    assert_eq!(inner.get::<i64>("a").await?, None);
    inner.set("a", &2).await?;
    assert_eq!(outer.get("in:a").await?, Some(2), "it is the same entry");
    assert_eq!((outer.stats().writes, inner.stats().writes), (1, 1));
    if bed.clears() {
        assert_eq!(inner.clear().await?, 1);
        assert_eq!(outer.get("a").await?, Some(1));
    }
    Ok(())
}

#[test]
fn prefixes_share_a_connection() {
    let _turn = turn();
    let server = Server::start();
    let cache = Cache::open(server.url()).unwrap().blocking();
    cache.set("a", &1).unwrap();
    let one = server.info("connected_clients");
    let inner = cache.with_prefix("in");
    inner.set("a", &2).unwrap();
    drop(cache);
    // It outlives the cache that it came from.
    assert_eq!(inner.get("a").unwrap(), Some(2));
    assert_eq!(server.info("connected_clients"), one);
}

#[test]
fn linked_prefixes_make_one_first_trip() {
    let _turn = turn();
    let outer = Cache::open("memory://?latency=10us").unwrap();
    let inner = outer.with_prefix("in");
    let both = [&outer, &inner];
    for cache in both {
        elsewhere(cache, "a", Some("old"));
    }
    let visit = || {
        let hands = both.map(|cache| Hand::visiting(cache, Page::new("page")));
        outer.link(hands[0].scope(), &inner, hands[1].scope());
        both.iter().for_each(|cache| cache.reset_stats());
        for hand in &hands {
            hand.finish(hand.get("a"));
        }
        let trips: u64 = both.iter().map(|cache| cache.stats().trips).sum();
        hands.iter().for_each(Hand::close);
        trips
    };
    assert_eq!(visit(), 2);
    for _ in 0..10 {
        visit();
    }
    assert_eq!(visit(), 1);
}

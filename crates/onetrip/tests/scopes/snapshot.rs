//! Law 1, snapshots: the plain answers that one trip of a learned page brought, held for a tenth of
//! a second. Calls are made by hand if it matters what happens while a trip is under way.

use std::time::Duration;

use onetrip::internals::Work;
use onetrip::{Cache, Clock, Page, PageMode, Ttl};

use crate::support::hand::{Answer, Called, Hand, elsewhere};
use crate::support::{Bed, Face, Outcome, turn};

on_every_store![learned_page_reads_its_state_in_one_trip];

const READ_MAX_AGE: Duration = Duration::from_millis(100);
const INSTANT: Duration = Duration::from_micros(1);

/// Returns a cache whose pages have learned to read `a`, `b` and `c`, and its clock.
fn learned() -> (Cache, Clock) {
    let clock = Clock::manual();
    let cache = Cache::builder("memory://").clock(clock.clone());
    let cache = cache.build().unwrap();
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("old"));
    }
    for _ in 0..10 {
        let hand = visit(&cache);
        for key in ["a", "b", "c"] {
            hand.finish(hand.get(key));
        }
        hand.close();
        clock.advance(Duration::from_secs(1));
    }
    (cache, clock)
}

fn visit(cache: &Cache) -> Hand {
    Hand::visiting(cache, Page::new("page"))
}

/// Returns a visit that has read `a`, and so has a snapshot of all three keys; others change them
/// afterwards.
fn with_snapshot(cache: &Cache) -> Hand {
    let hand = visit(cache);
    assert_eq!(hand.finish(hand.get("a")), old());
    for key in ["a", "b", "c"] {
        elsewhere(cache, key, Some("new"));
    }
    hand
}

fn old() -> Answer {
    vec![Some("old".to_owned())]
}

fn new() -> Answer {
    vec![Some("new".to_owned())]
}

/// Checks that a read of `key` makes a trip and finds the new value.
fn assert_ended(hand: &Hand, key: &'static str) {
    let called = hand.get(key);
    assert!(
        matches!(called, Called::Away(..)),
        "{key} was answered without a trip"
    );
    assert_eq!(hand.finish(called), new());
}

async fn learned_page_reads_its_state_in_one_trip(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        // The blocking face has no learned pages.
        return Ok(());
    };
    let others = bed.elsewhere();
    for key in ["a", "b", "c"] {
        others.set(key, "old").await?;
    }
    let visit = async |trips: usize| {
        let reads = async {
            for key in ["a", "b", "c", "a"] {
                let read: Option<String> = cache.get(key).await?;
                assert_eq!(read.as_deref(), Some("old"));
            }
            Ok::<_, onetrip::Error>(())
        };
        let (done, seen) = cache.watch(cache.page(Page::new("page"), reads)).await;
        done?;
        assert!(seen.trips() <= trips, "{}", seen.trips());
        Ok::<_, onetrip::Error>(())
    };
    for _ in 0..10 {
        visit(4).await?;
    }
    visit(1).await
}

#[test]
fn snapshot_answers_for_a_tenth_of_a_second() {
    let _turn = turn();
    let (cache, clock) = learned();
    let hand = with_snapshot(&cache);
    clock.advance(READ_MAX_AGE - INSTANT);
    for key in ["a", "b", "c", "b"] {
        assert_eq!(hand.get(key).held(), old());
    }
    clock.advance(INSTANT);
    assert_ended(&hand, "b");
}

#[test]
fn read_max_age_can_be_zero() {
    let _turn = turn();
    let cache = Cache::builder("memory://").read_max_age(Duration::ZERO);
    let cache = cache.clock(Clock::manual()).build().unwrap();
    for _ in 0..10 {
        let hand = visit(&cache);
        elsewhere(&cache, "a", Some("old"));
        assert_eq!(hand.finish(hand.get("a")), old());
        elsewhere(&cache, "a", Some("new"));
        assert_ended(&hand, "a");
        hand.close();
    }
}

#[test]
fn plain_read_trip_replaces_the_whole_snapshot() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    assert_eq!(hand.get("b").held(), old());
    assert_eq!(hand.finish(hand.get("x")), [None]);
    for key in ["b", "c", "a"] {
        let read = hand.finish(hand.get(key));
        assert_eq!(read, new(), "{key} must be as new as x");
    }
}

#[test]
fn unlearned_key_is_read_each_time() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    for value in ["1", "2"] {
        elsewhere(&cache, "x", Some(value));
        assert_eq!(hand.finish(hand.get("x")), [Some(value.to_owned())]);
    }
}

#[test]
fn state_write_ends_the_snapshot_when_it_leaves_and_returns() {
    let _turn = turn();
    type Write = for<'a> fn(&'a Hand) -> Called<'a>;
    let writes: [(&str, Write); 4] = [
        ("set", |hand| hand.set("z", "ours")),
        ("a failed add", |hand| hand.add("z", "ours")),
        ("add", |hand| hand.add("y", "ours")),
        ("delete", |hand| hand.delete(&["z"])),
    ];
    for (word, write) in writes {
        let (cache, _) = learned();
        elsewhere(&cache, "z", Some("theirs"));
        let hand = with_snapshot(&cache);
        assert_eq!(hand.get("b").held(), old());
        // Before the write leaves.
        let Called::Away(trip, arrive) = write(&hand) else {
            panic!("{word} does not travel");
        };
        assert_eq!(trip.len(), 1, "{word}: nothing rides along");
        assert_ended(&hand, "b");
        // A snapshot brought while the write is under way ends when the write returns.
        let before = hand.get("x");
        let replies = hand.exchange(&trip);
        hand.finish(before);
        arrive(replies);
        for key in ["a", "b", "c"] {
            elsewhere(&cache, key, Some("newest"));
        }
        assert_eq!(
            hand.finish(hand.get("c")),
            [Some("newest".to_owned())],
            "{word}"
        );
        hand.close();
    }
}

/// Some programs write back each object they read, as Wagtail does with its images.
#[test]
fn writing_back_a_snapshot_value_ends_that_key_only() {
    let _turn = turn();
    let (cache, clock) = learned();
    let hand = visit(&cache);
    assert_eq!(hand.finish(hand.get("a")), old());
    let Called::Away(trip, arrive) = hand.set("b", "old") else {
        panic!("a state write travels");
    };
    assert_eq!(trip.len(), 1, "nothing rides along");
    let replies = hand.exchange(&trip);
    arrive(replies);
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("new"));
    }
    for key in ["a", "c"] {
        assert_eq!(hand.get(key).held(), old());
    }
    assert_ended(&hand, "b");
    hand.close();
    // A snapshot too old to answer does not know what the store holds.
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("old"));
    }
    let hand = with_snapshot(&cache);
    clock.advance(READ_MAX_AGE);
    hand.finish(hand.set("b", "old"));
    assert_ended(&hand, "a");
}

/// A key that has not earned its place is read from the store, and may be written back too.
#[test]
fn writing_back_a_read_value_of_the_same_trip_keeps_the_snapshot() {
    let _turn = turn();
    let (cache, _) = learned();
    for value in ["x", "y"] {
        elsewhere(&cache, "x", Some("x"));
        let hand = visit(&cache);
        assert_eq!(hand.finish(hand.get("x")), [Some("x".to_owned())]);
        elsewhere(&cache, "a", Some("new"));
        hand.finish(hand.set("x", value));
        let called = hand.get("a");
        match value {
            "x" => assert_eq!(called.held(), old()),
            _ => assert_eq!(hand.finish(called), new(), "another value is a change"),
        }
        hand.close();
        elsewhere(&cache, "a", Some("old"));
    }
    // Answers of a trip before the one that brought the snapshot are too old.
    let hand = visit(&cache);
    hand.finish(hand.get("x"));
    hand.finish(hand.get("z"));
    hand.finish(hand.set("x", "y"));
    elsewhere(&cache, "a", Some("new"));
    assert_ended(&hand, "a");
}

#[test]
fn writing_back_ends_what_other_scopes_hold() {
    let _turn = turn();
    let (cache, _) = learned();
    let (hand, other) = (visit(&cache), visit(&cache));
    for hand in [&hand, &other] {
        assert_eq!(hand.finish(hand.get("a")), old());
    }
    hand.finish(hand.set("b", "old"));
    for key in ["b", "c"] {
        elsewhere(&cache, key, Some("new"));
    }
    assert_eq!(other.get("c").held(), old());
    assert_ended(&other, "b");
}

/// A different value, even of another type, is a change. So are several values of which one
/// differs, and keys that were not read.
#[test]
fn set_of_another_value_ends_the_snapshot() {
    let _turn = turn();
    type Write = for<'a> fn(&'a Hand) -> Called<'a>;
    let writes: [(&str, Write); 5] = [
        ("another value", |hand| hand.set("b", "older")),
        ("one of two", |hand| {
            hand.set_many(&[("b", "old"), ("c", "older")])
        }),
        ("what is not held", |hand| hand.set("x", "old")),
        ("an add", |hand| hand.add("b", "old")),
        ("a delete", |hand| hand.delete(&["b"])),
    ];
    for (word, write) in writes {
        let (cache, _) = learned();
        let hand = with_snapshot(&cache);
        hand.finish(write(&hand));
        let called = hand.get("a");
        assert!(matches!(called, Called::Away(..)), "{word} is a change");
        assert_eq!(hand.finish(called), new(), "{word}");
    }
}

#[test]
fn answers_under_way_during_a_write_are_not_kept() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = visit(&cache);
    // The read departs before the write and arrives after it.
    let Called::Away(trip, arrive) = hand.get("a") else {
        panic!("nothing is held yet");
    };
    let replies = hand.exchange(&trip);
    hand.finish(hand.set("z", "ours"));
    assert_eq!(arrive(replies), old());
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("new"));
    }
    assert_ended(&hand, "b");
}

#[test]
fn fresh_ends_the_snapshot_and_what_is_under_way() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    assert_eq!(hand.get("b").held(), old());
    hand.scope().refresh();
    let Called::Away(trip, arrive) = hand.get("b") else {
        panic!("the snapshot is over");
    };
    let replies = hand.exchange(&trip);
    hand.scope().refresh();
    assert_eq!(arrive(replies), new());
    elsewhere(&cache, "c", Some("newest"));
    assert_eq!(hand.finish(hand.get("c")), [Some("newest".to_owned())]);
}

#[test]
fn later_departing_trip_wins() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = visit(&cache);
    let (Called::Away(one, arrive_one), Called::Away(other, arrive_other)) =
        (hand.get("a"), hand.get("x"))
    else {
        panic!("nothing is held yet");
    };
    let before = hand.exchange(&one);
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("new"));
    }
    let behind = hand.exchange(&other);
    arrive_other(behind);
    assert_eq!(hand.get("b").held(), new());
    assert_eq!(arrive_one(before), old());
    for key in ["a", "b", "c"] {
        assert_eq!(
            hand.finish(hand.get(key)),
            new(),
            "{key} went back to an older value"
        );
    }
}

#[test]
fn absence_answers_one_read() {
    let _turn = turn();
    let (cache, _) = learned();
    elsewhere(&cache, "b", None);
    elsewhere(&cache, "c", None);
    let hand = visit(&cache);
    assert_eq!(hand.finish(hand.get("a")), old());
    elsewhere(&cache, "b", Some("new"));
    elsewhere(&cache, "c", Some("new"));
    assert_eq!(hand.get("b").held(), [None]);
    assert_eq!(
        hand.finish(hand.get("b")),
        new(),
        "the second read goes to the store"
    );
    assert_eq!(
        hand.finish(hand.get("c")),
        new(),
        "that trip replaced the snapshot"
    );
}

/// A program that polls for a key finds it at the second read.
#[test]
fn absence_of_the_first_read_is_not_held() {
    let _turn = turn();
    let (cache, _) = learned();
    elsewhere(&cache, "a", None);
    let hand = visit(&cache);
    assert_eq!(hand.finish(hand.get("a")), [None]);
    elsewhere(&cache, "a", Some("new"));
    assert_ended(&hand, "a");
}

#[test]
fn get_many_uses_the_whole_snapshot_or_none() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    let held = hand.get_many(&["a", "b"]).held();
    assert_eq!(held, [old(), old()].concat());
    let Called::Away(trip, arrive) = hand.get_many(&["a", "b", "x"]) else {
        panic!("x is not held");
    };
    let replies = hand.exchange(&trip);
    let read = arrive(replies);
    assert_eq!(read, [new(), new(), vec![None]].concat());
    // The read brought all keys as of one moment.
    elsewhere(&cache, "c", Some("newest"));
    assert_eq!(hand.finish(hand.get("c")), new());
}

#[test]
fn repeated_absence_in_get_many_is_of_one_moment() {
    let _turn = turn();
    let (cache, _) = learned();
    elsewhere(&cache, "b", None);
    let hand = visit(&cache);
    assert_eq!(hand.finish(hand.get("a")), old());
    for key in ["a", "b"] {
        elsewhere(&cache, key, Some("new"));
    }
    let read = hand.finish(hand.get_many(&["a", "b", "b"]));
    let then = [old(), vec![None, None]].concat();
    let now = [new(), new(), new()].concat();
    assert!(read == then || read == now, "{read:?}");
}

#[test]
fn state_write_elsewhere_in_the_process_ends_that_key() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    // In another scope, and without a scope.
    for (key, other) in [
        ("a", Hand::within(&cache, Work::Other)),
        ("b", Hand::alone(&cache)),
    ] {
        other.finish(other.set(key, "ours"));
        let called = hand.get(key);
        assert!(
            matches!(called, Called::Away(..)),
            "{key} was answered without a trip"
        );
        hand.finish(called);
    }
}

#[test]
fn fetch_takes_nothing_from_the_snapshot() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_snapshot(&cache);
    hand.finish(hand.delete(&["z"]));
    assert_ended(&hand, "a");
}

#[test]
fn unnamed_scopes_and_posts_have_no_snapshot() {
    let _turn = turn();
    let (cache, _) = learned();
    let unnamed = Hand::within(&cache, Work::SafeRequest);
    let unsafe_page = Hand::within(&cache, Work::Request);
    cache
        .policy()
        .begin_visit(unsafe_page.scope(), Page::new("page"));
    let sending = visit(&cache);
    sending.finish(sending.get("a"));
    sending.scope().begin_sending();
    for hand in [unnamed, unsafe_page, sending] {
        for key in ["a", "b", "c"] {
            elsewhere(&cache, key, Some("old"));
        }
        assert_eq!(hand.finish(hand.get("a")), old());
        for key in ["a", "b", "c"] {
            elsewhere(&cache, key, Some("new"));
        }
        assert_ended(&hand, "b");
        assert_ended(&hand, "a");
    }
}

#[test]
fn snapshot_ends_with_its_page() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = Hand::within(&cache, Work::SafeRequest);
    let page = cache.policy().begin_visit(hand.scope(), Page::new("page"));
    assert_eq!(hand.finish(hand.get("a")), old());
    assert_eq!(hand.get("b").held(), old());
    cache.policy().end_visit(hand.scope(), &page, true);
    for key in ["a", "b", "c"] {
        elsewhere(&cache, key, Some("new"));
    }
    assert_ended(&hand, "b");
}

#[test]
fn pages_without_learning_have_no_snapshot() {
    let _turn = turn();
    for mode in [PageMode::Off, PageMode::Shadow] {
        let cache = Cache::builder("memory://").pages(mode).build().unwrap();
        for _ in 0..10 {
            let hand = visit(&cache);
            for value in ["old", "new"] {
                elsewhere(&cache, "a", Some(value));
                assert_eq!(hand.finish(hand.get("a")), [Some(value.to_owned())]);
            }
            hand.close();
        }
    }
}

/// A key preloaded by name is a piece, whatever the page has learned.
#[test]
fn preloaded_key_is_not_in_the_snapshot() {
    let _turn = turn();
    let (cache, clock) = learned();
    let hand = visit(&cache);
    hand.finish(hand.preload(&["a"]));
    elsewhere(&cache, "a", Some("new"));
    clock.advance(Duration::from_secs(5));
    hand.finish(hand.get("x"));
    assert_eq!(hand.get("a").held(), old());
}

/// Also with concurrent tasks, over a slow store.
#[test]
fn tasks_never_read_older_values_than_they_wrote() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let cache = &Cache::open("memory://?latency=50us").unwrap();
        for _ in 0..10 {
            let reads = async {
                for key in ["a", "b"] {
                    cache.get::<u32>(key).await.unwrap();
                }
            };
            cache.page(Page::new("page"), reads).await;
        }
        let work = async {
            let read = async |key| {
                let mut last = 0;
                for _ in 0..200 {
                    let now = cache.get::<u32>(key).await.unwrap().unwrap_or_default();
                    assert!(now >= last, "{key} went back from {last} to {now}");
                    last = now;
                }
            };
            let write = async {
                for number in 1..100 {
                    cache.set_for("a", &number, Ttl::Never).await.unwrap();
                    assert_eq!(cache.get("a").await.unwrap(), Some(number));
                }
            };
            tokio::join!(read("a"), read("a"), read("b"), write);
        };
        cache.page(Page::new("page"), work).await;
    });
}

#[test]
fn a_blocking_page_learns_from_its_visits() {
    let _turn = turn();
    let cache = Cache::open("memory://").unwrap().blocking();
    let visit = |id: u32, reads: &dyn Fn()| {
        let page = Page::new("note").arg("id", id);
        cache.watch(|| cache.page(page, reads)).1.trips()
    };
    let reads = |id: u32| {
        for part in ["markup", "comments"] {
            let key = format!("{part}:{id}");
            let _: i64 = cache.get_or_insert_with(key, Ttl::Default, || 1).unwrap();
        }
    };
    for id in 1..4 {
        reads(id);
        visit(id, &|| reads(id));
    }
    reads(9);
    assert_eq!(visit(9, &|| reads(9)), 1, "one trip for both keys");
    let panics = || visit(9, &|| panic!("half way"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    assert_eq!(
        cache.pages()[0].visits,
        4,
        "a visit that panicked teaches nothing"
    );
}

/// A visit whose first read finds `a`, and the other keys absent.
fn with_absences(cache: &Cache) -> Hand {
    for key in ["b", "c"] {
        elsewhere(cache, key, None);
    }
    visit(cache)
}

#[test]
fn plain_read_finds_what_a_fetch_of_its_scope_stored() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_absences(&cache);
    hand.finish(hand.get("a"));
    hand.make_anew("b", "made");
    assert_eq!(hand.finish(hand.get("b")), [Some("made".to_owned())]);
}

#[test]
fn plain_read_finds_what_a_fetch_stored_while_a_trip_was_under_way() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_absences(&cache);
    let Called::Away(trip, arrive) = hand.get("a") else {
        panic!("nothing is held yet");
    };
    let replies = hand.exchange(&trip);
    hand.make_anew("b", "made");
    arrive(replies);
    let called = hand.get("b");
    assert!(matches!(called, Called::Away(..)), "its absence is old");
    assert_eq!(hand.finish(called), [Some("made".to_owned())]);
}

#[test]
fn trip_that_departs_after_a_fetch_brings_what_it_stored() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = with_absences(&cache);
    let Called::Away(trip, arrive) = hand.get("a") else {
        panic!("nothing is held yet");
    };
    let replies = hand.exchange(&trip);
    hand.make_anew("b", "made");
    arrive(replies);
    hand.finish(hand.get("x"));
    elsewhere(&cache, "b", Some("new"));
    assert_eq!(hand.get("b").held(), [Some("made".to_owned())]);
}

#[test]
fn setting_what_was_there_before_a_fetch_stored_another_value_is_news() {
    let _turn = turn();
    let (cache, _) = learned();
    elsewhere(&cache, "x", Some("x"));
    let hand = visit(&cache);
    hand.finish(hand.get("x"));
    hand.make_anew("x", "made");
    hand.finish(hand.set("x", "x"));
    elsewhere(&cache, "a", Some("new"));
    assert_ended(&hand, "a");
}

/// Two trips are under way together, and the one that departed later reaches the store first. What
/// the other found in between is never followed by the older answer, whichever arrives first.
#[test]
fn trips_that_overtake_each_other_bring_no_older_answer() {
    let _turn = turn();
    for first_arrives_last in [true, false] {
        let (cache, _) = learned();
        let hand = visit(&cache);
        let (Called::Away(one, arrive_one), Called::Away(other, arrive_other)) =
            (hand.get("c"), hand.get("a"))
        else {
            panic!("nothing is held yet");
        };
        let before = hand.exchange(&other);
        elsewhere(&cache, "c", Some("new"));
        let behind = hand.exchange(&one);
        if first_arrives_last {
            arrive_other(before);
            assert_eq!(arrive_one(behind), new());
        } else {
            assert_eq!(arrive_one(behind), new());
            arrive_other(before);
        }
        assert_eq!(hand.finish(hand.get("c")), new());
    }
}

#[test]
fn trips_under_way_together_keep_what_both_found() {
    let _turn = turn();
    let (cache, _) = learned();
    let hand = visit(&cache);
    let (one, other) = (hand.get("a"), hand.get("x"));
    hand.finish(one);
    hand.finish(other);
    elsewhere(&cache, "b", Some("new"));
    assert_eq!(hand.get("b").held(), old());
}

//! Law 1, pieces: results of fetches, and keys preloaded by name, may be a little old.

use std::cell::Cell;
use std::time::Duration;

use onetrip::{OnError, Ttl};

use crate::support::{Bed, Face, Outcome, turn};

on_every_store![
    scope_answers_a_computed_fetch_for_ten_seconds,
    scope_answers_a_fetch_that_hit,
    get_or_insert_with_reads_pieces_too,
    piece_is_never_held_past_its_ttl,
    fetch_takes_no_piece_older_than_its_ttl,
    piece_answers_no_plain_read,
    preload_answers_plain_reads_for_ten_seconds,
    preload_answers_absences_for_ten_seconds,
    twenty_reads_of_a_preloaded_absence_make_one_trip,
    fetch_of_a_preloaded_absence_does_not_look_again,
    nested_scopes_share_pieces,
    preload_in_a_scope_names_keys_from_then_on,
    pieces_end_with_their_scope,
    scope_max_age_can_be_zero,
    piece_is_a_fresh_copy,
    warm_page_of_cached_functions_makes_one_trip,
    cold_page_computes_each_piece_once,
    scope_hit_counts_as_a_hit,
];

const TEN: Duration = Duration::from_secs(10);
const INSTANT: Duration = Duration::from_micros(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Fetches `key`; computes `made` if it is absent.
async fn fetch(cache: &Face, key: &str, made: &str) -> onetrip::Result<String> {
    cache.cached(key, HOUR, || made.to_owned()).await
}

async fn scope_answers_a_computed_fetch_for_ten_seconds(bed: Bed) -> Outcome {
    for cache in [&bed.cache(), &bed.posting()] {
        let others = bed.elsewhere();
        cache.delete("a").await?;
        let page = async {
            assert_eq!(fetch(cache, "a", "ours").await?, "ours");
            others.sees("a", "ours").await?;
            others.set("a", "theirs").await?;
            bed.clock().advance(TEN - INSTANT);
            assert_eq!(fetch(cache, "a", "again").await?, "ours");
            bed.clock().advance(INSTANT);
            let trips = async {
                assert_eq!(fetch(cache, "a", "again").await?, "theirs");
                assert_eq!(fetch(cache, "a", "again").await?, "theirs");
                Ok(())
            };
            assert_eq!(cache.trips(trips).await?, 1);
            Ok(())
        };
        cache.scope(page).await?;
        assert_eq!(
            others.get("a").await?,
            text("theirs"),
            "the older value must not be stored"
        );
    }
    Ok(())
}

async fn scope_answers_a_fetch_that_hit(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    let page = async {
        assert_eq!(fetch(cache, "a", "made").await?, "old");
        others.set("a", "new").await?;
        assert_eq!(fetch(cache, "a", "made").await?, "old");
        bed.clock().advance(TEN);
        assert_eq!(fetch(cache, "a", "made").await?, "new");
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 2);
    Ok(())
}

async fn get_or_insert_with_reads_pieces_too(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let get = async |made: &str| {
        let made = || made.to_owned();
        cache.get_or_insert_with("a", HOUR, made).await
    };
    let page = async {
        assert_eq!(get("ours").await?, "ours");
        assert_eq!(
            others.get("a").await?,
            text("ours"),
            "get_or_insert_with waits for its store"
        );
        others.set("a", "theirs").await?;
        assert_eq!(get("again").await?, "ours");
        bed.clock().advance(TEN);
        assert_eq!(get("again").await?, "theirs");
        Ok(())
    };
    cache.scope(page).await
}

async fn piece_is_never_held_past_its_ttl(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let life = Duration::from_secs(2);
    let fetch = async |made: &str| cache.cached("a", life, || made.to_owned()).await;
    let page = async {
        assert_eq!(fetch("first").await?, "first");
        others.sees("a", "first").await?;
        others.set("a", "theirs").await?;
        bed.clock().advance(life - INSTANT);
        assert_eq!(fetch("second").await?, "first");
        bed.clock().advance(INSTANT);
        assert_eq!(fetch("second").await?, "theirs");
        Ok(())
    };
    cache.scope(page).await
}

async fn fetch_takes_no_piece_older_than_its_ttl(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(fetch(cache, "a", "old").await?, "old");
        others.sees("a", "old").await?;
        others.set("a", "new").await?;
        bed.clock().advance(Duration::from_secs(3));
        let made = || "made".to_owned();
        let brief = cache.cached("a", Duration::from_secs(3), made).await?;
        assert_eq!(brief, "new");
        assert_eq!(fetch(cache, "a", "made").await?, "new");
        Ok(())
    };
    cache.scope(page).await
}

async fn piece_answers_no_plain_read(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(fetch(cache, "a", "ours").await?, "ours");
        others.sees("a", "ours").await?;
        for theirs in ["1", "2"] {
            others.set("a", theirs).await?;
            assert_eq!(cache.get("a").await?, text(theirs));
            let many: Vec<Option<String>> = cache.get_many(&["a"]).await?;
            assert_eq!(many, [text(theirs)]);
        }
        others.delete("a").await?;
        assert!(!cache.contains("a").await?);
        // Plain answers do not replace what the fetch holds either.
        assert_eq!(fetch(cache, "a", "again").await?, "ours");
        Ok(())
    };
    cache.scope(page).await
}

async fn preload_answers_plain_reads_for_ten_seconds(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    let page = async {
        others.set("a", "new").await?;
        bed.clock().advance(TEN - INSTANT);
        let held = async {
            assert_eq!(cache.get("a").await?, text("old"));
            assert!(cache.contains("a").await?);
            let many: Vec<Option<String>> = cache.get_many(&["a", "a"]).await?;
            assert_eq!(many, [text("old"), text("old")]);
            assert_eq!(fetch(cache, "a", "made").await?, "old");
            Ok(())
        };
        assert_eq!(cache.trips(held).await?, 0);
        bed.clock().advance(INSTANT);
        assert_eq!(cache.get("a").await?, text("new"));
        // It stays held as a piece.
        others.set("a", "newer").await?;
        assert_eq!(cache.get("a").await?, text("new"));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn preload_answers_absences_for_ten_seconds(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        others.set("a", "new").await?;
        bed.clock().advance(TEN - INSTANT);
        for _ in 0..2 {
            assert_eq!(cache.get::<String>("a").await?, None);
        }
        bed.clock().advance(INSTANT);
        assert_eq!(cache.get("a").await?, text("new"));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn twenty_reads_of_a_preloaded_absence_make_one_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        for _ in 0..20 {
            assert_eq!(cache.get::<String>("a").await?, None);
            assert!(!cache.contains("b").await?);
            let none: Vec<Option<String>> = cache.get_many(&["a", "b"]).await?;
            assert_eq!(none, [None, None]);
        }
        Ok(())
    };
    assert_eq!(cache.trips(cache.preload(["a", "b"], page)).await?, 1);
    Ok(())
}

async fn fetch_of_a_preloaded_absence_does_not_look_again(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        let store = async {
            assert_eq!(fetch(cache, "a", "made").await?, "made");
            Ok(())
        };
        let (done, seen) = cache.watch(store).await;
        done?;
        let words: Vec<_> = seen.records().iter().map(|trip| trip.ops[0].0).collect();
        assert_eq!(words, ["set"]);
        assert_eq!(cache.get("a").await?, text("made"));
        Ok(())
    };
    assert_eq!(cache.trips(cache.preload(["a"], page)).await?, 2);
    Ok(())
}

async fn nested_scopes_share_pieces(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("b", "old").await?;
    let page = async {
        assert_eq!(fetch(cache, "a", "outer").await?, "outer");
        others.sees("a", "outer").await?;
        others.set("a", "theirs").await?;
        let inner = async {
            others.set("b", "new").await?;
            assert_eq!(fetch(cache, "a", "inner").await?, "outer");
            assert_eq!(fetch(cache, "c", "inner").await?, "inner");
            Ok(())
        };
        cache.preload(["b"], inner).await?;
        others.sees("c", "inner").await?;
        others.set("c", "theirs").await?;
        assert_eq!(fetch(cache, "c", "outer").await?, "inner");
        assert_eq!(
            cache.get("b").await?,
            text("old"),
            "the inner scope preloaded it by name"
        );
        Ok(())
    };
    cache.scope(page).await
}

async fn preload_in_a_scope_names_keys_from_then_on(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(fetch(cache, "a", "made").await?, "made");
        others.sees("a", "made").await?;
        others.set("a", "theirs").await?;
        assert_eq!(cache.get("a").await?, text("theirs"));
        let named = async {
            assert_eq!(cache.get("a").await?, text("made"));
            Ok(())
        };
        // The scope holds it, so no trip is made.
        assert_eq!(cache.trips(cache.preload(["a"], named)).await?, 0);
        Ok(())
    };
    cache.scope(page).await
}

async fn pieces_end_with_their_scope(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async { fetch(cache, "a", "made").await };
    cache.preload(["b"], page).await?;
    others.set("a", "theirs").await?;
    others.set("b", "theirs").await?;
    assert_eq!(fetch(cache, "a", "again").await?, "theirs");
    assert_eq!(cache.get("b").await?, text("theirs"));
    let page = async {
        assert_eq!(fetch(cache, "a", "again").await?, "theirs");
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 1);
    Ok(())
}

async fn scope_max_age_can_be_zero(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().scope_max_age(Duration::ZERO));
    let others = bed.elsewhere();
    others.set("a", "old").await?;
    let page = async {
        others.set("a", "new").await?;
        assert_eq!(cache.get("a").await?, text("new"));
        others.set("a", "newer").await?;
        assert_eq!(fetch(cache, "a", "made").await?, "newer");
        others.set("a", "newest").await?;
        assert_eq!(fetch(cache, "a", "made").await?, "newest");
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn piece_is_a_fresh_copy(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let fetch = async || cache.cached("list", HOUR, || vec![1, 2]).await;
    let page = async {
        let mut first: Vec<i64> = fetch().await?;
        first.push(3);
        assert_eq!(fetch().await?, [1, 2]);
        Ok(())
    };
    cache.scope(page).await
}

async fn warm_page_of_cached_functions_makes_one_trip(bed: Bed) -> Outcome {
    let cache = &bed.posting();
    let keys: Vec<String> = (0..20).map(|id| format!("note:{id}")).collect();
    let made = Cell::new(0);
    let page = async || {
        for key in keys.iter().chain(&keys) {
            let make = || {
                made.set(made.get() + 1);
                key.clone()
            };
            assert_eq!(&cache.cached(key, HOUR, make).await?, key);
        }
        Ok(())
    };
    let (cold, seen) = cache.watch(cache.preload(&keys, page())).await;
    cold?;
    // A local store is written at once.
    let trips = if cache.cache().is_local() { 21 } else { 1 };
    assert_eq!((seen.trips(), seen.posted()), (trips, 21 - trips));
    assert_eq!(made.get(), 20);
    assert_eq!(cache.trips(cache.preload(&keys, page())).await?, 1);
    assert_eq!(made.get(), 20);
    Ok(())
}

async fn cold_page_computes_each_piece_once(bed: Bed) -> Outcome {
    // Store errors become misses, and results are posted.
    let cache = &bed.open(bed.builder().on_error(OnError::Miss));
    let made = Cell::new(0);
    let page = async {
        for _ in 0..3 {
            let make = || {
                made.set(made.get() + 1);
                made.get()
            };
            let value = cache.cached("a", Ttl::Default, make).await?;
            assert_eq!(value, 1);
        }
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(
        bed.cache().get("a").await?,
        Some(1),
        "the end of the scope drains posts"
    );
    Ok(())
}

async fn scope_hit_counts_as_a_hit(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", &1).await?;
    let page = async {
        cache.get::<i64>("a").await?;
        cache.get::<i64>("x").await?;
        cache.get::<i64>("x").await?;
        cache.contains("a").await?;
        cache.cached("a", HOUR, || 2).await?;
        Ok(())
    };
    cache.preload(["a", "x"], page).await?;
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.scope_hits, stats.misses), (3, 3, 2));
    Ok(())
}

/// Also if the server is unreachable.
#[test]
fn page_holds_results_it_could_not_store() {
    let _turn = turn();
    // The port of tcpmux: listening needs a privilege, and nobody uses it.
    let cache = onetrip::Cache::open("redis://127.0.0.1:1/0").unwrap();
    let made = Cell::new(0);
    let fetch = || {
        let make = || {
            made.set(made.get() + 1);
            Ok(made.get())
        };
        let hour = Ttl::After(HOUR);
        onetrip::__private::fetch_blocking(&cache, "a", hour, false, make, Err)
    };
    let page = || {
        cache.blocking().set("b", &1)?;
        assert_eq!(
            cache.blocking().get::<i64>("b")?,
            None,
            "nothing was stored"
        );
        assert_eq!((fetch()?, fetch()?), (1, 1));
        Ok::<_, onetrip::Error>(())
    };
    cache.blocking().preload(["a", "b"], page).unwrap();
    assert_eq!(made.get(), 1);
}

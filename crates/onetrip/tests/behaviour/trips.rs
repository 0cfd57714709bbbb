//! Laws 2 and 3: one trip in and one trip out, by the server's own count.

use std::collections::BTreeMap;
use std::time::Duration;

use onetrip::Timeout;

use crate::support::{Bed, Outcome};

on_every_server![
    a_preload_is_one_trip,
    a_read_that_was_preloaded_asks_nobody,
    a_preload_asks_for_each_key_once,
    absent_is_answered_once,
    absent_is_answered_once_in_get_many,
    a_loop_that_waits_for_a_key_ends,
    an_answer_is_remembered,
    writes_leave_together,
    an_inner_scope_makes_no_trip_out,
    a_warm_page_is_one_trip_and_a_cold_one_two,
    deletes_go_at_once,
    what_changes_a_key_takes_its_write_along,
    a_write_that_was_replaced_never_leaves,
    get_many_is_one_command,
    set_many_and_delete_many_are_one_trip,
];

/// What the server counted, as `[("get", 2)]`.
fn commands(bed: &Bed) -> Vec<(String, u64)> {
    let asked = bed.server().asked();
    bed.server().reset();
    asked.into_iter().collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
    let sorted: BTreeMap<&str, u64> = counts.into();
    let owned = sorted
        .into_iter()
        .map(|(word, count)| (word.to_owned(), count));
    owned.collect()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("note:{number}")).collect()
}

async fn a_preload_is_one_trip(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.cache(), keys(1000));
    cache
        .set_many(keys.iter().map(|key| (key, 1)), HOUR)
        .await?;
    bed.server().reset();
    let trips = cache.trips(cache.preload(&keys, async { Ok(()) }));
    assert_eq!(trips.await?, 1);
    assert_eq!(commands(&bed), counts([("mget", 1)]));
    Ok(())
}

const HOUR: Timeout = Timeout::After(Duration::from_secs(60 * 60));

async fn a_read_that_was_preloaded_asks_nobody(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.cache(), keys(50));
    cache
        .set_many(keys.iter().map(|key| (key, 1)), HOUR)
        .await?;
    bed.server().reset();
    let page = async {
        for key in keys.iter().chain(&keys) {
            assert_eq!(cache.get(key).await?, Some(1));
            assert!(cache.contains(key).await?);
        }
        let all: Vec<Option<i64>> = cache.get_many(&keys).await?;
        assert_eq!(all, vec![Some(1); 50]);
        Ok(())
    };
    cache.preload(&keys, page).await?;
    assert_eq!(commands(&bed), counts([("mget", 1)]));
    Ok(())
}

async fn a_preload_asks_for_each_key_once(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
    bed.server().reset();
    let page = async {
        assert_eq!(commands(&bed), counts([("get", 1)]));
        // Neither what is held nor what is known to be absent.
        cache.preload(["a"], async { Ok(()) }).await?;
        assert_eq!(commands(&bed), counts([]));
        cache
            .preload(["x", "a", "b", "b"], async { Ok(()) })
            .await?;
        assert_eq!(commands(&bed), counts([("mget", 1)]));
        cache.preload(["x", "a", "b"], async { Ok(()) }).await?;
        assert_eq!(cache.get("b").await?, Some(2));
        Ok(())
    };
    cache.preload(["a", "a"], page).await?;
    assert_eq!(commands(&bed), counts([]));
    Ok(())
}

async fn absent_is_answered_once(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        bed.server().reset();
        assert_eq!(cache.get::<i64>("a").await?, None);
        assert!(!cache.contains("b").await?);
        assert_eq!(commands(&bed), counts([]), "the preload found them absent");
        assert_eq!(cache.get::<i64>("a").await?, None);
        assert_eq!(commands(&bed), counts([("get", 1)]), "the second read asks");
        cache.set("a", &1).await?;
        assert_eq!(cache.get("a").await?, Some(1));
        assert_eq!(commands(&bed), counts([]));
        Ok(())
    };
    cache.preload(["a", "b"], page).await?;
    assert_eq!(commands(&bed), counts([("set", 1)]));
    Ok(())
}

async fn absent_is_answered_once_in_get_many(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        bed.server().reset();
        let none: Vec<Option<i64>> = cache.get_many(&["a", "b"]).await?;
        assert_eq!(none, [None, None]);
        assert_eq!(commands(&bed), counts([]));
        let none: Vec<Option<i64>> = cache.get_many(&["a", "b"]).await?;
        assert_eq!(none, [None, None]);
        assert_eq!(commands(&bed), counts([("mget", 1)]));
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn a_loop_that_waits_for_a_key_ends(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), bed.cache());
    let page = async {
        other.set("ready", &true).await?;
        for _ in 0..2 {
            if cache.get("ready").await? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    assert!(cache.preload(["ready"], page).await?);
    Ok(())
}

async fn an_answer_is_remembered(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 2), ("c", 3)], HOUR).await?;
    bed.server().reset();
    let page = async {
        for _ in 0..3 {
            assert_eq!(cache.get("a").await?, Some(1));
            let some: Vec<Option<i64>> = cache.get_many(&["b", "a", "c"]).await?;
            assert_eq!(some, [Some(2), Some(1), Some(3)]);
            assert_eq!(cache.incr("n", 1).await?, None);
        }
        Ok(())
    };
    cache.scope(page).await?;
    let asked = counts([("get", 1), ("mget", 1), ("eval", 3), ("exists", 3)]);
    assert_eq!(commands(&bed), asked);
    assert_eq!(cache.get("a").await?, Some(1));
    assert_eq!(
        commands(&bed),
        counts([("get", 1)]),
        "outside, each read asks"
    );
    Ok(())
}

async fn writes_leave_together(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let page = async {
        for number in 0..50 {
            cache.set(format!("note:{number}"), &number).await?;
        }
        cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
        assert_eq!(commands(&bed), counts([]), "nothing leaves before the end");
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 1);
    assert_eq!(commands(&bed), counts([("set", 52)]));
    Ok(())
}

async fn an_inner_scope_makes_no_trip_out(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let page = async {
        for number in 0..3 {
            let inner = async { cache.set(format!("{number}"), &number).await };
            cache.scope(inner).await?;
        }
        assert_eq!(commands(&bed), counts([]));
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 1);
    assert_eq!(commands(&bed), counts([("set", 3)]));
    Ok(())
}

async fn a_warm_page_is_one_trip_and_a_cold_one_two(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.cache(), keys(50));
    let page = async || {
        for key in &keys {
            let made: String = cache.get_or_insert(key, HOUR, || key.clone()).await?;
            assert_eq!(&made, key);
        }
        Ok(())
    };
    assert_eq!(cache.trips(cache.preload(&keys, page())).await?, 2);
    assert_eq!(commands(&bed), counts([("mget", 1), ("set", 50)]));
    assert_eq!(cache.trips(cache.preload(&keys, page())).await?, 1);
    assert_eq!(commands(&bed), counts([("mget", 1)]));
    assert_eq!(cache.trips(page()).await?, 50);
    Ok(())
}

async fn deletes_go_at_once(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
    bed.server().reset();
    let page = async {
        bed.server().reset();
        assert_eq!(cache.delete_many(&["a", "b", "x"]).await?, 2);
        assert_eq!(commands(&bed), counts([("unlink", 3)]));
        cache.set_for("a", &1, Duration::ZERO).await?;
        assert_eq!(commands(&bed), counts([("unlink", 1)]));
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn what_changes_a_key_takes_its_write_along(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let page = async {
        for key in ["a", "b", "c", "d", "other"] {
            cache.set(key, &1).await?;
        }
        let trips = cache.trips(async {
            assert!(!cache.add("a", &5, HOUR).await?);
            Ok(())
        });
        assert_eq!(trips.await?, 1);
        assert_eq!(commands(&bed), counts([("set", 2)]));
        let trips = cache.trips(async {
            assert_eq!(cache.incr("b", 5).await?, Some(6));
            Ok(())
        });
        assert_eq!(trips.await?, 1);
        let asked: BTreeMap<_, _> = commands(&bed).into_iter().collect();
        assert_eq!((asked["set"], asked["incrby"]), (1, 1));
        let trips = cache.trips(async {
            assert_eq!(cache.touch_many(&["c"], HOUR).await?, 1);
            Ok(())
        });
        assert_eq!(trips.await?, 1);
        assert_eq!(commands(&bed), counts([("set", 1), ("pexpire", 1)]));
        assert!(cache.delete("d").await?);
        assert_eq!(
            commands(&bed),
            counts([("unlink", 1)]),
            "nor is it written first"
        );
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(
        commands(&bed),
        counts([("set", 1)]),
        "only `other` still waited"
    );
    Ok(())
}

async fn a_write_that_was_replaced_never_leaves(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let page = async {
        for number in 0..10 {
            cache.set("a", &number).await?;
        }
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(commands(&bed), counts([("set", 1)]));
    assert_eq!(cache.get("a").await?, Some(9));
    Ok(())
}

async fn get_many_is_one_command(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.cache(), keys(100));
    let trips = cache.trips(async {
        cache.get_many::<i64, _>(&keys).await?;
        Ok(())
    });
    assert_eq!(trips.await?, 1);
    assert_eq!(commands(&bed), counts([("mget", 1)]));
    Ok(())
}

async fn set_many_and_delete_many_are_one_trip(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.cache(), keys(100));
    let trips = cache.trips(cache.set_many(keys.iter().map(|key| (key, 1)), HOUR));
    assert_eq!(trips.await?, 1);
    assert_eq!(commands(&bed), counts([("set", 100)]));
    let trips = cache.trips(async {
        assert_eq!(cache.touch_many(&keys, HOUR).await?, 100);
        Ok(())
    });
    assert_eq!(trips.await?, 1);
    let trips = cache.trips(async {
        assert_eq!(cache.delete_many(&keys).await?, 100);
        Ok(())
    });
    assert_eq!(trips.await?, 1);
    assert_eq!(commands(&bed), counts([("pexpire", 100), ("unlink", 100)]));
    Ok(())
}

//! Law 1: a program means the same with a scope and without one.

use std::time::Duration;

use onetrip::{MAX_PENDING, Timeout};

use crate::support::{Bed, Blob, Face, Outcome};

on_every_store![
    a_scope_sees_its_own_writes,
    a_scope_sees_its_own_deletes,
    a_preloaded_answer_does_not_outlive_a_write,
    an_inner_write_outlives_its_scope,
    an_inner_delete_is_seen_outside,
    an_outer_write_is_seen_inside,
    an_inner_preload_does_not_hide_a_waiting_write,
    add_sees_what_waits,
    add_is_seen_at_once,
    incr_adds_to_what_waits,
    touch_keeps_what_waits,
    a_touch_in_a_scope_is_the_timeout_that_counts,
    delete_counts_what_waits,
    clear_takes_what_waits_along,
    get_many_sees_what_waits,
    zero_removes_what_waits,
    a_timeout_that_passes_in_the_scope_is_kept_to,
    a_waiting_write_leaves_with_the_rest_of_its_time,
    a_waiting_write_that_expired_removes_what_it_replaced,
    an_answer_is_never_older_than_the_oldest_allowed,
    the_oldest_allowed_can_be_nothing,
    a_waiting_write_is_never_lost_to_age,
    a_page_that_fails_still_writes,
    a_cache_may_write_at_once,
    two_caches_have_scopes_of_their_own,
    nothing_is_cached_in_debug,
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn read(cache: &Face, key: &str) -> onetrip::Result<Option<String>> {
    cache.get(key).await
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn a_scope_sees_its_own_writes(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    cache.set("a", "old").await?;
    let page = async {
        cache.set("a", "new").await?;
        cache.set("b", "new").await?;
        assert_eq!(read(cache, "a").await?, text("new"));
        assert_eq!(read(cache, "b").await?, text("new"));
        cache.set("b", "newer").await?;
        assert_eq!(read(cache, "b").await?, text("newer"));
        assert!(cache.contains("b").await?);
        assert_eq!(read(&outside, "a").await?, text("old"), "it has not left");
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(&outside, "a").await?, text("new"));
    assert_eq!(read(&outside, "b").await?, text("newer"));
    Ok(())
}

async fn a_scope_sees_its_own_deletes(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    cache.set("a", "old").await?;
    let page = async {
        assert!(cache.delete("a").await?);
        assert_eq!(read(cache, "a").await?, None);
        assert_eq!(read(&outside, "a").await?, None);
        cache.set("b", "new").await?;
        assert!(cache.delete("b").await?);
        assert!(!cache.delete("b").await?);
        assert_eq!(read(cache, "b").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await?;
    assert!(!outside.contains("a").await?);
    assert!(!outside.contains("b").await?);
    Ok(())
}

async fn a_preloaded_answer_does_not_outlive_a_write(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 1)], Timeout::Never).await?;
    let keys = ["a", "b", "c"];
    let page = async {
        cache.set_many([("a", 2), ("c", 2)], Timeout::Never).await?;
        assert_eq!(cache.incr("b", 5).await?, Some(6));
        let values: Vec<Option<i64>> = cache.get_many(&keys).await?;
        assert_eq!(values, [Some(2), Some(6), Some(2)]);
        Ok(())
    };
    cache.preload(keys, page).await?;
    let values: Vec<Option<i64>> = cache.get_many(&keys).await?;
    assert_eq!(values, [Some(2), Some(6), Some(2)]);
    Ok(())
}

async fn an_inner_write_outlives_its_scope(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    let page = async {
        cache.set("a", "outer").await?;
        let inner = async {
            cache.set("a", "inner").await?;
            cache
                .scope(async { cache.set("b", "innermost").await })
                .await
        };
        cache.preload(["a", "b"], inner).await?;
        assert_eq!(read(cache, "a").await?, text("inner"));
        assert_eq!(read(cache, "b").await?, text("innermost"));
        Ok(())
    };
    cache.preload(["a"], page).await?;
    assert_eq!(read(&outside, "a").await?, text("inner"));
    assert_eq!(read(&outside, "b").await?, text("innermost"));
    Ok(())
}

async fn an_inner_delete_is_seen_outside(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        assert_eq!(read(cache, "a").await?, text("old"));
        let inner = async { cache.delete("a").await };
        assert!(cache.preload(["a"], inner).await?);
        assert_eq!(read(cache, "a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn an_outer_write_is_seen_inside(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set("a", "outer").await?;
        let inner = async {
            assert_eq!(read(cache, "a").await?, text("outer"));
            assert_eq!(read(cache, "b").await?, None);
            cache.set("b", "inner").await
        };
        cache.preload(["a", "b"], inner).await?;
        cache.preload(["b"], async { read(cache, "b").await }).await
    };
    assert_eq!(cache.preload(["a"], page).await?, text("inner"));
    Ok(())
}

async fn an_inner_preload_does_not_hide_a_waiting_write(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        cache.set("a", "new").await?;
        // Even where the answer itself is too old, the write still has to leave.
        bed.clock().advance(11 * SECOND);
        cache.preload(["a"], async { read(cache, "a").await }).await
    };
    assert_eq!(cache.scope(page).await?, text("new"));
    assert_eq!(read(cache, "a").await?, text("new"));
    Ok(())
}

async fn add_sees_what_waits(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set("a", "waiting").await?;
        assert!(!cache.add("a", "added", Timeout::Default).await?);
        assert_eq!(read(cache, "a").await?, text("waiting"));
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(cache, "a").await?, text("waiting"));
    Ok(())
}

async fn add_is_seen_at_once(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    let page = async {
        assert!(cache.add("a", "mine", Timeout::Default).await?);
        assert!(!outside.add("a", "yours", Timeout::Default).await?);
        assert_eq!(read(cache, "a").await?, text("mine"));
        // Somebody else's lock is not taken for absent, though the preload found none.
        outside.set("b", "theirs").await?;
        assert!(!cache.add("b", "mine", Timeout::Default).await?);
        assert_eq!(read(cache, "b").await?, text("theirs"));
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn incr_adds_to_what_waits(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    let page = async {
        cache.set_for("a", &5, HOUR).await?;
        assert_eq!(cache.incr("a", 1).await?, Some(6));
        assert_eq!(cache.get("a").await?, Some(6));
        assert_eq!(outside.get("a").await?, Some(6), "it went at once");
        assert_eq!(outside.incr("a", 1).await?, Some(7));
        assert_eq!(cache.incr("a", 1).await?, Some(8), "not lost");
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(cache.get("a").await?, Some(8));
    bed.assert_lives(cache, "a", HOUR).await
}

async fn touch_keeps_what_waits(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set("a", "new").await?;
        assert!(cache.touch("a", HOUR).await?);
        assert!(!cache.touch("b", HOUR).await?);
        assert_eq!(read(cache, "a").await?, text("new"));
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(cache, "a").await?, text("new"));
    bed.assert_lives(cache, "a", HOUR).await
}

async fn a_touch_in_a_scope_is_the_timeout_that_counts(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", "old", Timeout::Never).await?;
    let page = async {
        assert_eq!(read(cache, "a").await?, text("old"));
        assert!(cache.touch("a", Duration::ZERO).await?);
        assert_eq!(read(cache, "a").await?, None);
        assert!(!cache.touch("a", HOUR).await?);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn delete_counts_what_waits(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("stored", "old").await?;
    cache.set("both", "old").await?;
    let page = async {
        cache.set("both", "new").await?;
        cache.set("waiting", "new").await?;
        let keys = ["stored", "both", "waiting", "neither", "both", "waiting"];
        assert_eq!(cache.delete_many(&keys).await?, 3);
        assert_eq!(cache.delete_many(&keys).await?, 0);
        Ok(())
    };
    cache.scope(page).await?;
    let keys = ["stored", "both", "waiting", "neither"];
    assert_eq!(cache.delete_many(&keys).await?, 0, "nothing is left");
    Ok(())
}

async fn clear_takes_what_waits_along(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        cache.set("b", "waiting").await?;
        let cleared = bed.clear(cache).await?.is_some();
        assert_eq!(
            read(cache, "a").await?,
            if cleared { None } else { text("old") }
        );
        // Where nothing clears, the write has gone to the store and stays there.
        assert_eq!(
            read(cache, "b").await?,
            if cleared { None } else { text("waiting") }
        );
        cache.set("c", "after").await
    };
    cache.preload(["a"], page).await?;
    let left: Vec<Option<String>> = cache.get_many(&["a", "b", "c"]).await?;
    let (old, waiting) = if bed.clears() {
        (None, None)
    } else {
        (text("old"), text("waiting"))
    };
    assert_eq!(left, [old, waiting, text("after")]);
    Ok(())
}

async fn get_many_sees_what_waits(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache
        .set_many([("a", 1), ("b", 1), ("c", 1)], Timeout::Never)
        .await?;
    let page = async {
        cache.set("b", &2).await?;
        cache.delete("c").await?;
        // The write of `b` is too old an answer, and goes to the store before it is read there.
        bed.clock().advance(11 * SECOND);
        let values: Vec<Option<i64>> = cache.get_many(&["a", "b", "c", "b", "x"]).await?;
        assert_eq!(values, [Some(1), Some(2), None, Some(2), None]);
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn zero_removes_what_waits(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        cache.set("a", "new").await?;
        cache.set_for("a", "never", Duration::ZERO).await?;
        assert_eq!(read(cache, "a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await?;
    assert_eq!(read(cache, "a").await?, None);
    Ok(())
}

async fn a_timeout_that_passes_in_the_scope_is_kept_to(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set_for("a", "brief", 2 * SECOND).await?;
        bed.clock().advance(SECOND);
        assert_eq!(read(cache, "a").await?, text("brief"));
        bed.clock().advance(SECOND);
        assert_eq!(read(cache, "a").await?, None);
        assert!(!cache.delete("a").await?, "it is over");
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(cache, "a").await?, None);
    Ok(())
}

async fn a_waiting_write_leaves_with_the_rest_of_its_time(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set_for("a", "new", 3 * HOUR).await?;
        bed.clock().advance(HOUR);
        Ok(())
    };
    cache.scope(page).await?;
    bed.assert_lives(cache, "a", 2 * HOUR).await
}

async fn a_waiting_write_that_expired_removes_what_it_replaced(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", "old", Timeout::Never).await?;
    let page = async {
        cache.set_for("a", "brief", SECOND).await?;
        bed.clock().advance(2 * SECOND);
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(cache, "a").await?, None);
    Ok(())
}

async fn an_answer_is_never_older_than_the_oldest_allowed(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    outside.set("preloaded", "old").await?;
    outside.set("read", "old").await?;
    outside.set("number", &1).await?;
    let page = async {
        assert_eq!(read(cache, "read").await?, text("old"));
        assert_eq!(cache.incr("number", 1).await?, Some(2));
        outside.set("preloaded", "new").await?;
        outside.set("read", "new").await?;
        outside.set("number", &9).await?;
        outside.set("absent", "new").await?;
        bed.clock().advance(10 * SECOND - Duration::from_millis(1));
        assert_eq!(read(cache, "preloaded").await?, text("old"));
        assert_eq!(read(cache, "read").await?, text("old"));
        assert_eq!(cache.get("number").await?, Some(2));
        bed.clock().advance(Duration::from_millis(1));
        assert_eq!(read(cache, "preloaded").await?, text("new"));
        assert_eq!(read(cache, "read").await?, text("new"));
        assert_eq!(cache.get("number").await?, Some(9));
        assert_eq!(read(cache, "absent").await?, text("new"));
        Ok(())
    };
    cache.preload(["preloaded", "absent"], page).await
}

async fn the_oldest_allowed_can_be_nothing(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().scope_max_age(Duration::ZERO));
    let outside = bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        outside.set("a", "new").await?;
        assert_eq!(read(cache, "a").await?, text("new"));
        cache.set("a", "newer").await?;
        assert_eq!(read(cache, "a").await?, text("newer"));
        assert_eq!(read(&outside, "a").await?, text("newer"));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn a_waiting_write_is_never_lost_to_age(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set_for("first", "waiting", Timeout::Never).await?;
        bed.clock().advance(60 * SECOND);
        // More answers than a scope keeps without looking for old ones.
        for number in 0..3000 {
            cache.set_for(format!("{number}"), &number, HOUR).await?;
        }
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(cache, "first").await?, text("waiting"));
    let numbers: Vec<_> = (0..3000).map(|number| format!("{number}")).collect();
    assert_eq!(cache.delete_many(&numbers).await?, 3000);
    Ok(())
}

async fn a_page_that_fails_still_writes(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        cache.set("a", "new").await?;
        Err::<(), _>(onetrip::Error::new(
            onetrip::ErrorKind::Refused,
            "the page's own",
        ))
    };
    assert!(cache.scope(page).await.is_err());
    assert_eq!(read(cache, "a").await?, text("new"));
    Ok(())
}

async fn a_cache_may_write_at_once(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().defer_writes(false));
    let outside = bed.cache();
    let page = async {
        cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
        assert_eq!(outside.get("a").await?, Some(1));
        let trips = cache.trips(async {
            assert_eq!(cache.get("a").await?, Some(1));
            assert_eq!(cache.get("b").await?, Some(2));
            Ok(())
        });
        assert_eq!(trips.await?, 0, "the scope remembers what it wrote");
        Ok(())
    };
    cache.scope(page).await
}

async fn two_caches_have_scopes_of_their_own(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), &bed.open(bed.builder().prefix(bed.name("x"))));
    let page = async {
        cache.set("a", "one").await?;
        other.set("a", "other").await?;
        let inner = async {
            other.set("b", "other").await?;
            assert_eq!(read(cache, "a").await?, text("one"));
            assert_eq!(read(cache, "b").await?, None);
            Ok(())
        };
        other.scope(inner).await?;
        assert_eq!(read(other, "b").await?, text("other"));
        assert_eq!(read(cache, "a").await?, text("one"));
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(read(other, "a").await?, text("other"));
    Ok(())
}

async fn nothing_is_cached_in_debug(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.open(bed.builder().debug(true)), bed.cache());
    outside.set("a", "there").await?;
    let page = async {
        assert_eq!(read(cache, "a").await?, None);
        cache.set("b", "new").await?;
        assert_eq!(read(cache, "b").await?, None);
        assert!(cache.add("c", "new", Timeout::Default).await?);
        assert_eq!(cache.incr("a", 1).await?, None);
        assert!(!cache.delete("a").await?);
        assert!(!cache.touch("a", HOUR).await?);
        assert_eq!(cache.clear().await?, 0);
        Ok(())
    };
    let trips = cache.trips(cache.preload(["a"], page));
    assert_eq!(trips.await?, 0);
    assert_eq!(read(&outside, "a").await?, text("there"));
    let made: Vec<Option<String>> = outside.get_many(&["b", "c"]).await?;
    assert_eq!(made, [None, None]);
    assert_eq!(cache.stats().misses, 2);
    Ok(())
}

/// Of the scope alone, and too large for the default size of a memory store.
#[test]
fn what_is_too_much_to_wait_goes_at_once() {
    let url = "memory://pending?size=2GiB";
    let open = || onetrip::Cache::open(url).unwrap().blocking();
    let (cache, outside) = (open(), open());
    let large = Blob(vec![7; MAX_PENDING / 4]);
    let page = || {
        for key in ["a", "b", "c"] {
            cache.set(key, &large)?;
            assert!(!outside.contains(key)?, "{key} waits");
        }
        cache.set("d", &large)?;
        assert!(outside.contains("d")?, "{MAX_PENDING} bytes are the most");
        cache.set("c", "small")?;
        cache.set("e", &large)?;
        assert!(!outside.contains("e")?, "there is room again");
        cache.set("c", &large)?;
        assert_eq!(outside.get("c")?, Some(large.clone()));
        assert_eq!(cache.get("c")?, Some(large.clone()));
        Outcome::Ok(())
    };
    cache.scope(page).unwrap().unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(outside.get(key).unwrap(), Some(large.clone()), "{key}");
    }
}

#[test]
fn a_scope_within_scopes_costs_the_stack_no_more_than_one() {
    let cache = onetrip::Cache::open("memory://").unwrap();
    let one = size_of_val(&cache.scope(cache.get::<i64>("a")));
    let many = cache.scope(cache.scope(cache.scope(cache.get::<i64>("a"))));
    assert_eq!(size_of_val(&many), one);
    let watched = cache.watch(cache.watch(cache.get::<i64>("a")));
    assert_eq!(size_of_val(&watched), size_of_val(&cache.watch(async {})));
}

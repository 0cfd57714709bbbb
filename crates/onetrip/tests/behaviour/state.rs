//! Law 1, state: scopes never change the results of plain calls.

use std::time::Duration;

use onetrip::Ttl;

use crate::support::{Bed, Face, Outcome};

on_every_store![
    plain_write_in_a_scope_is_stored_when_it_returns,
    plain_writes_keep_their_order,
    scope_sees_its_own_writes,
    scope_sees_its_own_deletes,
    writes_after_a_preload_are_seen,
    inner_write_is_seen_outside_its_scope,
    outer_write_is_seen_inside,
    plain_read_in_a_scope_reads_the_store_each_time,
    read_after_an_own_write_reads_the_store,
    add_depends_on_the_store,
    incr_adds_to_the_stored_number,
    touch_in_a_scope_sets_the_ttl,
    delete_counts_stored_keys,
    clear_removes_writes_of_the_scope,
    zero_ttl_removes_the_entry,
    entry_expires_within_the_scope,
    failing_page_keeps_its_writes,
    caches_have_separate_scopes,
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

async fn plain_write_in_a_scope_is_stored_when_it_returns(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    cache.set("n", &1).await?;
    let page = async {
        cache.set("a", "set").await?;
        assert_eq!(others.get("a").await?, text("set"));
        cache.set_many([("b", "b"), ("c", "c")], HOUR).await?;
        assert_eq!(others.get("b").await?, text("b"));
        assert_eq!(others.get("c").await?, text("c"));
        assert!(cache.add("d", "added", Ttl::Default).await?);
        assert_eq!(others.get("d").await?, text("added"));
        assert!(cache.delete("a").await?);
        assert_eq!(others.get("a").await?, None);
        assert!(cache.touch("b", Duration::ZERO).await?);
        assert_eq!(others.get("b").await?, None);
        assert_eq!(cache.incr("n", 1).await?, Some(2));
        assert_eq!(bed.cache().get("n").await?, Some(2));
        if bed.clears() {
            cache.clear().await?;
            assert_eq!(others.get("c").await?, None);
        }
        Ok(())
    };
    cache.scope(page).await
}

async fn plain_writes_keep_their_order(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        cache.set("data", "2").await?;
        others.set("data", "theirs").await?;
        cache.set("version", "2").await?;
        assert_eq!(others.get("data").await?, text("theirs"), "not overwritten");
        cache.set("data", "3").await?;
        cache.set("data", "4").await
    };
    cache.scope(page).await?;
    assert_eq!(others.get("data").await?, text("4"));
    Ok(())
}

async fn scope_sees_its_own_writes(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        assert_eq!(read(cache, "a").await?, text("old"));
        cache.set("a", "new").await?;
        cache.set("b", "new").await?;
        assert_eq!(read(cache, "a").await?, text("new"));
        assert_eq!(read(cache, "b").await?, text("new"));
        cache.set("b", "newer").await?;
        assert_eq!(read(cache, "b").await?, text("newer"));
        assert!(cache.contains("b").await?);
        let many: Vec<Option<String>> = cache.get_many(&["a", "b", "x"]).await?;
        assert_eq!(many, [text("new"), text("newer"), None]);
        Ok(())
    };
    cache.scope(page).await
}

async fn scope_sees_its_own_deletes(bed: Bed) -> Outcome {
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

async fn writes_after_a_preload_are_seen(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 1)], Ttl::Never).await?;
    let keys = ["a", "b", "c"];
    let page = async {
        cache.set_many([("a", 2), ("c", 2)], Ttl::Never).await?;
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

async fn inner_write_is_seen_outside_its_scope(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("d", "old").await?;
    let page = async {
        cache.set("a", "outer").await?;
        let inner = async {
            cache.set("a", "inner").await?;
            assert!(cache.delete("d").await?);
            let innermost = async { cache.set("b", "innermost").await };
            cache.scope(innermost).await
        };
        cache.preload(["a", "b", "d"], inner).await?;
        assert_eq!(read(cache, "a").await?, text("inner"));
        assert_eq!(read(cache, "b").await?, text("innermost"));
        assert_eq!(read(cache, "d").await?, None);
        Ok(())
    };
    cache.preload(["a", "d"], page).await
}

async fn outer_write_is_seen_inside(bed: Bed) -> Outcome {
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

async fn plain_read_in_a_scope_reads_the_store_each_time(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(read(cache, "a").await?, None);
        for value in ["1", "2", "3"] {
            others.set("a", value).await?;
            assert_eq!(read(cache, "a").await?, text(value));
            let many: Vec<Option<String>> = cache.get_many(&["a", "b"]).await?;
            assert_eq!(many, [text(value), None]);
            assert!(cache.contains("a").await?);
        }
        others.delete("a").await?;
        assert!(!cache.contains("a").await?);
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 11);
    Ok(())
}

async fn read_after_an_own_write_reads_the_store(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        cache.set("a", "ours").await?;
        others.set("a", "theirs").await?;
        assert_eq!(read(cache, "a").await?, text("theirs"));
        Ok(())
    };
    cache.scope(page).await
}

async fn add_depends_on_the_store(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    let others = bed.elsewhere();
    let page = async {
        assert!(cache.add("a", "mine", Ttl::Default).await?);
        assert!(!outside.add("a", "yours", Ttl::Default).await?);
        assert_eq!(read(cache, "a").await?, text("mine"));
        // Another process's lock must not pass for absent, though the preload found none.
        others.set("b", "theirs").await?;
        assert!(!cache.add("b", "mine", Ttl::Default).await?);
        // After the failed add, the holder of the lock can be read.
        assert_eq!(read(cache, "b").await?, text("theirs"));
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn incr_adds_to_the_stored_number(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    let page = async {
        cache.set_for("a", &5, HOUR).await?;
        assert_eq!(cache.incr("a", 1).await?, Some(6));
        assert_eq!(cache.get("a").await?, Some(6));
        assert_eq!(outside.incr("a", 1).await?, Some(7));
        assert_eq!(cache.incr("a", 1).await?, Some(8), "no increment is lost");
        assert_eq!(cache.incr("absent", 1).await?, None);
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(cache.get("a").await?, Some(8));
    bed.assert_lives(cache, "a", HOUR).await
}

async fn touch_in_a_scope_sets_the_ttl(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", "old", Ttl::Never).await?;
    let page = async {
        assert_eq!(read(cache, "a").await?, text("old"));
        assert!(cache.touch("a", Duration::ZERO).await?);
        assert_eq!(read(cache, "a").await?, None);
        assert!(!cache.touch("a", HOUR).await?);
        cache.set("b", "new").await?;
        assert!(cache.touch("b", HOUR).await?);
        assert_eq!(read(cache, "b").await?, text("new"));
        Ok(())
    };
    cache.preload(["a"], page).await?;
    bed.assert_lives(cache, "b", HOUR).await
}

async fn delete_counts_stored_keys(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("before", "old").await?;
    cache.set("both", "old").await?;
    let page = async {
        cache.set("both", "new").await?;
        cache.set("within", "new").await?;
        let keys = ["before", "both", "within", "neither", "both", "within"];
        assert_eq!(cache.delete_many(&keys).await?, 3);
        assert_eq!(cache.delete_many(&keys).await?, 0);
        Ok(())
    };
    cache.scope(page).await
}

async fn clear_removes_writes_of_the_scope(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        cache.set("b", "within").await?;
        let cleared = bed.clear(cache).await?.is_some();
        let left = |value| if cleared { None } else { text(value) };
        assert_eq!(read(cache, "a").await?, left("old"));
        assert_eq!(read(cache, "b").await?, left("within"));
        cache.set("c", "after").await
    };
    cache.preload(["a"], page).await?;
    assert_eq!(read(cache, "c").await?, text("after"));
    Ok(())
}

async fn zero_ttl_removes_the_entry(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    cache.set("a", "old").await?;
    let page = async {
        cache.set("a", "new").await?;
        cache.set_for("a", "never", Duration::ZERO).await?;
        assert_eq!(others.get("a").await?, None);
        assert_eq!(read(cache, "a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn entry_expires_within_the_scope(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    if !cache.cache().is_local() {
        // A server's own clock cannot be advanced.
        return Ok(());
    }
    let page = async {
        cache.set_for("a", "brief", 2 * SECOND).await?;
        bed.clock().advance(SECOND);
        assert_eq!(read(cache, "a").await?, text("brief"));
        bed.clock().advance(SECOND);
        assert_eq!(read(cache, "a").await?, None);
        assert!(!cache.delete("a").await?, "the entry has expired");
        Ok(())
    };
    cache.scope(page).await
}

async fn failing_page_keeps_its_writes(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        cache.set("a", "new").await?;
        Err::<(), _>(onetrip::Error::new(
            onetrip::ErrorKind::Refused,
            "the page's own",
        ))
    };
    assert!(cache.scope(page).await.is_err());
    assert_eq!(others.get("a").await?, text("new"));
    Ok(())
}

async fn caches_have_separate_scopes(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), &bed.open(bed.builder().prefix(bed.name("x"))));
    let page = async {
        cache.set("a", "one").await?;
        other.set("a", "other").await?;
        let inner = async {
            assert_eq!(read(cache, "a").await?, text("one"));
            assert_eq!(read(other, "a").await?, text("other"));
            cache.set("a", "new").await?;
            assert_eq!(read(other, "a").await?, text("other"));
            Ok(())
        };
        other.preload(["a"], inner).await?;
        assert_eq!(read(cache, "a").await?, text("new"));
        Ok(())
    };
    cache.preload(["a"], page).await?;
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
        assert!(cache.add("c", "new", Ttl::Default).await?);
        assert_eq!(cache.incr("a", 1).await?, None);
        assert!(!cache.delete("a").await?);
        assert!(!cache.touch("a", HOUR).await?);
        assert_eq!(cache.clear().await?, 0);
        Ok(())
    };
    let trips = cache.trips(cache.preload(["a"], page));
    assert_eq!(trips.await?, 0);
    let fetches = async {
        for _ in 0..2 {
            let made = cache.cached("a", HOUR, || "made".to_owned()).await?;
            assert_eq!(made, "made");
        }
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(fetches)).await?, 0);
    assert_eq!(read(&outside, "a").await?, text("there"));
    let made: Vec<Option<String>> = outside.get_many(&["b", "c"]).await?;
    assert_eq!(made, [None, None]);
    assert_eq!(cache.stats().misses, 4);
    Ok(())
}

#[test]
fn nested_scopes_need_no_more_stack() {
    let cache = onetrip::Cache::open("memory://").unwrap();
    let one = size_of_val(&cache.scope(cache.get::<i64>("a")));
    let many = cache.scope(cache.scope(cache.scope(cache.get::<i64>("a"))));
    assert_eq!(size_of_val(&many), one);
    let watched = cache.watch(cache.watch(cache.get::<i64>("a")));
    assert_eq!(size_of_val(&watched), size_of_val(&cache.watch(async {})));
}

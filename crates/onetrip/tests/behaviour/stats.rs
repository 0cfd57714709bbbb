//! Counters and watches.

use onetrip::{Stats, Ttl};

use crate::support::{Bed, Blob, Face, Outcome};

on_every_store![
    every_counter_counts,
    reset_zeroes_the_counters,
    watch_sees_the_trips_within,
    watch_describes_each_trip,
    watches_nest,
    watch_sees_only_its_cache,
    global_watch_sees_all_caches,
];

fn fields(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counted = stats.fields().into_iter();
    counted.filter(|(_, count)| *count > 0).collect()
}

async fn every_counter_counts(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let entry = 12 + 100;
    let value = Blob(vec![1; 100]);
    cache.set("a", &value).await?;
    cache
        .set_many([("b", &value), ("c", &value)], Ttl::Default)
        .await?;
    cache.add("a", &value, Ttl::Default).await?;
    cache.get::<Blob>("a").await?;
    cache.get::<Blob>("x").await?;
    cache.get_many::<Blob, _>(&["a", "b", "x"]).await?;
    cache.delete_many(&["a", "x"]).await?;
    cache
        .set_for("b", &value, std::time::Duration::ZERO)
        .await?;
    cache.incr("c", 1).await.unwrap_err();
    cache.touch("c", Ttl::Never).await?;
    bed.clear(&cache).await?;
    let mut expected = vec![
        ("trips", 11),
        ("hits", 3),
        ("misses", 2),
        ("writes", 4),
        ("deletes", 3),
        ("bytes_in", 3 * entry),
        ("bytes_out", 4 * entry),
    ];
    // A mistake in an operation, such as an increment of bytes, is no failure of the store.
    if !bed.clears() {
        expected.insert(5, ("errors", 1));
    }
    assert_eq!(fields(&cache.stats()), expected);
    Ok(())
}

async fn reset_zeroes_the_counters(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("a", &1).await?;
    cache.cache().reset_stats();
    assert_eq!(cache.stats(), Stats::default());
    cache.clone().get::<i64>("a").await?;
    assert_eq!(cache.stats().hits, 1, "clones count together");
    assert_eq!(bed.cache().stats().hits, 0, "other caches do not");
    Ok(())
}

async fn watch_sees_the_trips_within(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("before", &1).await?;
    let (done, seen) = cache.watch(cache.get::<i64>("a")).await;
    done?;
    assert_eq!(seen.trips(), 1);
    cache.get::<i64>("a").await?;
    assert_eq!(seen.trips(), 1, "it has ended");
    let (done, seen) = cache.watch(async { 5 }).await;
    assert_eq!((done, seen.trips()), (5, 0));
    Ok(())
}

async fn watch_describes_each_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let work = async {
        cache.set("a", &Blob(vec![1; 100])).await?;
        cache.get_many::<Blob, _>(&["a", "b\n"]).await?;
        cache.incr("a", 1).await.unwrap_err();
        let many: Vec<String> = (0..150).map(|number| number.to_string()).collect();
        cache.delete_many(&many).await
    };
    let (done, seen) = cache.watch(work).await;
    done?;
    let [set, read, incr, delete] = &seen.records()[..] else {
        panic!("{:?}", seen.records());
    };
    let name = bed.name("a");
    assert_eq!(set.ops, [("set", name.clone())]);
    assert_eq!((set.bytes_out, set.bytes_in, set.failed), (112, 0, 0));
    assert_eq!(*set.store, *cache.cache().label());
    assert_eq!(read.ops, [("get", name), ("get", bed.name("b\\n"))]);
    assert_eq!((read.bytes_out, read.bytes_in, read.failed), (0, 112, 0));
    assert_eq!((incr.ops[0].0, incr.failed), ("incr", 1));
    assert_eq!((delete.ops.len(), delete.len), (100, 150));
    Ok(())
}

async fn watches_nest(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let work = async {
        cache.get::<i64>("a").await?;
        let (done, inner) = cache.watch(cache.scope(cache.set("a", &1))).await;
        done?;
        Ok::<_, onetrip::Error>(inner)
    };
    let (inner, outer) = cache.watch(work).await;
    assert_eq!((inner?.trips(), outer.trips()), (1, 2));
    Ok(())
}

async fn watch_sees_only_its_cache(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), &bed.cache());
    let both = async |cache: &Face, other: &Face| {
        cache.get::<i64>("a").await?;
        other.get::<i64>("a").await
    };
    let (done, seen) = cache.watch(both(cache, other)).await;
    done?;
    assert_eq!(seen.trips(), 1);
    Ok(())
}

async fn global_watch_sees_all_caches(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), &bed.cache());
    let everything = onetrip::internals::watch_everything();
    cache.get::<i64>("seen").await?;
    other.get::<i64>("seen").await?;
    // Other tests run at the same time and are seen, too.
    let ours = |name: &str| {
        let records = everything.watch().records();
        let names = records.iter().flat_map(|record| record.ops.iter());
        names.filter(|(_, seen)| *seen == bed.name(name)).count()
    };
    assert_eq!(ours("seen"), 2);
    assert!(everything.watch().trips() >= 2);
    Ok(())
}

//! Laws 2 and 3: how often the server is asked, by its own count.

use std::collections::BTreeMap;
use std::time::Duration;

use onetrip::Ttl;

use crate::support::{Bed, Cluster, Outcome, Server, turn};

on_every_server![
    preload_is_one_trip,
    read_of_a_preloaded_key_makes_no_trip,
    preload_asks_for_each_key_once,
    read_of_a_preloaded_absence_makes_no_trip,
    plain_read_makes_a_trip_each_time,
    fetch_looks_up_once,
    plain_write_is_one_trip,
    warm_page_is_one_trip,
    batch_is_one_trip,
    deletes_go_at_once,
    get_many_is_one_command,
    set_many_and_delete_many_are_one_trip,
];

/// Returns the server's command counts, as `[("get", 2)]`.
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

async fn preload_is_one_trip(bed: Bed) -> Outcome {
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

const HOUR: Ttl = Ttl::After(Duration::from_secs(60 * 60));

async fn read_of_a_preloaded_key_makes_no_trip(bed: Bed) -> Outcome {
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

async fn preload_asks_for_each_key_once(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
    bed.server().reset();
    let page = async {
        assert_eq!(commands(&bed), counts([("get", 1)]));
        // Skips keys that are held and keys known to be absent.
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

async fn read_of_a_preloaded_absence_makes_no_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        bed.server().reset();
        for _ in 0..20 {
            assert_eq!(cache.get::<i64>("a").await?, None);
            assert!(!cache.contains("b").await?);
            let none: Vec<Option<i64>> = cache.get_many(&["a", "b"]).await?;
            assert_eq!(none, [None, None]);
        }
        assert_eq!(commands(&bed), counts([]), "the preload found them absent");
        cache.set("a", &1).await?;
        assert_eq!(commands(&bed), counts([("set", 1)]));
        assert_eq!(cache.get("a").await?, Some(1));
        assert_eq!(commands(&bed), counts([("get", 1)]));
        Ok(())
    };
    cache.preload(["a", "b"], page).await
}

async fn plain_read_makes_a_trip_each_time(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", 1), ("b", 2), ("c", 3)], HOUR).await?;
    bed.server().reset();
    let page = async {
        for _ in 0..3 {
            assert_eq!(cache.get("a").await?, Some(1));
            let some: Vec<Option<i64>> = cache.get_many(&["b", "a", "c"]).await?;
            assert_eq!(some, [Some(2), Some(1), Some(3)]);
        }
        Ok(())
    };
    cache.scope(page).await?;
    assert_eq!(commands(&bed), counts([("get", 3), ("mget", 3)]));
    Ok(())
}

async fn fetch_looks_up_once(bed: Bed) -> Outcome {
    for cache in [&bed.cache(), &bed.posting()] {
        let page = async {
            bed.server().reset();
            for _ in 0..3 {
                assert_eq!(cache.cached("a", HOUR, || 1).await?, 1);
            }
            Ok(())
        };
        cache.scope(page).await?;
        assert_eq!(commands(&bed), counts([("get", 1), ("set", 1)]));
        cache.delete("a").await?;
        bed.server().reset();
        let page = async {
            for _ in 0..3 {
                assert_eq!(cache.get_or_insert_with("a", HOUR, || 1).await?, 1);
            }
            Ok(())
        };
        let (done, seen) = cache.watch(cache.scope(page)).await;
        done?;
        let trips: Vec<_> = seen.records().iter().map(|trip| trip.len).collect();
        assert_eq!(trips, [1, 2], "a look, and an add with a look");
        cache.delete("a").await?;
    }
    Ok(())
}

async fn plain_write_is_one_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let page = async {
        for number in 0..10 {
            cache.set("a", &number).await?;
            assert_eq!(commands(&bed), counts([("set", 1)]));
            let inner = async { cache.set(format!("{number}"), &number).await };
            cache.scope(inner).await?;
            assert_eq!(commands(&bed), counts([("set", 1)]));
        }
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope(page)).await?, 20);
    assert_eq!(commands(&bed), counts([]));
    Ok(())
}

async fn warm_page_is_one_trip(bed: Bed) -> Outcome {
    let (cache, keys) = (&bed.posting(), keys(50));
    let page = async || {
        for key in &keys {
            let made: String = cache.cached(key, HOUR, || key.clone()).await?;
            assert_eq!(&made, key);
        }
        Ok(())
    };
    let (done, seen) = cache.watch(cache.preload(&keys, page())).await;
    done?;
    assert_eq!((seen.trips(), seen.posted()), (1, 50));
    assert_eq!(commands(&bed), counts([("mget", 1), ("set", 50)]));
    assert_eq!(cache.trips(cache.preload(&keys, page())).await?, 1);
    assert_eq!(commands(&bed), counts([("mget", 1)]));
    assert_eq!(cache.trips(page()).await?, 50);
    Ok(())
}

async fn batch_is_one_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.get::<i64>("connected").await?;
    bed.server().reset();
    let work = async {
        for number in 0..50 {
            cache.set(format!("note:{number}"), &number).await?;
        }
        cache.set_many([("a", 1), ("b", 2)], HOUR).await?;
        assert_eq!(commands(&bed), counts([]), "they wait");
        Ok(())
    };
    assert_eq!(cache.trips(cache.batch(work)).await?, 1);
    assert_eq!(commands(&bed), counts([("set", 52)]));
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

#[test]
fn preload_is_one_trip_to_each_node() {
    let _turn = turn();
    let cluster = Cluster::lend();
    // Counts reads from sockets by a server. Asking for the count adds some.
    let reads = |server: &Server| server.info("total_reads_processed");
    let cache = onetrip::Cache::open(cluster.url()).unwrap().blocking();
    let keys = keys(60);
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Duration::from_secs(3600))
        .unwrap();
    for server in &cluster.servers {
        server.reset();
    }
    let before = cluster
        .servers
        .iter()
        .map(|server| (reads(server), reads(server)));
    let before: Vec<(u64, u64)> = before.collect();
    let page = || {
        let all: Vec<Option<i64>> = cache.get_many(&keys)?;
        assert_eq!(all, vec![Some(1); 60]);
        Ok::<_, onetrip::Error>(())
    };
    let (done, seen) = cache.watch(|| cache.preload(&keys, page));
    done.unwrap();
    assert_eq!(seen.trips(), 1);
    let mut asked = 0;
    for (server, (first, second)) in cluster.servers.iter().zip(before) {
        assert_eq!(reads(server) - second, second - first + 1, "one exchange");
        let counts = server.asked();
        assert!(counts["get"] > 0, "{counts:?}");
        asked += counts["get"];
    }
    assert_eq!(asked, 60);
}

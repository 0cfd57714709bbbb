//! Writes that a program batches.

use std::time::Duration;

use onetrip::{Cache, OnError, Ttl};

use crate::support::{Bed, Blob, Face, Outcome, Server, turn};

on_every_store![
    sets_of_a_batch_leave_together_at_its_end,
    next_trip_takes_batched_writes_along,
    batch_keeps_the_order_of_its_writes,
    reads_see_batched_writes,
    fetch_takes_batched_writes_along,
    store_of_a_fetch_follows_batched_writes,
    batched_set_ends_what_the_scope_holds,
    writes_after_the_block_go_at_once,
    failing_batch_keeps_its_writes,
    inner_batch_takes_outer_writes_along,
    writes_outside_a_batch_go_at_once,
];

const HOUR: Duration = Duration::from_secs(60 * 60);

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Returns the names of the operations of each trip.
async fn words(
    cache: &Face,
    work: impl Future<Output = Outcome>,
) -> onetrip::Result<Vec<Vec<&'static str>>> {
    let (done, seen) = cache.watch(work).await;
    done?;
    let records = seen.records().into_iter();
    Ok(records
        .map(|record| record.ops.iter().map(|(word, _)| *word).collect())
        .collect())
}

async fn sets_of_a_batch_leave_together_at_its_end(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let work = async {
        cache.set("a", "1").await?;
        cache.set_many([("b", "2"), ("c", "3")], HOUR).await?;
        cache.set_for("d", "never", Duration::ZERO).await?;
        for key in ["a", "b", "c"] {
            assert_eq!(others.get(key).await?, None, "{key} waits");
        }
        Ok(())
    };
    others.set("d", "old").await?;
    let words = words(cache, cache.batch(work)).await?;
    assert_eq!(words, [["set", "set", "set", "delete"]]);
    assert_eq!(others.get("a").await?, text("1"));
    assert_eq!(others.get("c").await?, text("3"));
    assert_eq!(others.get("d").await?, None);
    Ok(())
}

async fn next_trip_takes_batched_writes_along(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("n", &1).await?;
    let work = async {
        cache.set("a", "1").await?;
        assert_eq!(
            cache.incr("n", 1).await?,
            Some(2),
            "the reply of incr itself"
        );
        cache.set("b", "2").await?;
        assert!(cache.add("c", "3", HOUR).await?);
        cache.set("d", "4").await?;
        assert_eq!(cache.delete_many(&["d", "x"]).await?, 1);
        cache.set("e", "5").await?;
        assert!(cache.touch("e", HOUR).await?);
        assert!(cache.contains("e").await?);
        Ok(())
    };
    let words = words(cache, cache.batch(work)).await?;
    let expected = [
        vec!["set", "incr"],
        vec!["set", "add"],
        vec!["set", "delete", "delete"],
        vec!["set", "touch"],
        vec!["get"],
    ];
    assert_eq!(words, expected);
    Ok(())
}

async fn batch_keeps_the_order_of_its_writes(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let work = async {
        for value in ["1", "2", "3"] {
            cache.set("a", value).await?;
        }
        cache.delete("a").await?;
        cache.set("a", "4").await?;
        cache.set("a", "5").await
    };
    cache.batch(work).await?;
    assert_eq!(cache.get("a").await?, text("5"));
    Ok(())
}

async fn reads_see_batched_writes(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_many([("a", "old"), ("b", "old")], HOUR).await?;
    let work = async {
        cache.set("a", "new").await?;
        assert_eq!(cache.get("a").await?, text("new"));
        cache.set("b", "new").await?;
        let both: Vec<Option<String>> = cache.get_many(&["a", "b"]).await?;
        assert_eq!(both, [text("new"), text("new")]);
        cache.set("c", "new").await?;
        assert!(cache.contains("c").await?);
        Ok(())
    };
    // Also in a scope that holds the old values.
    cache.preload(["a", "b", "c"], cache.batch(work)).await
}

async fn fetch_takes_batched_writes_along(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let work = async {
        cache.set("a", "waits").await?;
        let found = cache.cached("a", HOUR, || "made".to_owned()).await?;
        assert_eq!(found, "waits");
        Ok(())
    };
    let words = words(cache, cache.batch(work)).await?;
    assert_eq!(words, [["set", "get"]]);
    Ok(())
}

/// A refresh does not look up its key, so its store is the first operation that travels.
async fn store_of_a_fetch_follows_batched_writes(bed: Bed) -> Outcome {
    for cache in [&bed.cache(), &bed.posting()] {
        let work = async {
            cache.set("a", "before").await?;
            let made = cache.refresh("a", HOUR, || "made".to_owned()).await?;
            assert_eq!(made, "made");
            Ok(())
        };
        let (done, seen) = cache.watch(cache.scope(cache.batch(work))).await;
        done?;
        assert_eq!(
            seen.posted(),
            0,
            "batched writes are waited for, and so is this"
        );
        assert_eq!(cache.get("a").await?, text("made"));
    }
    Ok(())
}

async fn batched_set_ends_what_the_scope_holds(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let page = async {
        let fetch = async || cache.cached("a", HOUR, || "old".to_owned()).await;
        assert_eq!(fetch().await?, "old");
        let work = async {
            cache.set("a", "new").await?;
            assert_eq!(fetch().await?, "new");
            Ok(())
        };
        cache.batch(work).await
    };
    cache.scope(page).await
}

async fn writes_after_the_block_go_at_once(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    cache.batch(async { cache.set("a", "1").await }).await?;
    cache.set("b", "2").await?;
    assert_eq!(others.get("b").await?, text("2"));
    Ok(())
}

async fn failing_batch_keeps_its_writes(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let work = async {
        cache.set("a", "1").await?;
        Err::<(), _>(onetrip::Error::new(onetrip::ErrorKind::Refused, "its own"))
    };
    assert!(cache.batch(work).await.is_err());
    assert_eq!(others.get("a").await?, text("1"));
    Ok(())
}

async fn inner_batch_takes_outer_writes_along(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let work = async {
        cache.set("a", "outer").await?;
        let inner = async {
            cache.set("b", "inner").await?;
            assert_eq!(cache.get("a").await?, text("outer"));
            cache.set("a", "inner").await
        };
        cache.batch(inner).await?;
        assert_eq!(others.get("a").await?, text("inner"));
        assert_eq!(others.get("b").await?, text("inner"));
        cache.set("a", "outer again").await
    };
    let words = words(cache, cache.batch(work)).await?;
    assert_eq!(words, [vec!["set", "set", "get"], vec!["set"], vec!["set"]]);
    assert_eq!(others.get("a").await?, text("outer again"));
    Ok(())
}

async fn writes_outside_a_batch_go_at_once(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let work = async {
        cache.set("a", "1").await?;
        // Another cache takes no part in it.
        bed.cache().set("c", "3").await?;
        assert_eq!(others.get("c").await?, text("3"));
        assert_eq!(others.get("a").await?, None);
        Ok(())
    };
    cache.batch(work).await?;
    assert_eq!(others.get("a").await?, text("1"));
    Ok(())
}

/// A thread may outlive the block.
#[test]
fn closed_batch_gathers_nothing() {
    let _turn = turn();
    let cache = Cache::open("memory://").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let (go, signal) = std::sync::mpsc::channel();
        let work = async {
            let cache = cache.blocking();
            let thread = onetrip::spawn_blocking(move || {
                signal.recv().unwrap();
                cache.set("a", &1)
            });
            Ok::<_, onetrip::Error>(thread)
        };
        let thread = cache.batch(work).await.unwrap();
        go.send(()).unwrap();
        thread.await.unwrap().unwrap();
        assert_eq!(cache.get("a").await.unwrap(), Some(1));
    });
}

/// The limit protects programs that gather more than they mean to.
#[test]
fn batch_holds_at_most_64_mib() {
    let _turn = turn();
    let open = || Cache::open("memory://batch?size=2GiB").unwrap().blocking();
    let (cache, outside) = (open(), open());
    let large = Blob(vec![7; 20 << 20]);
    let work = || {
        for key in ["a", "b", "c"] {
            cache.set(key, &large)?;
            assert!(!outside.contains(key)?, "{key} waits");
        }
        cache.set("d", &large)?;
        for key in ["a", "b", "c", "d"] {
            assert!(outside.contains(key)?, "{key} left with the one too many");
        }
        cache.set("a", "small")?;
        assert_eq!(
            outside.get("a")?,
            Some(large.clone()),
            "there is room again"
        );
        Outcome::Ok(())
    };
    cache.batch(work).unwrap();
    assert_eq!(outside.get("a").unwrap(), text("small"));
}

#[test]
fn refused_batch_is_an_error_with_on_error_raise() {
    let _turn = turn();
    let server = Server::start();
    let _: () = server.ask(&["ACL", "SETUSER", "default", "-set"]);
    let open = |on_error| {
        let cache = Cache::builder(server.url()).on_error(on_error);
        cache.build().unwrap().blocking()
    };
    let (raising, lenient) = (open(OnError::Raise), open(OnError::Miss));
    assert!(raising.batch(|| raising.set("a", &1)).is_err());
    // Operations that travel with the writes get the error, too.
    let read = || {
        raising.set("a", &1).unwrap();
        Outcome::Err(raising.get::<i64>("x").unwrap_err())
    };
    assert_eq!(
        raising.batch(read).unwrap_err().kind(),
        onetrip::ErrorKind::Refused
    );
    lenient.batch(|| lenient.set("a", &1)).unwrap();
    let page = || lenient.get_or_insert_with("x", Ttl::Default, || 5);
    assert_eq!(lenient.batch(page).unwrap(), 5);
    assert_eq!(lenient.get::<i64>("a").unwrap(), None);
    assert!(lenient.asynchronous().stats().errors > 0);
}

/// The error of the work says more than the one of its last trip.
#[test]
fn a_batch_returns_the_error_of_its_work_and_sends_what_it_wrote() {
    let _turn = turn();
    let cache = Cache::open("memory://").unwrap().blocking();
    let failed = cache.batch(|| -> Outcome {
        cache.set("a", &1)?;
        Err(onetrip::Error::new(onetrip::ErrorKind::Refused, "no more"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no more");
    assert_eq!(cache.get("a").unwrap(), Some(1));
}

//! Scopes that hold plain answers for as long as the program says, and what ends them.

use std::time::Duration;

use crate::support::{Bed, Elsewhere, Face, Outcome};

on_every_store![
    holding_scope_answers_plain_reads_until_max_age,
    holding_scope_holds_absences,
    own_write_ends_what_a_holding_scope_holds,
    fresh_ends_what_a_holding_scope_holds,
    holding_ends_with_its_block,
    state_write_ends_the_piece_of_its_key,
    state_write_by_another_cache_ends_the_piece,
    state_write_by_another_thread_ends_the_piece,
    clear_ends_all_pieces,
    refresh_with_zero_ttl_ends_what_is_held,
    piece_computed_before_a_write_is_not_held,
];

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const INSTANT: Duration = Duration::from_micros(1);

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn holding_scope_answers_plain_reads_until_max_age(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    others.set("b", "old").await?;
    let page = async {
        assert_eq!(cache.get("a").await?, text("old"));
        let both: Vec<Option<String>> = cache.get_many(&["a", "b"]).await?;
        assert_eq!(both, [text("old"), text("old")]);
        others.set("a", "new").await?;
        bed.clock().advance(MINUTE - INSTANT);
        assert_eq!(cache.get("a").await?, text("old"));
        assert!(cache.contains("b").await?);
        bed.clock().advance(INSTANT);
        assert_eq!(cache.get("a").await?, text("new"));
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope_holding(MINUTE, page)).await?, 3);
    Ok(())
}

async fn holding_scope_holds_absences(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(cache.get::<String>("a").await?, None);
        others.set("a", "new").await?;
        for _ in 0..3 {
            assert_eq!(cache.get::<String>("a").await?, None);
            assert!(!cache.contains("a").await?);
        }
        bed.clock().advance(MINUTE);
        assert_eq!(cache.get("a").await?, text("new"));
        Ok(())
    };
    cache.scope_holding(MINUTE, page).await
}

async fn own_write_ends_what_a_holding_scope_holds(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        assert_eq!(cache.get::<String>("a").await?, None);
        cache.set("a", "ours").await?;
        others.set("a", "theirs").await?;
        assert_eq!(cache.get("a").await?, text("theirs"));
        others.set("a", "theirs again").await?;
        assert!(!cache.add("a", "ours", HOUR).await?);
        assert_eq!(cache.get("a").await?, text("theirs again"));
        Ok(())
    };
    cache.scope_holding(MINUTE, page).await
}

async fn fresh_ends_what_a_holding_scope_holds(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let page = async {
        for value in ["1", "2", "3"] {
            others.set("a", value).await?;
            cache.fresh();
            assert_eq!(cache.get("a").await?, text(value));
            assert_eq!(cache.get("a").await?, text(value));
        }
        Ok(())
    };
    assert_eq!(cache.trips(cache.scope_holding(MINUTE, page)).await?, 3);
    Ok(())
}

async fn holding_ends_with_its_block(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    let page = async {
        let block = async { cache.get("a").await };
        assert_eq!(cache.scope_holding(MINUTE, block).await?, text("old"));
        others.set("a", "new").await?;
        assert_eq!(cache.get("a").await?, text("new"));
        Ok(())
    };
    cache.scope(page).await
}

/// Makes one of the state writes, to `key`.
async fn write(cache: &Face, number: usize, key: &str) -> Outcome {
    match number {
        0 => cache.set(key, "ours").await?,
        1 => {
            cache
                .set_many([("other", "ours"), (key, "ours")], HOUR)
                .await?
        }
        2 => drop(cache.add(key, "ours", HOUR).await?),
        // It fails on a text, and still ends what is held.
        3 => drop(cache.incr(key, 1).await.unwrap_err()),
        4 => drop(cache.touch(key, HOUR).await?),
        5 => drop(cache.delete(key).await?),
        6 => drop(cache.delete_many(&["other", key]).await?),
        _ => cache.set_for(key, "never", Duration::ZERO).await?,
    }
    Ok(())
}

const WRITES: usize = 8;

/// Checks that a scope of `cache` holds three kinds of pieces until `write` is called.
async fn ends(cache: &Face, others: &Elsewhere, write: impl AsyncFn(&str) -> Outcome) -> Outcome {
    let keys = ["fetched", "named", "held"];
    for key in keys {
        others.set(key, "old").await?;
    }
    let fetch = async |key: &str| cache.cached(key, HOUR, || "old".to_owned()).await;
    let page = async {
        assert_eq!(fetch("fetched").await?, "old");
        assert_eq!(cache.get("held").await?, text("old"));
        for key in keys {
            others.set(key, "theirs").await?;
        }
        assert_eq!(fetch("fetched").await?, "old");
        assert_eq!(cache.get("named").await?, text("old"));
        assert_eq!(cache.get("held").await?, text("old"));
        for key in keys {
            let before = cache.stats().trips;
            write(key).await?;
            others.set(key, "new").await?;
            let written = cache.stats().trips;
            assert!(written >= before);
            let read = match key {
                "fetched" => Some(fetch(key).await?),
                key => cache.get(key).await?,
            };
            assert_eq!(read, text("new"), "{key}");
            assert_eq!(cache.stats().trips, written + 1, "{key}");
        }
        Ok(())
    };
    cache
        .scope_holding(MINUTE, cache.preload(["named"], page))
        .await
}

async fn state_write_ends_the_piece_of_its_key(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    for number in 0..WRITES {
        ends(cache, others, async |key| write(cache, number, key).await).await?;
    }
    Ok(())
}

async fn state_write_by_another_cache_ends_the_piece(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    let other = &bed.cache();
    for number in 0..WRITES {
        ends(cache, others, async |key| write(other, number, key).await).await?;
    }
    Ok(())
}

/// That thread has no context of the scope, like a thread that a request started without it.
async fn state_write_by_another_thread_ends_the_piece(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    for number in 0..WRITES {
        let alone = async |key: &str| {
            std::thread::scope(|threads| {
                let work = || cache.driver().run(write(cache, number, key));
                threads.spawn(work).join().unwrap()
            })
        };
        ends(cache, others, alone).await?;
    }
    Ok(())
}

async fn clear_ends_all_pieces(bed: Bed) -> Outcome {
    if !bed.clears() {
        return Ok(());
    }
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    for clearing in [cache, &bed.cache()] {
        ends(cache, others, async |_| clearing.clear().await.map(drop)).await?;
    }
    Ok(())
}

async fn refresh_with_zero_ttl_ends_what_is_held(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    let page = async {
        let made = cache.refresh("a", Duration::ZERO, || "made".to_owned());
        assert_eq!(made.await?, "made");
        assert_eq!(others.get("a").await?, None, "a zero ttl removes the entry");
        assert_eq!(cache.get::<String>("a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

/// What a fetch computed before another thread wrote its key is older than the write.
async fn piece_computed_before_a_write_is_not_held(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let other = bed.cache();
    let page = async {
        let made = cache.cached("a", HOUR, || {
            std::thread::scope(|threads| {
                let write = || other.driver().run(other.set("a", "theirs"));
                threads.spawn(write).join().unwrap().unwrap();
            });
            "ours".to_owned()
        });
        assert_eq!(made.await?, "ours");
        assert_eq!(
            others.get("a").await?,
            text("theirs"),
            "the older value must not be stored"
        );
        let again = cache.cached("a", HOUR, || "ours".to_owned()).await?;
        assert_eq!(again, "theirs");
        Ok(())
    };
    cache.scope(page).await
}

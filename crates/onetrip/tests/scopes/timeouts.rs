//! Law 1: a scope holds nothing past its own timeout, if the store's reply says how long it lives.
//! Integers, raw bytes and values of plain sets do not say so themselves.

use std::time::Duration;

use onetrip::Serializer;

use crate::support::{Bed, Blob, Driver, Outcome};

on_every_local_store![
    preloaded_integer_ends_at_its_timeout,
    preloaded_raw_bytes_end_at_their_timeout,
    preloaded_plain_value_ends_at_its_timeout,
    longer_timeout_changes_nothing,
    integer_found_by_a_fetch_ends_at_its_timeout,
    touched_value_ends_at_its_new_timeout,
    value_stored_first_by_others_ends_at_its_timeout,
    holding_scope_ends_values_at_their_timeout,
];

const LIFE: Duration = Duration::from_secs(2);
const INSTANT: Duration = Duration::from_micros(1);
const TEN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn preloaded_integer_ends_at_its_timeout(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", &5, LIFE).await?;
    let page = async {
        bed.clock().advance(LIFE - INSTANT);
        let held = async {
            assert_eq!(cache.get::<i64>("a").await?, Some(5));
            Ok(())
        };
        assert_eq!(cache.trips(held).await?, 0);
        bed.clock().advance(INSTANT);
        assert_eq!(cache.get::<i64>("a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn preloaded_raw_bytes_end_at_their_timeout(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().serializer(Serializer::Raw));
    cache.set_for("a", &Blob(b"raw".to_vec()), LIFE).await?;
    let page = async {
        bed.clock().advance(LIFE - INSTANT);
        assert_eq!(cache.get("a").await?, Some(Blob(b"raw".to_vec())));
        bed.clock().advance(INSTANT);
        assert_eq!(cache.get::<Blob>("a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn preloaded_plain_value_ends_at_its_timeout(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", "text", LIFE).await?;
    let page = async {
        bed.clock().advance(LIFE);
        assert_eq!(cache.get::<String>("a").await?, None);
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn longer_timeout_changes_nothing(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("hour", &5, HOUR).await?;
    cache.set_for("ever", &6, onetrip::Ttl::Never).await?;
    let page = async {
        bed.clock().advance(TEN - INSTANT);
        let both = async {
            assert_eq!(cache.get("hour").await?, Some(5));
            assert_eq!(cache.get("ever").await?, Some(6));
            Ok(())
        };
        assert_eq!(cache.trips(both).await?, 0);
        Ok(())
    };
    cache.preload(["hour", "ever"], page).await
}

async fn integer_found_by_a_fetch_ends_at_its_timeout(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", &5, LIFE).await?;
    let fetch = async || cache.cached("a", HOUR, || 7).await;
    let page = async {
        assert_eq!(fetch().await?, 5);
        bed.clock().advance(LIFE - INSTANT);
        assert_eq!(fetch().await?, 5);
        bed.clock().advance(INSTANT);
        assert_eq!(fetch().await?, 7);
        Ok(())
    };
    cache.scope(page).await
}

async fn touched_value_ends_at_its_new_timeout(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    // It tells an hour itself.
    cache.cached("a", HOUR, || "old".to_owned()).await?;
    cache.touch("a", LIFE).await?;
    let fetch = async || cache.cached("a", HOUR, || "new".to_owned()).await;
    let page = async {
        assert_eq!(fetch().await?, "old");
        bed.clock().advance(LIFE);
        assert_eq!(fetch().await?, "new");
        Ok(())
    };
    cache.scope(page).await
}

async fn value_stored_first_by_others_ends_at_its_timeout(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    let get = async |life: Duration| {
        let make = || {
            let set = others.set_for("a", "theirs", life);
            Driver::Thread.run(set).unwrap();
            "ours".to_owned()
        };
        cache.get_or_insert_with("a", HOUR, make).await
    };
    let page = async {
        assert_eq!(get(LIFE).await?, "theirs");
        bed.clock().advance(LIFE - INSTANT);
        assert_eq!(cache.trips(async { get(LIFE).await.map(drop) }).await?, 0);
        bed.clock().advance(INSTANT);
        assert_ne!(cache.trips(async { get(LIFE).await.map(drop) }).await?, 0);
        Ok(())
    };
    cache.scope(page).await
}

async fn holding_scope_ends_values_at_their_timeout(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set_for("a", &5, LIFE).await?;
    let page = async {
        assert_eq!(cache.get::<i64>("a").await?, Some(5));
        bed.clock().advance(LIFE);
        assert_eq!(cache.get::<i64>("a").await?, None);
        Ok(())
    };
    cache.scope_holding(HOUR, page).await
}

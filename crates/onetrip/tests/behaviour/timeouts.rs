//! How long entries live.

use std::time::Duration;

use onetrip::Ttl;

use crate::support::{Bed, Outcome};

on_every_store![
    omitted_ttl_is_the_default,
    default_ttl_can_be_changed,
    default_ttl_can_be_never,
    never_does_not_expire,
    ttl_may_exceed_thirty_days,
    zero_ttl_stores_nothing_and_removes_the_entry,
    zero_default_ttl_stores_nothing,
    ttl_below_a_second_expires,
    shortest_ttl_is_no_error,
    longest_ttl_is_no_error,
    touch_counts_from_now,
    set_replaces_the_ttl,
    incr_keeps_the_ttl,
    add_of_an_absent_key_sets_the_ttl,
    add_over_an_entry_keeps_its_ttl,
];

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn omitted_ttl_is_the_default(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("a", &1).await?;
    bed.assert_lives(&cache, "a", Duration::from_secs(300))
        .await?;
    cache.set_many([("b", 1)], Ttl::Default).await?;
    bed.assert_lives(&cache, "b", Duration::from_secs(300))
        .await
}

async fn default_ttl_can_be_changed(bed: Bed) -> Outcome {
    let cache = bed.open(bed.builder().ttl(Some(HOUR)));
    cache.set("a", &1).await?;
    bed.assert_lives(&cache, "a", HOUR).await?;
    cache.add("b", &1, Ttl::Default).await?;
    bed.assert_lives(&cache, "b", HOUR).await
}

async fn default_ttl_can_be_never(bed: Bed) -> Outcome {
    let cache = bed.open(bed.builder().ttl(None));
    cache.set("a", &1).await?;
    bed.assert_lives_on(&cache, "a").await
}

async fn never_does_not_expire(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, Ttl::Never).await?;
    cache.add("b", &1, Ttl::Never).await?;
    bed.assert_lives_on(&cache, "a").await?;
    bed.assert_lives_on(&cache, "b").await
}

async fn ttl_may_exceed_thirty_days(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, 31 * DAY).await?;
    bed.assert_lives(&cache, "a", 31 * DAY).await?;
    cache.set_for("b", &1, 3650 * DAY).await?;
    bed.assert_lives(&cache, "b", 3650 * DAY).await
}

async fn zero_ttl_stores_nothing_and_removes_the_entry(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache
        .set_many([("a", 1), ("b", 1), ("c", 1)], Ttl::Never)
        .await?;
    cache.set_for("a", &2, Duration::ZERO).await?;
    cache.set_many([("b", 2), ("x", 2)], Duration::ZERO).await?;
    assert!(cache.touch("c", Duration::ZERO).await?);
    assert!(!cache.touch("c", Duration::ZERO).await?);
    let left: Vec<Option<i64>> = cache.get_many(&["a", "b", "c", "x"]).await?;
    assert_eq!(left, [None; 4]);
    // As in Django: the entry counts as added and expires at once.
    assert!(cache.add("d", &1, Duration::ZERO).await?);
    assert_eq!(cache.get::<i64>("d").await?, None);
    cache.set("d", &1).await?;
    assert!(!cache.add("d", &2, Duration::ZERO).await?);
    assert_eq!(cache.get("d").await?, Some(1));
    Ok(())
}

async fn zero_default_ttl_stores_nothing(bed: Bed) -> Outcome {
    let cache = bed.open(bed.builder().ttl(Some(Duration::ZERO)));
    cache.set("a", &1).await?;
    assert_eq!(cache.get::<i64>("a").await?, None);
    Ok(())
}

async fn ttl_below_a_second_expires(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, Duration::from_millis(20)).await?;
    // A store rounds to its own tick, but never up to "forever": then this loop would not end.
    while cache.contains("a").await? {
        bed.clock().advance(Duration::from_millis(1));
    }
    Ok(())
}

async fn shortest_ttl_is_no_error(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let shortest = Duration::from_nanos(1);
    cache.set_for("a", &1, shortest).await?;
    cache.add("b", &1, shortest).await?;
    cache.set("c", &1).await?;
    cache.touch("c", shortest).await?;
    for key in ["a", "b", "c"] {
        while cache.contains(key).await? {
            bed.clock().advance(shortest);
        }
    }
    Ok(())
}

async fn longest_ttl_is_no_error(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, Duration::MAX).await?;
    cache.add("b", &1, Duration::MAX).await?;
    cache.set("c", &1).await?;
    assert!(cache.touch("c", Duration::MAX).await?);
    for key in ["a", "b", "c"] {
        bed.assert_lives_on(&cache, key).await?;
    }
    Ok(())
}

async fn touch_counts_from_now(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, HOUR).await?;
    assert!(cache.touch("a", 3 * HOUR).await?);
    bed.assert_lives(&cache, "a", 3 * HOUR).await?;
    cache.set_for("b", &1, HOUR).await?;
    assert!(cache.touch("b", Ttl::Default).await?);
    bed.assert_lives(&cache, "b", Duration::from_secs(300))
        .await?;
    cache.set_for("c", &1, HOUR).await?;
    assert!(cache.touch("c", Ttl::Never).await?);
    bed.assert_lives_on(&cache, "c").await
}

async fn set_replaces_the_ttl(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, HOUR).await?;
    cache.set_for("a", &2, DAY).await?;
    bed.assert_lives(&cache, "a", DAY).await?;
    cache.set_for("b", &1, HOUR).await?;
    cache.set_for("b", &2, Ttl::Never).await?;
    bed.assert_lives_on(&cache, "b").await
}

async fn incr_keeps_the_ttl(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, HOUR).await?;
    cache.incr("a", 1).await?;
    bed.assert_lives(&cache, "a", HOUR).await
}

async fn add_of_an_absent_key_sets_the_ttl(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert!(cache.add("a", &1, HOUR).await?);
    bed.assert_lives(&cache, "a", HOUR).await
}

async fn add_over_an_entry_keeps_its_ttl(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set_for("a", &1, HOUR).await?;
    assert!(!cache.add("a", &1, DAY).await?);
    bed.assert_lives(&cache, "a", HOUR).await
}

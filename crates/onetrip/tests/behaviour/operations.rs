//! What each operation returns and leaves in the store.

use onetrip::{ErrorKind, Ttl};

use crate::support::{Bed, Outcome};

on_every_store![
    get_returns_the_value_set,
    set_replaces,
    get_many_keeps_the_order_of_keys,
    set_many_sets_all,
    operations_without_keys_make_no_trip,
    add_writes_only_if_absent,
    incr_adds_to_the_number,
    incr_of_an_absent_key_returns_none,
    incr_refuses_other_values,
    incr_is_exact_up_to_the_limits_of_64_bits,
    delete_returns_whether_the_key_existed,
    delete_many_counts_existing_keys,
    touch_returns_whether_the_key_exists,
    contains_returns_whether_the_key_exists,
    clear_removes_only_its_prefix,
    clear_treats_no_character_as_a_pattern,
    get_or_insert_computes_once,
    value_of_another_type_is_a_miss,
    entry_of_another_type_can_be_replaced,
];

async fn get_returns_the_value_set(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert_eq!(cache.get::<String>("note").await?, None);
    cache.set("note", "hello").await?;
    assert_eq!(cache.get("note").await?, Some("hello".to_owned()));
    assert_eq!(cache.get::<String>("other").await?, None);
    Ok(())
}

async fn set_replaces(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("note", "old").await?;
    cache.set("note", &vec![1, 2]).await?;
    assert_eq!(cache.get("note").await?, Some(vec![1, 2]));
    Ok(())
}

async fn get_many_keeps_the_order_of_keys(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("a", "A").await?;
    cache.set("c", "C").await?;
    let values: Vec<Option<String>> = cache.get_many(&["c", "b", "a", "c"]).await?;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(values, [text("C"), None, text("A"), text("C")]);
    let one: Vec<Option<String>> = cache.get_many(&["a"]).await?;
    assert_eq!(one, [text("A")]);
    Ok(())
}

async fn set_many_sets_all(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let values = [("a", 1), ("b", 2), ("a", 3)];
    cache.set_many(values, Ttl::Default).await?;
    let values: Vec<Option<i64>> = cache.get_many(&["a", "b"]).await?;
    assert_eq!(values, [Some(3), Some(2)], "the later of two wins");
    Ok(())
}

async fn operations_without_keys_make_no_trip(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let none: [&str; 0] = [];
    let trips = cache.trips(async {
        assert!(cache.get_many::<i64, _>(&none).await?.is_empty());
        cache.set_many::<&str, i64>([], Ttl::Default).await?;
        assert_eq!(cache.delete_many(&none).await?, 0);
        assert_eq!(cache.touch_many(&none, Ttl::Never).await?, 0);
        cache.preload(none, async { Ok(()) }).await
    });
    assert_eq!(trips.await?, 0);
    Ok(())
}

async fn add_writes_only_if_absent(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert!(cache.add("lock", "mine", Ttl::Default).await?);
    assert!(!cache.add("lock", "yours", Ttl::Default).await?);
    assert_eq!(cache.get("lock").await?, Some("mine".to_owned()));
    cache.delete("lock").await?;
    assert!(cache.add("lock", "yours", Ttl::Never).await?);
    assert_eq!(cache.get("lock").await?, Some("yours".to_owned()));
    Ok(())
}

async fn incr_adds_to_the_number(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("hits", &40).await?;
    assert_eq!(cache.incr("hits", 2).await?, Some(42));
    assert_eq!(cache.incr("hits", -50).await?, Some(-8));
    assert_eq!(cache.incr("hits", 0).await?, Some(-8));
    assert_eq!(cache.get("hits").await?, Some(-8));
    Ok(())
}

async fn incr_of_an_absent_key_returns_none(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert_eq!(cache.incr("hits", 1).await?, None);
    assert!(
        !cache.contains("hits").await?,
        "incr must not create the key"
    );
    Ok(())
}

async fn incr_refuses_other_values(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("word", "12 apples").await?;
    cache.set("digits", "12").await?;
    cache.set("real", &1.5).await?;
    cache.set("none", &None::<i64>).await?;
    for key in ["word", "digits", "real", "none"] {
        let error = cache.incr(key, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotANumber, "{key}");
        assert!(error.to_string().contains(key), "{error}");
    }
    assert_eq!(cache.get("digits").await?, Some("12".to_owned()));
    Ok(())
}

async fn incr_is_exact_up_to_the_limits_of_64_bits(bed: Bed) -> Outcome {
    let cache = bed.cache();
    // The first number that a double, as in Lua, confuses with its neighbour.
    cache.set("big", &((1_i64 << 53) - 1)).await?;
    assert_eq!(cache.incr("big", 2).await?, Some((1 << 53) + 1));
    cache.set("top", &(i64::MAX - 1)).await?;
    assert_eq!(cache.incr("top", 1).await?, Some(i64::MAX));
    cache.set("bottom", &0).await?;
    assert_eq!(cache.incr("bottom", i64::MIN).await?, Some(i64::MIN));
    for (key, delta) in [("top", 1), ("bottom", -1)] {
        let error = cache.incr(key, delta).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotANumber);
        assert!(error.to_string().contains("64 bits"), "{error}");
    }
    assert_eq!(cache.get("top").await?, Some(i64::MAX));
    assert_eq!(cache.get("bottom").await?, Some(i64::MIN));
    Ok(())
}

async fn delete_returns_whether_the_key_existed(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("note", "hello").await?;
    assert!(cache.delete("note").await?);
    assert!(!cache.delete("note").await?);
    assert_eq!(cache.get::<String>("note").await?, None);
    Ok(())
}

async fn delete_many_counts_existing_keys(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let values = [("a", 1), ("b", 2), ("c", 3)];
    cache.set_many(values, Ttl::Default).await?;
    assert_eq!(cache.delete_many(&["a", "x", "c", "a"]).await?, 2);
    let values: Vec<Option<i64>> = cache.get_many(&["a", "b", "c"]).await?;
    assert_eq!(values, [None, Some(2), None]);
    Ok(())
}

async fn touch_returns_whether_the_key_exists(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("a", &1).await?;
    cache.set("b", &2).await?;
    for timeout in [Ttl::Default, Ttl::Never] {
        assert!(cache.touch("a", timeout).await?);
        assert!(!cache.touch("x", timeout).await?);
        assert_eq!(cache.touch_many(&["a", "x", "b"], timeout).await?, 2);
    }
    assert_eq!(cache.get("a").await?, Some(1));
    Ok(())
}

async fn contains_returns_whether_the_key_exists(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert!(!cache.contains("note").await?);
    cache.set("note", "hello").await?;
    assert!(cache.contains("note").await?);
    Ok(())
}

async fn clear_removes_only_its_prefix(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let neighbour = bed.open(bed.builder().prefix(format!("{}2", bed.prefix())));
    let notes = (0..2500).map(|number| (format!("note:{number}"), number));
    cache.set_many(notes, Ttl::Default).await?;
    neighbour.set("note:1", &1).await?;
    assert_eq!(bed.clear(&cache).await?, bed.cleared(2500));
    assert_eq!(bed.clear(&cache).await?, bed.cleared(0));
    let left = (!bed.clears()).then_some(1);
    assert_eq!(cache.get::<i64>("note:1").await?, left);
    assert_eq!(neighbour.get("note:1").await?, Some(1));
    Ok(())
}

async fn clear_treats_no_character_as_a_pattern(bed: Bed) -> Outcome {
    for (special, neighbour) in [
        ("*", "x"),
        ("?", "x"),
        ("[a-c]", "b"),
        ("[^a]", "b"),
        ("a-c", "b"),
        (r"\*", "*"),
        (r"\", r"\\"),
        ("^", "x"),
        ("\0", "x"),
        ("{a}", "a"),
    ] {
        let with = |part| bed.open(bed.builder().prefix(format!("{}{part}", bed.prefix())));
        let (cache, other) = (with(special), with(neighbour));
        cache.set("note", &1).await?;
        other.set("note", &2).await?;
        assert_eq!(bed.clear(&cache).await?, bed.cleared(1), "{special:?}");
        let left = (!bed.clears()).then_some(1);
        assert_eq!(cache.get::<i64>("note").await?, left, "{special:?}");
        assert_eq!(other.get("note").await?, Some(2), "{special:?}");
        bed.clear(&other).await?;
    }
    Ok(())
}

async fn get_or_insert_computes_once(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let made = std::cell::Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        made.get()
    };
    for _ in 0..3 {
        let value: i64 = cache.get_or_insert_with("n", Ttl::Default, make).await?;
        assert_eq!(value, 1);
    }
    assert_eq!(made.get(), 1);
    Ok(())
}

async fn value_of_another_type_is_a_miss(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("note", "hello").await?;
    assert_eq!(cache.get::<i64>("note").await?, None);
    assert_eq!(cache.get::<Vec<String>>("note").await?, None);
    assert!(cache.contains("note").await?);
    assert_eq!(cache.stats().bad_entries, 2);
    Ok(())
}

async fn entry_of_another_type_can_be_replaced(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("note", "hello").await?;
    let value: i64 = cache.get_or_insert_with("note", Ttl::Default, || 5).await?;
    assert_eq!(value, 5);
    assert_eq!(cache.get("note").await?, Some(5));
    Ok(())
}

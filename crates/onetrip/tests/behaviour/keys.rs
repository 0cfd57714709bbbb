//! Any byte string is a key.

use std::collections::HashSet;

use crate::support::{Bed, Outcome};

on_every_store![
    any_bytes_are_a_key,
    keys_are_not_mixed_up,
    keys_are_unchanged_without_a_prefix,
];

fn strange_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"a b",
        b"a  b",
        b"a\tb",
        b"a\r\nb",
        b"a\nGET b\r\n",
        b"\0",
        b"a\0b",
        b"\x7f",
        b"*",
        b"a:b",
        b"a/b?c#d%20",
        b"\xff\xfe",
        b"\xc3",
        "schl\u{fc}ssel \u{1f511}".as_bytes(),
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    keys.push(vec![b'k'; 250]);
    keys.push(vec![b'k'; 251]);
    keys.push(vec![b'k'; 10_000]);
    keys.push([vec![b'k'; 9_999], vec![b'l']].concat());
    keys.push((0..=255).collect());
    keys
}

async fn any_bytes_are_a_key(bed: Bed) -> Outcome {
    let cache = bed.cache();
    for key in strange_keys() {
        assert!(cache.add(&key, &1, onetrip::Ttl::Default).await?);
        assert_eq!(cache.incr(&key, 1).await?, Some(2), "{key:?}");
        assert_eq!(cache.get(&key).await?, Some(2), "{key:?}");
        assert!(cache.touch(&key, onetrip::Ttl::Never).await?);
        assert!(cache.delete(&key).await?, "{key:?}");
        assert!(!cache.contains(&key).await?, "{key:?}");
    }
    Ok(())
}

async fn keys_are_not_mixed_up(bed: Bed) -> Outcome {
    let cache = bed.cache();
    let keys = strange_keys();
    let values = keys.iter().zip(0..);
    cache.set_many(values, onetrip::Ttl::Default).await?;
    let expected: Vec<Option<i32>> = (0..).take(keys.len()).map(Some).collect();
    assert_eq!(cache.get_many(&keys).await?, expected);
    let preloaded = cache.preload(&keys, cache.get_many(&keys)).await?;
    assert_eq!(preloaded, expected);
    let distinct: HashSet<_> = keys.iter().collect();
    assert_eq!(cache.delete_many(&keys).await?, distinct.len());
    Ok(())
}

async fn keys_are_unchanged_without_a_prefix(bed: Bed) -> Outcome {
    let (cache, bare) = (bed.cache(), bed.open(bed.builder().prefix("")));
    cache.set("note", &1).await?;
    assert_eq!(bare.get(bed.name("note")).await?, Some(1));
    Ok(())
}

//! Law 7: an unreadable entry is a counted miss, never an error and never a wrong value.

use onetrip::internals::entry::{Fields, Kind, Name, Sealer};
use onetrip::{Cache, Compression, Ttl};
use serde::{Deserialize, Serialize};

use crate::support::{Bed, Blob, Face, Outcome, Raw};

on_every_store![
    foreign_bytes_are_a_miss,
    truncated_entry_is_a_miss,
    truncated_signed_entry_is_a_miss,
    flipped_bit_is_a_miss,
    flipped_bit_of_a_signed_entry_is_a_miss,
    flipped_bit_of_a_compressed_entry_is_a_miss,
    bytes_after_an_entry_are_a_miss,
    other_version_is_a_miss,
    wrong_secret_is_a_miss,
    unsigned_entry_is_a_miss_if_a_secret_is_set,
    signed_entry_is_a_miss_without_a_secret,
    old_secret_is_still_accepted,
    entry_of_another_key_is_a_miss,
    entry_of_another_prefix_is_a_miss,
    unsigned_pickle_is_a_miss,
    get_many_skips_foreign_bytes,
    bad_entry_can_be_replaced,
];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    title: String,
    votes: u32,
}

fn note() -> Note {
    Note {
        title: "a".repeat(30),
        votes: 7,
    }
}

/// Checks that `entry` under `key` is a counted miss for every kind of read.
async fn assert_bad(cache: &Face, raw: &Raw, key: &str, entry: &[u8]) -> Outcome {
    raw.set(key, entry).await?;
    cache.cache().reset_stats();
    assert_eq!(cache.get::<Note>(key).await?, None, "{entry:?}");
    assert!(!cache.contains(key).await?);
    assert_eq!(cache.get_many::<Note, _>(&[key]).await?, [None]);
    let page = async {
        assert_eq!(cache.get::<Note>(key).await?, None);
        Ok(())
    };
    cache.preload([key], page).await?;
    let stats = cache.stats();
    let seen = (stats.misses, stats.bad_entries, stats.hits, stats.errors);
    assert_eq!(seen, (4, 4, 0, 0), "{entry:?}");
    Ok(())
}

/// Returns the stored entry of a note under `key`.
async fn entry(cache: &Face, raw: &Raw, key: &str) -> onetrip::Result<Vec<u8>> {
    cache.set(key, &note()).await?;
    assert_eq!(cache.get(key).await?, Some(note()));
    Ok(raw.get(key).await?.unwrap())
}

async fn foreign_bytes_are_a_miss(bed: Bed) -> Outcome {
    let (cache, raw) = (bed.cache(), bed.raw());
    for foreign in [
        &b""[..],
        b"hello",
        b"{\"title\": \"x\"}",
        b"\x80\x04\x95pickled",
        b"\xc1",
        b"\xc1\x02\x02\x00",
        b" 12",
        b"012",
        b"+12",
        b"-0",
        b"-",
        b"1.5",
        b"9223372036854775808",
        b"12345678901234567890123",
    ] {
        assert_bad(&cache, &raw, "note", foreign).await?;
    }
    Ok(())
}

async fn cut_short(cache: Face, raw: Raw) -> Outcome {
    let whole = entry(&cache, &raw, "note").await?;
    for length in 0..whole.len() {
        assert_bad(&cache, &raw, "note", &whole[..length]).await?;
    }
    Ok(())
}

async fn truncated_entry_is_a_miss(bed: Bed) -> Outcome {
    cut_short(bed.cache(), bed.raw()).await
}

async fn truncated_signed_entry_is_a_miss(bed: Bed) -> Outcome {
    cut_short(bed.open(bed.builder().secrets(["s3cret"])), bed.raw()).await
}

async fn flipped(cache: Face, raw: Raw) -> Outcome {
    let whole = entry(&cache, &raw, "note").await?;
    for bit in 0..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        raw.set("note", &damaged).await?;
        assert_eq!(cache.get::<Note>("note").await?, None, "bit {bit}");
    }
    assert_eq!(cache.stats().bad_entries, 8 * whole.len() as u64);
    Ok(())
}

async fn flipped_bit_is_a_miss(bed: Bed) -> Outcome {
    flipped(bed.cache(), bed.raw()).await
}

async fn flipped_bit_of_a_signed_entry_is_a_miss(bed: Bed) -> Outcome {
    flipped(bed.open(bed.builder().secrets(["s3cret"])), bed.raw()).await
}

async fn flipped_bit_of_a_compressed_entry_is_a_miss(bed: Bed) -> Outcome {
    for compression in [Compression::Zstd, Compression::Lz4] {
        let builder = bed.builder().compression_min(0);
        let cache = bed.open(builder.compression(Some(compression)));
        let whole = entry(&cache, &bed.raw(), "note").await?;
        assert_ne!(whole[2] >> 4, 0, "the entry must be compressed");
        flipped(cache, bed.raw()).await?;
    }
    Ok(())
}

async fn bytes_after_an_entry_are_a_miss(bed: Bed) -> Outcome {
    let (cache, raw) = (bed.cache(), bed.raw());
    let mut longer = entry(&cache, &raw, "note").await?;
    longer.push(0);
    assert_bad(&cache, &raw, "note", &longer).await
}

async fn other_version_is_a_miss(bed: Bed) -> Outcome {
    let (cache, raw) = (bed.cache(), bed.raw());
    let whole = entry(&cache, &raw, "note").await?;
    for version in (0..=255).filter(|version| *version != whole[1]) {
        let mut other = whole.clone();
        other[1] = version;
        assert_bad(&cache, &raw, "note", &other).await?;
    }
    Ok(())
}

fn signed(bed: &Bed, secrets: &[&str]) -> Face {
    bed.open(bed.builder().secrets(secrets.to_vec()))
}

async fn wrong_secret_is_a_miss(bed: Bed) -> Outcome {
    let (writer, reader, raw) = (signed(&bed, &["one"]), signed(&bed, &["two"]), bed.raw());
    let theirs = entry(&writer, &raw, "note").await?;
    assert_bad(&reader, &raw, "note", &theirs).await
}

async fn unsigned_entry_is_a_miss_if_a_secret_is_set(bed: Bed) -> Outcome {
    let (writer, reader, raw) = (bed.cache(), signed(&bed, &["one"]), bed.raw());
    let mut unsigned = entry(&writer, &raw, "note").await?;
    assert_bad(&reader, &raw, "note", &unsigned).await?;
    unsigned[3] |= 1;
    assert_bad(&reader, &raw, "note", &unsigned).await
}

async fn signed_entry_is_a_miss_without_a_secret(bed: Bed) -> Outcome {
    let (writer, reader, raw) = (signed(&bed, &["one"]), bed.cache(), bed.raw());
    let mut signed = entry(&writer, &raw, "note").await?;
    assert_bad(&reader, &raw, "note", &signed).await?;
    signed[3] &= !1;
    assert_bad(&reader, &raw, "note", &signed).await
}

async fn old_secret_is_still_accepted(bed: Bed) -> Outcome {
    let (old, raw) = (signed(&bed, &["old"]), bed.raw());
    let (both, new) = (signed(&bed, &["new", "old"]), signed(&bed, &["new"]));
    let by_old = entry(&old, &raw, "note").await?;
    assert_eq!(both.get("note").await?, Some(note()));
    assert_bad(&new, &raw, "note", &by_old).await?;
    let by_new = entry(&both, &raw, "note").await?;
    assert_eq!(
        new.get("note").await?,
        Some(note()),
        "the first secret signs"
    );
    assert_bad(&old, &raw, "note", &by_new).await
}

async fn entry_of_another_key_is_a_miss(bed: Bed) -> Outcome {
    for cache in [bed.cache(), signed(&bed, &["one"])] {
        let theirs = entry(&cache, &bed.raw(), "theirs").await?;
        assert_bad(&cache, &bed.raw(), "mine", &theirs).await?;
    }
    Ok(())
}

async fn entry_of_another_prefix_is_a_miss(bed: Bed) -> Outcome {
    let other = bed.builder().prefix(format!("{}2", bed.prefix()));
    let other_raw = other.clone().serializer(onetrip::Serializer::Raw);
    let (other, other_raw) = (bed.open(other), bed.open(other_raw));
    other.set("note", &note()).await?;
    let Blob(theirs) = other_raw.get("note").await?.unwrap();
    assert_bad(&bed.cache(), &bed.raw(), "note", &theirs).await
}

async fn unsigned_pickle_is_a_miss(bed: Bed) -> Outcome {
    // Valid in every other way: only the missing signature is a reason to refuse it.
    let name = bed.name("note");
    let name = Name {
        prefix: b"",
        key: name.as_bytes(),
    };
    let sealer = Sealer::new(&[], None, 0);
    let mut draft = sealer.draft(&Fields::default());
    draft.extend_from_slice(b"\x80\x04N.");
    let whole = sealer.seal(name, Kind::Pickle, draft);
    assert_bad(&bed.cache(), &bed.raw(), "note", &whole).await
}

async fn get_many_skips_foreign_bytes(bed: Bed) -> Outcome {
    let (cache, raw) = (&bed.cache(), bed.raw());
    cache.set_many([("a", 1), ("c", 3)], Ttl::Default).await?;
    raw.set("b", b"not ours").await?;
    let keys = ["a", "b", "c"];
    let expected = [Some(1), None, Some(3)];
    assert_eq!(cache.get_many::<i64, _>(&keys).await?, expected);
    let page = async { cache.get_many::<i64, _>(&keys).await };
    assert_eq!(cache.preload(keys, page).await?, expected);
    Ok(())
}

async fn bad_entry_can_be_replaced(bed: Bed) -> Outcome {
    let (cache, raw) = (&bed.cache(), bed.raw());
    raw.set("note", b"not ours").await?;
    let page = async {
        let made = cache.get_or_insert_with("note", Ttl::Default, note).await?;
        assert_eq!(made, note());
        assert_eq!(cache.get("note").await?, Some(note()));
        Ok(())
    };
    cache.preload(["note"], page).await?;
    assert_eq!(cache.get("note").await?, Some(note()));
    raw.set("note", b"not ours").await?;
    assert!(cache.delete("note").await?, "the bad entry existed");
    Ok(())
}

/// Redis keeps other types than strings, too.
#[test]
fn redis_list_is_a_miss() {
    let server = crate::support::Server::start();
    let cache = Cache::builder(server.url()).on_error(onetrip::OnError::Raise);
    let cache = cache.build().unwrap().blocking();
    let _: u64 = server.ask(&["RPUSH", "list", "a"]);
    cache.set("note", "hello").unwrap();
    assert_eq!(cache.get::<String>("list").unwrap(), None);
    let both: Vec<Option<String>> = cache.get_many(&["list", "note"]).unwrap();
    assert_eq!(both, [None, Some("hello".to_owned())]);
    let error = cache.incr("list", 1).unwrap_err();
    assert_eq!(error.kind(), onetrip::ErrorKind::NotANumber);
    cache.set("list", "mine").unwrap();
    assert_eq!(cache.get("list").unwrap(), Some("mine".to_owned()));
}

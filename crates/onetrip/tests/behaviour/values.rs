//! Values come back as they were.

use std::collections::BTreeMap;
use std::fmt::Debug;

use onetrip::{Compression, ErrorKind, Serializer, Ttl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{Bed, Blob, Face, Outcome};

on_every_store![
    none_is_a_value,
    absent_option_is_not_a_cached_none,
    every_serde_shape_round_trips,
    large_values_round_trip,
    compressed_values_round_trip,
    signed_values_round_trip,
    raw_serializer_takes_only_bytes,
    unserializable_value_names_its_type,
    changing_a_returned_value_changes_nothing,
];

async fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    cache: &Face,
    value: T,
) -> Outcome {
    cache.set("value", &value).await?;
    assert_eq!(cache.get::<T>("value").await?, Some(value));
    Ok(())
}

async fn none_is_a_value(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("none", &None::<String>).await?;
    assert_eq!(cache.get::<Option<String>>("none").await?, Some(None));
    assert!(cache.contains("none").await?);
    let values: Vec<Option<Option<i64>>> = cache.get_many(&["none", "absent"]).await?;
    assert_eq!(values, [Some(None), None]);
    assert!(!cache.add("none", &1, Ttl::Default).await?);
    let kept: Option<i64> = cache
        .get_or_insert_with("none", Ttl::Default, || Some(1))
        .await?;
    assert_eq!(kept, None);
    let in_scope = cache.preload(["none"], cache.get::<Option<i64>>("none"));
    assert_eq!(in_scope.await?, Some(None));
    assert_eq!(cache.stats().hits, 5);
    Ok(())
}

async fn absent_option_is_not_a_cached_none(bed: Bed) -> Outcome {
    let cache = bed.cache();
    assert_eq!(cache.get::<Option<i64>>("absent").await?, None);
    Ok(())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    id: u64,
    title: String,
    tags: Vec<String>,
    parent: Option<Box<Note>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i32, i32),
    Square { side: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped<T>(T);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

/// Serializes as a word for readable formats and as a number for binary ones, like types of
/// `bitflags`.
#[derive(Debug, PartialEq)]
struct Flags(u8);

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("flags {}", self.0))
        } else {
            serializer.serialize_u8(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Err(serde::de::Error::custom(
                "read for people, written for machines",
            ));
        }
        u8::deserialize(deserializer).map(Flags)
    }
}

async fn every_serde_shape_round_trips(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    for number in [0, 1, -1, 127, 128, -128, 65_536, i64::MAX, i64::MIN] {
        same(cache, number).await?;
        same(cache, Some(number)).await?;
        same(cache, Wrapped(number)).await?;
        same(cache, vec![number]).await?;
        same(cache, i128::from(number)).await?;
    }
    same(cache, u64::MAX).await?;
    same(cache, (i128::MIN, u128::MAX)).await?;
    same(cache, u128::MAX).await?;
    same(cache, i128::MIN).await?;
    same(cache, Some(u128::MAX)).await?;
    for number in [0.0, -1.5, f64::MAX, f64::INFINITY] {
        same(cache, number).await?;
    }
    same(cache, (true, false)).await?;
    same(cache, true).await?;
    same(cache, ()).await?;
    same(cache, Unit).await?;
    same(cache, 'x').await?;
    for text in ["", "hello", "12", "-5", "\u{1f511}", "\0"] {
        same(cache, text.to_owned()).await?;
        same(cache, Some(text.to_owned())).await?;
        same(cache, Wrapped(text.to_owned())).await?;
        same(cache, Blob(text.as_bytes().to_vec())).await?;
        same(cache, Wrapped(Blob(text.as_bytes().to_vec()))).await?;
    }
    same(cache, Blob((0..=255).collect())).await?;
    same(cache, vec![0_u8, 1, 255]).await?;
    same(cache, Flags(5)).await?;
    same(cache, vec![Flags(5)]).await?;
    same(cache, Shape::Point).await?;
    same(cache, Shape::Circle(1.5)).await?;
    same(cache, Shape::Line(1, -2)).await?;
    same(cache, Some(Shape::Square { side: 3 })).await?;
    same(cache, std::net::IpAddr::from([127, 0, 0, 1])).await?;
    same(cache, std::time::Duration::from_millis(1500)).await?;
    same(
        cache,
        BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]),
    )
    .await?;
    let parent = Note {
        id: 1,
        title: "one".into(),
        tags: vec![],
        parent: None,
    };
    let note = Note {
        id: 2,
        title: "two".into(),
        tags: vec!["a".into(), "b".into()],
        parent: Some(Box::new(parent)),
    };
    same(cache, note).await?;
    same(
        cache,
        json!({"a": [1, -2.5, null, true, "x"], "b": {}, "": u64::MAX}),
    )
    .await
}

async fn large_values_round_trip(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    same(cache, "x".repeat(5_000_000)).await?;
    same(cache, Blob((0..=255).cycle().take(1_000_000).collect())).await?;
    same(cache, (0..100_000).collect::<Vec<u32>>()).await
}

async fn compressed_values_round_trip(bed: Bed) -> Outcome {
    for compression in [Compression::Zstd, Compression::Lz4] {
        let cache = bed.open(bed.builder().compression(Some(compression)));
        same(&cache, "short".to_owned()).await?;
        same(&cache, Blob((0..200).collect())).await?;
        let text = "all work and no play ".repeat(1000);
        cache.set("text", &text).await?;
        let stored = bed.raw().get("text").await?.unwrap();
        assert!(stored.len() < text.len() / 10, "{} bytes", stored.len());
        assert_eq!(cache.get("text").await?, Some(text.clone()));
        assert!(cache.stats().bytes_out < text.len() as u64);
        // A reader follows the header, whatever its own options are.
        assert_eq!(bed.cache().get("text").await?, Some(text));
    }
    Ok(())
}

async fn signed_values_round_trip(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().secrets(["s3cret"]));
    same(cache, "hello".to_owned()).await?;
    same(cache, 5).await?;
    same(cache, None::<i64>).await?;
    assert_eq!(
        cache.incr("value", 1).await.unwrap_err().kind(),
        ErrorKind::NotANumber
    );
    same(cache, 5).await?;
    assert_eq!(cache.incr("value", 1).await?, Some(6));
    Ok(())
}

async fn raw_serializer_takes_only_bytes(bed: Bed) -> Outcome {
    let cache = &bed.open(bed.builder().serializer(Serializer::Raw));
    same(cache, Blob(b"hello".to_vec())).await?;
    same(cache, Blob(vec![])).await?;
    assert_eq!(bed.raw().get("value").await?, Some(vec![]));
    for error in [
        cache.set("value", "text").await.unwrap_err(),
        cache.set("value", &5).await.unwrap_err(),
        cache.add("value", &[1.5], Ttl::Default).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Serialization);
        assert!(error.to_string().contains("\"value\""), "{error}");
    }
    Ok(())
}

struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

async fn unserializable_value_names_its_type(bed: Bed) -> Outcome {
    let cache = bed.cache();
    cache.set("value", "old").await?;
    let error = cache.set("value", &Stubborn).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(error.to_string().contains("Stubborn"), "{error}");
    assert!(error.to_string().contains("not today"), "{error}");
    let both = [("a", Some(Stubborn)), ("value", None)];
    assert!(cache.set_many(both, Ttl::Default).await.is_err());
    assert_eq!(cache.get("value").await?, Some("old".to_owned()));
    Ok(())
}

async fn changing_a_returned_value_changes_nothing(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("list", &vec![1]).await?;
    let read = async || cache.get::<Vec<i64>>("list").await;
    cache
        .preload(["list"], async {
            read().await?.unwrap().push(2);
            assert_eq!(read().await?, Some(vec![1]));
            cache.set("list", &vec![3]).await?;
            read().await?.unwrap().push(4);
            assert_eq!(read().await?, Some(vec![3]));
            Ok(())
        })
        .await
}

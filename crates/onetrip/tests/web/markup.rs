//! Markup, in the form in which Python caches it.

use onetrip::Markup;
use serde::{Deserialize, Serialize};

use crate::support::local;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    body: Markup,
}

#[tokio::test]
async fn markup_is_stored_with_the_python_tag() {
    let store = "memory://markup-test";
    let raw = onetrip::Cache::builder(store)
        .serializer(onetrip::Serializer::Raw)
        .build()
        .unwrap();
    let cache = onetrip::Cache::open(store).unwrap();
    cache.set("m", &Markup::new("<p>")).await.unwrap();
    let entry: serde_bytes_of::Bytes = raw.get("m").await.unwrap().unwrap();
    // After the header of 12 bytes, an extension of four bytes, type 12: a string of length three.
    assert_eq!(
        entry.0.get(12..),
        Some(&[0xD6, 12, 0xA3, b'<', b'p', b'>'][..])
    );
}

#[tokio::test]
async fn markup_is_read_as_markup_and_as_a_string() {
    let cache = local();
    let markup = Markup::new("<p>Zoë</p>".repeat(100));
    cache.set("m", &markup).await.unwrap();
    assert_eq!(cache.get("m").await.unwrap(), Some(markup.clone()));
    assert_eq!(cache.get("m").await.unwrap(), Some(markup.to_string()));
    cache.set("s", "<p>").await.unwrap();
    assert_eq!(cache.get("s").await.unwrap(), Some(Markup::new("<p>")));

    let page = Page {
        title: "A page".into(),
        body: markup,
    };
    cache.set("page", &page).await.unwrap();
    assert_eq!(cache.get("page").await.unwrap(), Some(page));
    assert_eq!(
        serde_json::to_string(&Markup::new("<p>")).unwrap(),
        r#""<p>""#
    );
}

/// Deserializes serde bytes.
mod serde_bytes_of {
    use serde::de::{Deserialize, Deserializer, Visitor};

    pub(super) struct Bytes(pub(super) Vec<u8>);

    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = Bytes;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes(bytes.to_vec()))
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_bytes(Whole)
        }
    }
}

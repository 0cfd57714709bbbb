//! Strings that are safe to put on a page.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::tag;

/// Markup that is safe to put on a page as it is.
///
/// Cached, it is what Python reads as `markupsafe.Markup`, which a template does not escape; and
/// what Python cached as one is read as this.
///
/// ```
/// use onetrip::{Cache, Markup};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = Cache::open("memory://")?;
/// cache.set("note_markup:5", &Markup::new("<p>Hello</p>")).await?;
///
/// let markup: Option<Markup> = cache.get("note_markup:5").await?;
/// assert_eq!(markup.unwrap().as_str(), "<p>Hello</p>");
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Markup(String);

impl Markup {
    /// Vouches that `markup` is safe to put on a page.
    pub fn new(markup: impl Into<String>) -> Self {
        Self(markup.into())
    }

    /// The markup as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The extension type that Python knows markup by, as `rmp_serde` is told to write one. In formats
/// for people, such as JSON, it is a string.
impl Serialize for Markup {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&self.0);
        }
        let mut held = Vec::with_capacity(self.0.len() + 5);
        rmp::encode::write_str(&mut held, &self.0).map_err(serde::ser::Error::custom)?;
        let extension = (tag::MARKUP, Held(&held));
        serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &extension)
    }
}

struct Held<'a>(&'a [u8]);

impl Serialize for Held<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A string, tagged or not: who may write to the cache may write markup.
impl<'de> Deserialize<'de> for Markup {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

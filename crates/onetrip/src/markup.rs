//! Strings that are safe to put on a page.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::tag;

/// Markup that is safe to put on a page unescaped.
///
/// In the cache it is the same as Python's `markupsafe.Markup`: each language reads what the other
/// wrote, and templates do not escape it.
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
    /// Marks `markup` as safe. The caller vouches for it.
    pub fn new(markup: impl Into<String>) -> Self {
        Self(markup.into())
    }

    /// Returns the markup as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the markup as an owned string.
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

/// Writes the extension type that Python reads as markup. Human-readable formats, such as JSON, get
/// a plain string.
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

/// Reads any string, tagged or not: whoever can write to the cache can write markup.
impl<'de> Deserialize<'de> for Markup {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

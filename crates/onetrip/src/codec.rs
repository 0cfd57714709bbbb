//! Values as the payloads of entries.
//!
//! The `native` format is MessagePack. Strings, bytes and 64-bit integers at the top are stored
//! as they are, without a MessagePack header. What a language adds to MessagePack travels in
//! extension types ([`tag`]), and each holds *one MessagePack value*: a reader that does not care
//! for a tag drops it and reads the value inside, as serde does here.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::{BorrowedBytesDeserializer, BorrowedStrDeserializer, I64Deserializer};
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, IgnoredAny, IntoDeserializer, Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};

use crate::entry::{BadEntry, Content, Kind, integer};
use crate::error::{Error, ErrorKind, Result};

/// Extension types of the native format. What each holds is one MessagePack value.
pub mod tag {
    /// A tuple: an array.
    pub const TUPLE: i8 = 1;
    /// A set: an array.
    pub const SET: i8 = 2;
    /// A set that cannot change: an array.
    pub const FROZENSET: i8 = 3;
    /// An integer beyond 64 bits: bytes, two's complement, big endian.
    pub const INTEGER: i8 = 4;
    /// A decimal number: a string.
    pub const DECIMAL: i8 = 5;
    /// A UUID (RFC 9562): 16 bytes.
    pub const UUID: i8 = 6;
    /// A date and time: a string in RFC 9557, the zone in brackets where it has a name.
    pub const DATETIME: i8 = 7;
    /// A date: a string, `2026-11-22`.
    pub const DATE: i8 = 8;
    /// A time of day: a string, `12:34:56.000001`, an offset behind it if it has one.
    pub const TIME: i8 = 9;
    /// A span of time: an array of days, seconds and microseconds.
    pub const TIMEDELTA: i8 = 10;
    /// Bytes that can change: bytes.
    pub const BYTEARRAY: i8 = 11;
    /// Markup that is safe to put on a page (`markupsafe.Markup`): a string.
    pub const MARKUP: i8 = 12;
}

/// The deepest that values may nest, in containers within containers.
///
/// Bounds the stack that a decoder needs, whatever is in the store.
pub const MAX_DEPTH: usize = 200;

/// A decoded value that a scope keeps beside its entry, to give it again without decoding.
pub type Memo = Arc<dyn std::any::Any + Send + Sync>;

/// Reads the values of one language from opened entries.
pub trait Decode {
    /// What is read.
    type Value;

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`BadEntry::Undecodable`] if it is damaged or not of the type asked for: a miss.
    fn decode(&self, content: &Content) -> Result<Self::Value, BadEntry>;

    /// What a scope may keep of a decoded value. Only for values that nobody can change.
    fn memo(&self, _value: &Self::Value) -> Option<Memo> {
        None
    }

    /// The value again, of what [`memo`](Self::memo) kept.
    fn recall(&self, _memo: &Memo) -> Option<Self::Value> {
        None
    }
}

/// Asks only whether there is an entry that can be opened.
#[derive(Clone, Copy, Debug)]
pub struct Presence;

impl Decode for Presence {
    type Value = ();

    fn decode(&self, _content: &Content) -> Result<(), BadEntry> {
        Ok(())
    }
}

/// Rust values, through serde.
pub(crate) struct Serde<T>(PhantomData<fn() -> T>);

impl<T> Serde<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: DeserializeOwned> Decode for Serde<T> {
    type Value = T;

    fn decode(&self, content: &Content) -> Result<T, BadEntry> {
        decode(content)
    }
}

/// Appends a value to `out`, through serde, and tells what kind of payload that makes.
///
/// Structs are written as maps, so that other languages read their fields by name.
///
/// # Errors
///
/// [`ErrorKind::Serialization`] if the value's own `Serialize` fails.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<Kind> {
    let start = out.len();
    rmp_serde::encode::write_named(out, value).map_err(|error| {
        let type_name = std::any::type_name::<T>();
        Error::with_source(
            ErrorKind::Serialization,
            format!("a value of type {type_name} cannot be cached: {error}; cache a type that serde serializes without error"),
            error,
        )
    })?;
    Ok(unwrap_top(out, start))
}

/// Takes the MessagePack header off a lone string, bytes or integer.
fn unwrap_top(out: &mut Vec<u8>, start: usize) -> Kind {
    let payload = out.get(start..).unwrap_or_default();
    let mut rest = payload;
    let kind = match payload.first() {
        Some(0xA0..=0xBF | 0xD9..=0xDB) => {
            rmp::decode::read_str_len(&mut rest).ok().map(|_| Kind::Str)
        }
        Some(0xC4..=0xC6) => rmp::decode::read_bin_len(&mut rest)
            .ok()
            .map(|_| Kind::Bytes),
        Some(0x00..=0x7F | 0xE0..=0xFF | 0xCC..=0xD3) => {
            if let Ok(number) = rmp::decode::read_int::<i64, _>(&mut rest) {
                out.truncate(start);
                out.extend_from_slice(number.to_string().as_bytes());
                return Kind::Integer;
            }
            None
        }
        _ => None,
    };
    match kind {
        Some(kind) => {
            let header = out.len() - start - rest.len();
            out.drain(start..start + header);
            kind
        }
        None => Kind::Native,
    }
}

/// Reads a value for serde.
pub(crate) fn decode<T: DeserializeOwned>(content: &Content) -> Result<T, BadEntry> {
    let payload: &[u8] = &content.payload;
    let value = match content.kind {
        Kind::Native => return decode_native(payload),
        Kind::Str => {
            let text = simdutf8::basic::from_utf8(payload).map_err(|_| BadEntry::Undecodable)?;
            T::deserialize(Top::new(BorrowedStrDeserializer::<DecodeError>::new(text)))
        }
        Kind::Bytes => T::deserialize(Top {
            scalar: BorrowedBytesDeserializer::new(payload),
            wide: payload.try_into().ok().map(i128::from_be_bytes),
        }),
        Kind::Integer => {
            let number = integer(payload).ok_or(BadEntry::Undecodable)?;
            let number: I64Deserializer<DecodeError> = number.into_deserializer();
            T::deserialize(Top::new(number))
        }
        Kind::Pickle => return Err(BadEntry::Undecodable),
    };
    value.map_err(|_| BadEntry::Undecodable)
}

type DecodeError = serde::de::value::Error;

fn decode_native<T: DeserializeOwned>(payload: &[u8]) -> Result<T, BadEntry> {
    read_whole(payload)
        // Only Python writes tags, so most entries are read without this second look.
        .or_else(|error| {
            crate::strip_extensions::strip_extensions(payload)
                .map_or(Err(error), |plain| read_whole(&plain))
        })
        .map_err(|_| BadEntry::Undecodable)
}

fn read_whole<T: DeserializeOwned>(payload: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(payload);
    decoder.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut decoder)?;
    // The decoder does not tell how far it read, but it finds no more where all is read.
    match IgnoredAny::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(end))
            if end.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Ok(value)
        }
        _ => Err(rmp_serde::decode::Error::LengthMismatch(0)),
    }
}

/// A lone scalar, also where an `Option` or a newtype of it is asked for.
struct Top<D> {
    scalar: D,
    /// The integer of 128 bits that the encoder writes as these bytes.
    wide: Option<i128>,
}

impl<D> Top<D> {
    fn new(scalar: D) -> Self {
        Self { scalar, wide: None }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Top<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.scalar.deserialize_any(visitor)
    }

    /// As the encoder, so that a type which writes itself in two ways is read in the same.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match self.wide {
            Some(number) => visitor.visit_i128(number),
            None => self.scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match self.wide {
            Some(number) => visitor.visit_u128(number.cast_unsigned()),
            None => self.scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.scalar.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests;

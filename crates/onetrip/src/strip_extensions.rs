//! Removing extension headers from MessagePack, for readers that do not know them.

use rmp::Marker;
use rmp::decode::{RmpRead, read_marker};

use crate::codec::MAX_DEPTH;

/// Returns the MessagePack value `payload` with every extension replaced by the value in it. `None`
/// if it has no extensions, or is not exactly one value.
pub(crate) fn strip_extensions(payload: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk {
        rest: payload,
        out: Vec::with_capacity(payload.len()),
        tags: 0,
    };
    walk.value(0)?;
    (walk.rest.is_empty() && walk.tags > 0).then_some(walk.out)
}

struct Walk<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
    tags: usize,
}

impl Walk<'_> {
    /// Copies one value and everything in it.
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let before = self.rest;
        let marker = read_marker(&mut self.rest).ok()?;
        let length = self.length(marker)?;
        if let Marker::FixExt1
        | Marker::FixExt2
        | Marker::FixExt4
        | Marker::FixExt8
        | Marker::FixExt16
        | Marker::Ext8
        | Marker::Ext16
        | Marker::Ext32 = marker
        {
            self.rest.read_data_i8().ok()?;
            let (held, rest) = self.rest.split_at_checked(length)?;
            self.tags += 1;
            self.rest = held;
            self.value(depth + 1)?;
            // The value must fill the extension.
            let whole = self.rest.is_empty();
            self.rest = rest;
            return whole.then_some(());
        }
        let header = before.len() - self.rest.len();
        match marker {
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                self.out.extend_from_slice(before.get(..header)?);
                (0..length).try_for_each(|_| self.value(depth + 1))
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                self.out.extend_from_slice(before.get(..header)?);
                (0..length.checked_mul(2)?).try_for_each(|_| self.value(depth + 1))
            }
            _ => {
                let (scalar, rest) = before.split_at_checked(header.checked_add(length)?)?;
                self.out.extend_from_slice(scalar);
                self.rest = rest;
                Some(())
            }
        }
    }

    /// Reads the length after a marker: the number of bytes, elements or pairs that follow.
    fn length(&mut self, marker: Marker) -> Option<usize> {
        let rest = &mut self.rest;
        Some(match marker {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => {
                0
            }
            Marker::U8 | Marker::I8 | Marker::FixExt1 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt2 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 | Marker::FixExt4 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 | Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::FixStr(n) | Marker::FixArray(n) | Marker::FixMap(n) => usize::from(n),
            Marker::Str8 | Marker::Bin8 | Marker::Ext8 => usize::from(rest.read_data_u8().ok()?),
            Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => {
                usize::from(rest.read_data_u16().ok()?)
            }
            Marker::Str32 | Marker::Bin32 | Marker::Ext32 | Marker::Array32 | Marker::Map32 => {
                usize::try_from(rest.read_data_u32().ok()?).ok()?
            }
            Marker::Reserved => return None,
        })
    }
}

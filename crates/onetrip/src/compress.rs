//! Making payloads smaller, and large again within a bound.

#[cfg_attr(feature = "lz4", path = "compress/lz4/enabled.rs")]
#[cfg_attr(not(feature = "lz4"), path = "compress/lz4/disabled.rs")]
mod lz4;
#[cfg_attr(feature = "zstd", path = "compress/zstd/enabled.rs")]
#[cfg_attr(not(feature = "zstd"), path = "compress/zstd/disabled.rs")]
mod zstd;

/// The most bytes that a compressed payload may expand to: 128 MiB.
///
/// A reader must not be made to allocate without end by a few bytes in the store. Larger payloads
/// are stored as they are.
pub const MAX_EXPANDED: usize = 128 << 20;

/// How payloads are compressed. A reader follows the entry's header, whichever it would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard (RFC 8878): smaller. Needs the feature `zstd`, which is on by default.
    Zstd,
    /// The LZ4 block format: faster. Needs the feature `lz4`, which is on by default.
    Lz4,
}

impl Compression {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Zstd,
            2 => Self::Lz4,
            _ => return None,
        })
    }

    /// Returns the feature that builds it in, if that is off.
    pub(crate) fn missing_feature(self) -> Option<&'static str> {
        let (feature, is_built_in) = match self {
            Self::Zstd => ("zstd", zstd::IS_BUILT_IN),
            Self::Lz4 => ("lz4", lz4::IS_BUILT_IN),
        };
        (!is_built_in).then_some(feature)
    }
}

/// The plain length (four bytes, little endian) and the compressed bytes; `None` where that would
/// not be smaller, or could not be expanded again.
pub(crate) fn shrink(with: Compression, plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() > MAX_EXPANDED {
        return None;
    }
    let length = u32::try_from(plain.len()).ok()?;
    let packed = match with {
        Compression::Zstd => zstd::compress(plain)?,
        Compression::Lz4 => lz4::compress(plain)?,
    };
    let mut out = Vec::with_capacity(4 + packed.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&packed);
    (out.len() < plain.len()).then_some(out)
}

/// The plain bytes; `None` unless they are exactly as many as the payload says, within the bound.
pub(crate) fn expand(with: Compression, packed: &[u8]) -> Option<Vec<u8>> {
    let (length, packed) = packed.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > MAX_EXPANDED {
        return None;
    }
    let plain = match with {
        Compression::Zstd => zstd::decompress(packed, length)?,
        Compression::Lz4 => lz4::decompress(packed, length)?,
    };
    (plain.len() == length).then_some(plain)
}

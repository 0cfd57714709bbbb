//! Making payloads smaller, and large again within a bound.

/// The most bytes that a compressed payload may expand to: 128 MiB.
///
/// A reader must not be made to allocate without end by a few bytes in the store. Larger payloads
/// are stored as they are.
pub const MAX_EXPANDED: usize = 128 << 20;

/// zstd's own default level: the best ratio at a speed that still outruns the network.
const ZSTD_LEVEL: i32 = 3;

/// How payloads are compressed. A reader follows the entry's header, whichever it would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard (RFC 8878): smaller.
    Zstd,
    /// The LZ4 block format: faster.
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
}

/// The plain length (four bytes, little endian) and the compressed bytes; `None` where that would
/// not be smaller, or could not be expanded again.
pub(crate) fn shrink(with: Compression, plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() > MAX_EXPANDED {
        return None;
    }
    let length = u32::try_from(plain.len()).ok()?;
    let packed = match with {
        Compression::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).ok()?,
        Compression::Lz4 => lz4_flex::block::compress(plain),
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
        Compression::Zstd => zstd::bulk::decompress(packed, length).ok()?,
        Compression::Lz4 => lz4_flex::block::decompress(packed, length).ok()?,
    };
    (plain.len() == length).then_some(plain)
}

//! Zstandard (RFC 8878).

/// zstd's own default level: the best ratio at a speed that still outruns the network.
const LEVEL: i32 = 3;

pub(super) const IS_BUILT_IN: bool = true;

pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL).ok()
}

pub(super) fn decompress(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(packed, length).ok()
}

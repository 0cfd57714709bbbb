//! The LZ4 block format.

pub(super) const IS_BUILT_IN: bool = true;

pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    Some(lz4_flex::block::compress(plain))
}

pub(super) fn decompress(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    lz4_flex::block::decompress(packed, length).ok()
}

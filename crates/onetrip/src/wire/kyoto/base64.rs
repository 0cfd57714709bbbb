//! Base64 with padding (RFC 4648, section 4), for columns that contain any byte.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns the encoded length of `length` bytes.
pub(super) fn encoded_length(length: usize) -> usize {
    length.div_ceil(3) * 4
}

/// Appends `bytes`, encoded.
pub(super) fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        if let Some(low) = padded.get_mut(1..1 + group.len()) {
            low.copy_from_slice(group);
        }
        let bits = u32::from_be_bytes(padded);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            out.push(match ALPHABET.get(value) {
                Some(letter) if digit <= group.len() => *letter,
                _ => b'=',
            });
        }
    }
}

/// Decodes `text`; `None` if it is not Base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut groups = text.chunks_exact(4);
    while let Some(group) = groups.next() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        let last = groups.len() == 0;
        if padding > 2 || padding > 0 && !last {
            return None;
        }
        let mut bits = 0;
        for byte in group.iter().take(4 - padding) {
            bits = bits << 6 | value(*byte)?;
        }
        bits <<= 6 * padding;
        let [_, group @ ..] = bits.to_be_bytes();
        bytes.extend(group.iter().take(3 - padding));
    }
    groups.remainder().is_empty().then_some(bytes)
}

fn value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

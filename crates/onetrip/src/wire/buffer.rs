//! What a server answers, in one piece of memory, so that values are slices of it.

use bytes::Bytes;

/// The largest piece of memory that is kept for what comes next.
const MOST_KEPT: usize = 128 << 10;

/// Bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Those before, whose memory is used again when nobody holds any of it.
    before: Bytes,
}

impl Buffer {
    /// Where to append what came, with room for so many bytes.
    pub(crate) fn room(&mut self, room: usize) -> &mut Vec<u8> {
        if self.bytes.capacity() - self.bytes.len() < room {
            if self.bytes.is_empty() {
                let before = std::mem::take(&mut self.before);
                if before.is_unique() {
                    self.bytes = before.into();
                }
                if self.bytes.capacity() < room {
                    self.bytes = Vec::with_capacity(room);
                }
            } else {
                self.bytes.reserve(room);
            }
        }
        &mut self.bytes
    }

    /// What came and was not taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes out the first bytes, up to `end`. Slices of them keep all the memory that they came
    /// in: where they leave most of that empty, they are copied, or it is given back.
    pub(crate) fn take(&mut self, end: usize) -> Bytes {
        let came = self.bytes.get(..end).unwrap_or(&self.bytes);
        let end = came.len();
        let is_kept = self.bytes.capacity() <= MOST_KEPT;
        let is_sparse = end < self.bytes.capacity() / 2;
        if is_kept && is_sparse {
            let copy = Bytes::copy_from_slice(came);
            self.bytes.drain(..end);
            return copy;
        }
        let rest = self.bytes.split_off(end);
        let mut bytes = std::mem::replace(&mut self.bytes, rest);
        if is_sparse {
            bytes.shrink_to_fit();
        }
        let bytes = Bytes::from(bytes);
        if is_kept {
            self.before = bytes.clone();
            self.before.clear();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(buffer: &mut Buffer, bytes: &[u8], room: usize) -> *const u8 {
        let place = buffer.room(room);
        place.extend_from_slice(bytes);
        place.as_ptr()
    }

    #[test]
    fn what_fills_it_is_not_copied_and_what_does_not_leaves_it() {
        let mut buffer = Buffer::default();
        let place = came(&mut buffer, b"a long answer", 16);
        let taken = buffer.take(13);
        assert_eq!(taken, "a long answer");
        assert_eq!(taken.as_ptr(), place);
        let place = came(&mut buffer, b"short", 16);
        let taken = buffer.take(5);
        assert_eq!(taken, "short");
        assert_ne!(taken.as_ptr(), place);
        assert_eq!(came(&mut buffer, b"again", 16), place);
    }

    #[test]
    fn memory_is_used_again_when_nobody_holds_any_of_it() {
        let mut buffer = Buffer::default();
        let first = came(&mut buffer, b"a long answer", 16);
        let held = buffer.take(13).slice(2..6);
        let second = came(&mut buffer, b"a long answer", 16);
        assert_ne!(first, second);
        drop(buffer.take(13));
        assert_eq!(came(&mut buffer, b"a long answer", 16), second);
        assert_eq!(held, "long");
    }

    #[test]
    fn what_follows_stays() {
        let mut buffer = Buffer::default();
        for room in [10, 1000] {
            came(&mut buffer, b"firstthen", room);
            assert_eq!(buffer.take(5), "first");
            assert_eq!(buffer.bytes(), b"then");
            assert_eq!(buffer.take(99), "then");
            assert!(buffer.bytes().is_empty());
        }
    }

    #[test]
    fn a_large_answer_leaves_no_memory_behind() {
        for length in [MOST_KEPT / 4, MOST_KEPT + 1, 4 * MOST_KEPT] {
            let mut buffer = Buffer::default();
            came(&mut buffer, &vec![1; length], 16 * MOST_KEPT);
            buffer.room(0).push(2);
            let taken = buffer.take(length);
            assert!(taken.iter().all(|byte| *byte == 1));
            assert_eq!(taken.len(), length);
            assert_eq!(buffer.bytes(), [2]);
            assert!(buffer.room(0).capacity() <= MOST_KEPT);
            // Nor does what was taken hold more than it is.
            let held = taken.try_into_mut().map(|bytes| bytes.capacity());
            assert!(held.is_ok_and(|capacity| capacity < 2 * length));
        }
    }
}

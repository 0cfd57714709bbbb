//! The receive buffer. Values are slices of it.

use bytes::Bytes;

/// Largest allocation kept for the next answer.
const MOST_KEPT: usize = 128 << 10;

/// Received bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// The previous allocation, reused once nobody holds a slice of it.
    before: Bytes,
}

impl Buffer {
    /// Returns where to append received bytes, with room for `room` more.
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

    /// Returns the bytes received and not taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes out the first `end` bytes. Slices of them keep the whole allocation alive: if that
    /// would be mostly empty, the bytes are copied or the allocation is shrunk.
    pub(crate) fn take(&mut self, end: usize) -> Bytes {
        let taken = self.bytes.get(..end).unwrap_or(&self.bytes);
        let end = taken.len();
        let is_kept = self.bytes.capacity() <= MOST_KEPT;
        let is_sparse = end < self.bytes.capacity() / 2;
        if is_kept && is_sparse {
            let copy = Bytes::copy_from_slice(taken);
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

    fn receive(buffer: &mut Buffer, bytes: &[u8], room: usize) -> *const u8 {
        let place = buffer.room(room);
        place.extend_from_slice(bytes);
        place.as_ptr()
    }

    #[test]
    fn full_buffer_is_handed_out_and_sparse_one_is_copied() {
        let mut buffer = Buffer::default();
        let place = receive(&mut buffer, b"a long answer", 16);
        let taken = buffer.take(13);
        assert_eq!(taken, "a long answer");
        assert_eq!(taken.as_ptr(), place);
        let place = receive(&mut buffer, b"short", 16);
        let taken = buffer.take(5);
        assert_eq!(taken, "short");
        assert_ne!(taken.as_ptr(), place);
        assert_eq!(receive(&mut buffer, b"again", 16), place);
    }

    #[test]
    fn memory_is_reused_when_nobody_holds_a_slice() {
        let mut buffer = Buffer::default();
        let first = receive(&mut buffer, b"a long answer", 16);
        let held = buffer.take(13).slice(2..6);
        let second = receive(&mut buffer, b"a long answer", 16);
        assert_ne!(first, second);
        drop(buffer.take(13));
        assert_eq!(receive(&mut buffer, b"a long answer", 16), second);
        assert_eq!(held, "long");
    }

    #[test]
    fn later_bytes_stay() {
        let mut buffer = Buffer::default();
        for room in [10, 1000] {
            receive(&mut buffer, b"firstthen", room);
            assert_eq!(buffer.take(5), "first");
            assert_eq!(buffer.bytes(), b"then");
            assert_eq!(buffer.take(99), "then");
            assert!(buffer.bytes().is_empty());
        }
    }

    #[test]
    fn large_answer_leaves_no_memory_behind() {
        for length in [MOST_KEPT / 4, MOST_KEPT + 1, 4 * MOST_KEPT] {
            let mut buffer = Buffer::default();
            receive(&mut buffer, &vec![1; length], 16 * MOST_KEPT);
            buffer.room(0).push(2);
            let taken = buffer.take(length);
            assert!(taken.iter().all(|byte| *byte == 1));
            assert_eq!(taken.len(), length);
            assert_eq!(buffer.bytes(), [2]);
            assert!(buffer.room(0).capacity() <= MOST_KEPT);
            // Taken bytes hold no spare memory either.
            let held = taken.try_into_mut().map(|bytes| bytes.capacity());
            assert!(held.is_ok_and(|capacity| capacity < 2 * length));
        }
    }
}

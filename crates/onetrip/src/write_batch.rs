//! Plain writes that the program sends as one batch.

use std::sync::{Mutex, PoisonError};

use crate::trip::Op;

/// The most bytes of entries that wait in a batch. A write that exceeds them sends the batch first.
const MOST: usize = 64 << 20;

/// Writes that are sent in one trip: with the next operation of their context that makes one, or at
/// the end of the block. They keep their order.
#[derive(Debug, Default)]
pub struct WriteBatch(Mutex<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    ops: Vec<Op>,
    bytes: usize,
    closed: bool,
}

impl WriteBatch {
    fn with<T>(&self, change: impl FnOnce(&mut Gathered) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a write. Returns it if it must be sent at once: the block is over or the batch is full.
    pub(crate) fn gather(&self, op: Op) -> Result<(), Op> {
        self.with(|gathered| {
            let bytes = op.carries();
            if gathered.closed || gathered.bytes + bytes > MOST {
                return Err(op);
            }
            gathered.bytes += bytes;
            gathered.ops.push(op);
            Ok(())
        })
    }

    /// Takes out all writes.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.with(|gathered| {
            gathered.bytes = 0;
            std::mem::take(&mut gathered.ops)
        })
    }

    /// Closes the batch. Later writes are sent at once.
    pub fn close(&self) {
        self.with(|gathered| gathered.closed = true);
    }
}

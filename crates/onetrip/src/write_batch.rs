//! Plain writes that the program asked to be sent together.

use std::sync::{Mutex, PoisonError};

use crate::trip::Op;

/// The most bytes of entries that wait in a batch. A write beyond sends the others first.
const MOST: usize = 64 << 20;

/// Writes that leave in one trip: with the next operation of their context that travels, or at the
/// end of the block that gathers them. They keep their order.
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

    /// Takes a write. Gives it back if it has to go at once: the block is over, or too much waits.
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

    /// Takes out what waits.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.with(|gathered| {
            gathered.bytes = 0;
            std::mem::take(&mut gathered.ops)
        })
    }

    /// Ends it. What is written later goes at once.
    pub fn close(&self) {
        self.with(|gathered| gathered.closed = true);
    }
}

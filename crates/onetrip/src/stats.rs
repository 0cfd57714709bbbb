//! The counters of a cache.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ErrorKind;
use crate::trip::{Op, Purpose, Replies, Reply, Trip};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counters of a cache since it was opened or last reset, over all threads.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
        }

        /// The live counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Stats {
            /// Returns the name and value of each counter, in the order of the fields.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed)),+ }
            }

            pub(crate) fn reset(&self) {
                $(self.$name.0.store(0, Ordering::Relaxed);)+
            }
        }
    };
}

counters! {
    /// Exchanges with the store, failed ones included.
    trips,
    /// Reads that found a value, in a scope or in the store.
    hits,
    /// Reads that found none.
    misses,
    /// Hits that a scope answered.
    scope_hits,
    /// Entries sent to the store, by set or add.
    writes,
    /// Writes that were posted: sent without waiting for their replies.
    posted,
    /// Deletes sent to the store.
    deletes,
    /// Operations that the store failed to carry out.
    errors,
    /// Entries that could not be read: cut short, damaged, wrongly signed, of another version.
    /// Each is also a miss.
    bad_entries,
    /// Bytes of entries received.
    bytes_in,
    /// Bytes of entries sent.
    bytes_out,
}

/// A number that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts one trip and its operations.
    pub(crate) fn trip(&self, trip: &Trip, replies: &Replies) {
        let (mut writes, mut deletes, mut errors) = (0, 0, 0);
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for op in trip.ops() {
            match op {
                Op::Set { .. } | Op::Add { .. } => writes += 1,
                Op::Delete { .. } => deletes += 1,
                _ => {}
            }
            bytes_out += op.carries() as u64;
        }
        for reply in replies {
            bytes_in += reply.carries() as u64;
            // The program's mistake, not a failure of the store.
            errors += u64::from(matches!(
                reply,
                Reply::Failed(error) if error.kind() != ErrorKind::NotANumber
            ));
        }
        let is_post = matches!(trip.purpose(), Purpose::Post(_));
        self.trips.add(u64::from(!is_post));
        for (counter, more) in [
            (&self.writes, writes),
            (&self.posted, if is_post { writes } else { 0 }),
            (&self.deletes, deletes),
            (&self.errors, errors),
            (&self.bytes_in, bytes_in),
            (&self.bytes_out, bytes_out),
        ] {
            if more > 0 {
                counter.add(more);
            }
        }
    }
}

//! Keys that a visit may read, before it is decided which may be asked for.

use std::collections::HashMap;

use super::budget::Candidate;
use super::earn::Counts;
use super::ledger::Ledger;
use super::report::Predicted;
use super::shape::is_session;
use super::usage::{Kinds, Usage};

/// Keys that a visit may read.
#[derive(Debug, Default)]
pub(super) struct Offers(HashMap<Vec<u8>, Offer>);

#[derive(Debug)]
struct Offer {
    chance: f32,
    bytes: u32,
    kinds: Kinds,
    secret: bool,
    /// Counts of the template that makes the key, if one does.
    counts: Counts,
}

impl Offers {
    /// Adds a key, or merges what else is known of it.
    pub(super) fn add(&mut self, key: Vec<u8>, chance: f32, usage: &Usage, counts: Counts) {
        let new = Offer {
            chance,
            bytes: usage.bytes,
            kinds: usage.kinds,
            secret: usage.secret,
            counts,
        };
        let Some(known) = self.0.get_mut(&key) else {
            self.0.insert(key, new);
            return;
        };
        if chance > known.chance {
            (known.chance, known.bytes) = (chance, usage.bytes);
        }
        known.kinds.join(usage.kinds);
        // One template that explains the key suffices: it is no secret.
        known.secret &= usage.secret;
        known.counts.weigh(&counts);
    }

    /// Returns whether plain calls read any of them.
    pub(super) fn have_state(&self) -> bool {
        self.0.values().any(|offer| offer.kinds.is_state())
    }

    /// Returns those that may be asked for: pieces, and state that has earned its place.
    pub(super) fn judge(self, ledger: Option<&Ledger>) -> Vec<Candidate> {
        let offers = self.0.into_iter();
        offers
            .filter_map(|(key, offer)| {
                let is_open = offer.kinds.is_state() && !offer.secret && !is_session(&key);
                let evidence = ledger
                    .filter(|_| is_open)
                    .map(|ledger| ledger.evidence(&key, offer.counts))
                    .filter(|evidence| evidence.has_earned());
                let state = evidence.is_some();
                let piece = offer.kinds.is_piece();
                (piece || state).then(|| Candidate {
                    chance: offer.chance,
                    key: Predicted {
                        bytes: offer.bytes,
                        piece,
                        state,
                        lasting: evidence.is_some_and(|evidence| evidence.is_lasting()),
                        again: state && offer.kinds.is_again(),
                        key,
                    },
                })
            })
            .collect()
    }
}

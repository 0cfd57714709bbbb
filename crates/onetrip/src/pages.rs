//! What a page does with what was learned of it: its first trip takes along what it is likely to
//! read, and exchanges what workers know.
//!
//! The first trip, not a trip of its own: a page that is known late loses nothing by it, and one
//! that reads nothing makes none.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::error::ErrorKind;
use crate::learn::{Learner, MAX_NAME, Page, Report};
use crate::policy::Policy;
use crate::records::Asked;
use crate::scope::{Scope, Ticket};
use crate::trip::{Op, Replies, Reply, Trip};

/// What pages do with what they learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageMode {
    /// Their first trip brings what they are likely to read.
    #[default]
    Preload,
    /// They only count what it would have brought.
    Shadow,
    /// They learn nothing.
    Off,
}

/// Operations that a trip takes along behind its own.
pub(crate) struct Ahead {
    /// How many operations the trip has of its own.
    own: usize,
    ticket: Ticket,
    keys: Vec<(Arc<Page>, Vec<u8>)>,
    records: SmallVec<[Asked; 1]>,
}

impl Policy {
    /// Whether pages learn at all, so that naming them is worth something. Where scopes hold
    /// nothing for any time, nothing can be brought ahead.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.page_mode != PageMode::Off && !self.disabled && !self.max_age.is_zero()
    }

    /// Tells that `scope` is made for `page` from now on. Give what comes back to
    /// [`end_visit`](Self::end_visit), or let the end of the scope end the visit.
    pub fn begin_visit(&self, scope: &Scope, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        if self.learns() && page.route().len() <= MAX_NAME {
            scope.begin_visit(Arc::clone(&page));
        }
        page
    }

    /// Ends a visit. It is learned from if it was one that others will be like: not an error, nor a
    /// request that changes something.
    pub fn end_visit(&self, scope: &Scope, page: &Arc<Page>, learn: bool) {
        if let Some(visit) = scope.end_visit(page)
            && learn
        {
            self.learner.learn(page, &visit);
        }
    }

    /// Ends all visits of a scope without learning from them.
    pub fn discard_visits(&self, scope: &Scope) {
        scope.end_visits();
    }

    /// Learns from the visits that end with their scope.
    pub(crate) fn learn_visits(&self, scope: &Scope) {
        for (page, visit) in scope.end_visits() {
            self.learner.learn(&page, &visit);
        }
    }

    /// What is known of each route, those that are visited most first.
    #[must_use]
    pub fn pages(&self) -> Vec<Report> {
        self.learner.report()
    }

    pub(crate) fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Lets a trip that reads `own` keys take along what the pages of `scope` are likely to read.
    pub(crate) fn ahead<K: AsRef<[u8]>>(
        &self,
        scope: Option<&Arc<Scope>>,
        own: &[K],
        trip: &mut Trip,
    ) -> Option<Ahead> {
        let scope = scope?;
        let departing = scope.depart_visits();
        if departing.is_empty() {
            return None;
        }
        let mut ahead = Ahead {
            own: trip.len(),
            ticket: scope.ticket(),
            keys: Vec::new(),
            records: SmallVec::new(),
        };
        // In this order, so that what is brought is found by its place: keys, what other workers are
        // asked for, and last what they are told, which nobody waits for.
        let own: HashSet<&[u8]> = own.iter().map(AsRef::as_ref).collect();
        for page in &departing {
            self.take_along(scope, page, &own, trip, &mut ahead);
        }
        let mut told = SmallVec::<[Op; 4]>::new();
        for page in &departing {
            self.exchange(page, trip, &mut ahead.records, &mut told);
        }
        told.into_iter().for_each(|op| trip.push_along(op));
        Some(ahead)
    }

    fn take_along(
        &self,
        scope: &Scope,
        page: &Arc<Page>,
        own: &HashSet<&[u8]>,
        trip: &mut Trip,
        ahead: &mut Ahead,
    ) {
        for predicted in self.learner().predict(page) {
            let (key, bytes) = (predicted.key, predicted.bytes);
            let asked = own.contains(key.as_slice());
            if asked || self.page_mode == PageMode::Shadow {
                scope.note_ahead(page, &key, bytes as usize);
            } else if !scope.holds(&key) {
                trip.push_along(Op::Get {
                    name: self.keyspace.name(&key),
                });
                ahead.keys.push((Arc::clone(page), key));
            }
        }
    }

    /// Takes what came along out of `replies`, which are then those of the trip's own operations.
    pub(crate) fn arrive(
        &self,
        scope: Option<&Arc<Scope>>,
        ahead: Option<Ahead>,
        replies: &mut Replies,
    ) {
        let (Some(scope), Some(ahead)) = (scope, ahead) else {
            return;
        };
        let own = ahead.own.min(replies.len());
        let brought: Vec<Reply> = replies.drain(own..).collect();
        let mut brought = brought.into_iter();
        let mut answers = Vec::with_capacity(ahead.keys.len());
        for ((page, key), reply) in ahead.keys.into_iter().zip(brought.by_ref()) {
            // Unknown is not absent: such a key is asked for again when it is read.
            if let Reply::Entry(entry) = reply {
                scope.note_ahead(&page, &key, entry.as_ref().map_or(0, Bytes::len));
                answers.push((Bytes::from(key), entry));
            }
        }
        scope.keep_all(ahead.ticket, answers.into_iter());
        for (asked, reply) in ahead.records.iter().zip(brought.by_ref()) {
            self.heed(&reply, true);
            if let Some(page) = self.hear(asked, reply) {
                // Another worker knows this page: what is still missing comes in one trip.
                scope.depart_again(page);
            }
        }
        brought.for_each(|reply| self.heed(&reply, false));
    }

    /// Leaves the records alone for a while if the store does not permit them to be read, or to be
    /// written.
    fn heed(&self, reply: &Reply, load: bool) {
        if let Reply::Failed(error) = reply
            && error.kind() == ErrorKind::Refused
        {
            self.learner().refused(load, self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use crate::{Cache, Page};

    fn poll_once(work: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(work).as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_page_that_is_dropped_within_a_scope_is_over_and_not_learned() {
        let cache = Cache::open("memory://").unwrap();
        let (cut, whole) = (Page::new("cut"), Page::new("whole"));
        assert!(poll_once(cache.scope(async {
            let read = async |key: &str| drop(cache.get::<String>(key).await);
            assert!(!poll_once(cache.page(cut, async {
                read("before").await;
                std::future::pending::<()>().await;
            })));
            // What follows is none of it, whether its scope goes on or closes.
            read("after").await;
            cache.page(whole, read("other")).await.unwrap();
        })));
        let learned = cache.pages();
        assert_eq!(learned.len(), 1);
        assert_eq!((&*learned[0].route, learned[0].reads), ("whole", 1));
    }
}

//! What a page does with what was learned of it: its first trip takes along what it is likely to
//! read, and exchanges what workers know.
//!
//! The first trip, not a trip of its own: a page that is known late loses nothing by it, and one
//! that reads nothing makes none.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::error::ErrorKind;
use crate::learn::{Learner, MAX_NAME, Page, PageReport, Predicted};
use crate::policy::Policy;
use crate::records::Asked;
use crate::scope::{Arrival, Brought, Reading, Scope, Ticket};
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

/// Reads that a trip brings behind its own.
pub(crate) struct Ahead {
    pub(crate) ticket: Ticket,
    /// Where the trip's own reads begin, and where they end.
    own: std::ops::Range<usize>,
    /// Where what it brings for this cache ends, and that for others begins.
    end: usize,
    /// Whether it is the first trip of a page.
    is_first: bool,
    keys: Vec<Expected>,
    /// Those of the trip's own reads that the snapshot is to hold, by their place among them.
    shots: Vec<(usize, Bytes, bool)>,
    records: SmallVec<[Asked; 1]>,
    /// Whether what it brings replaces the snapshot.
    snapshot: bool,
    /// What companions added, and how many operations that are.
    others: SmallVec<[(usize, Arrival); 1]>,
}

/// A key that is read ahead, and what for.
struct Expected {
    page: Option<Arc<Page>>,
    key: Vec<u8>,
    piece: bool,
    state: bool,
    lasting: bool,
}

impl Policy {
    /// Whether pages learn at all, so that naming them is worth something. Where scopes hold
    /// nothing for any time, nothing can be brought ahead.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.page_mode != PageMode::Off && !self.disabled && !self.max_age.is_zero()
    }

    /// Marks `scope` as serving `page`. Give what comes back to [`end_visit`](Self::end_visit), or
    /// let the end of the scope end the visit.
    pub fn begin_visit(&self, scope: &Scope, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        if self.learns() && page.route().len() <= MAX_NAME {
            scope.begin_visit(Arc::clone(&page), self.learner.is_to_verify(&page));
        }
        page
    }

    /// Ends a visit. It is learned from if it was one that others will be like: not an error, nor a
    /// request that changes something.
    pub fn end_visit(&self, scope: &Scope, page: &Arc<Page>, learn: bool) {
        let Some(visit) = scope.end_visit(page) else {
            return;
        };
        if learn {
            self.learner.learn(page, &visit);
        } else {
            self.learner.note(Some(page), &visit);
        }
    }

    /// Ends all visits of a scope. What they changed is learned, what they read is not.
    pub fn discard_visits(&self, scope: &Scope) {
        for (page, visit) in scope.end_visits() {
            self.learner.note(Some(&page), &visit);
        }
    }

    /// Learns from what ends with a scope.
    pub(crate) fn learn_visits(&self, scope: &Scope) {
        if !self.learns() {
            return;
        }
        for (page, visit) in scope.end_visits() {
            self.learner.learn(&page, &visit);
        }
        let rest = scope.take_rest();
        if !rest.uses.is_empty() {
            self.learner.note(None, &rest);
        }
    }

    /// What is known of each route, those that are visited most first.
    #[must_use]
    pub fn pages(&self) -> Vec<PageReport> {
        self.learner.report()
    }

    pub(crate) fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Lets a trip, whose last operations read `own` keys, bring what the pages of `scope` are likely
    /// to read: all of it with a page's first trip, and with each plain read the state that has
    /// earned a place in the snapshot.
    pub(crate) fn ahead<K: AsRef<[u8]>>(
        &self,
        scope: Option<&Arc<Scope>>,
        own: &[K],
        reading: Reading,
        trip: &mut Trip,
    ) -> Option<Ahead> {
        let scope = scope?;
        let mut ahead = self.ahead_alone(scope, own, reading, trip)?;
        ahead.end = trip.len();
        if ahead.is_first {
            for companion in scope.companions() {
                let before = trip.len();
                let arrival = companion.bring(trip);
                let count = trip.len() - before;
                ahead.others.extend(arrival.map(|arrival| (count, arrival)));
            }
        }
        Some(ahead)
    }

    fn ahead_alone<K: AsRef<[u8]>>(
        &self,
        scope: &Arc<Scope>,
        own: &[K],
        reading: Reading,
        trip: &mut Trip,
    ) -> Option<Ahead> {
        let outlook = scope.outlook()?;
        let is_plain = matches!(reading, Reading::Plain(_));
        if outlook.departing.is_empty() && !(is_plain && outlook.snapshots) {
            return None;
        }
        let begin = trip.len() - own.len();
        let names: HashMap<&[u8], usize> = own.iter().map(AsRef::as_ref).zip(0..).collect();
        let mut asked = Bringing {
            policy: self,
            scope,
            own: &names,
            is_plain,
            snapshots: outlook.snapshots && self.page_mode == PageMode::Preload,
            seen: HashSet::new(),
            shots: Vec::new(),
            keys: Vec::new(),
        };
        for expected in &outlook.expected {
            for predicted in expected.iter() {
                asked.add(None, predicted);
            }
        }
        for page in &outlook.departing {
            let predicted: Arc<[Predicted]> = self.learner().predict(page).into();
            for predicted in predicted.iter() {
                asked.add(Some(page), predicted);
            }
            scope.expect(page, predicted);
        }
        let snapshot = outlook.snapshots && (is_plain || asked.keys.iter().any(|key| key.state));
        let mut ahead = Ahead {
            own: begin..trip.len(),
            end: 0,
            is_first: !outlook.departing.is_empty(),
            // Of its departure: what is written from here on is not in it.
            ticket: scope.depart(snapshot),
            snapshot,
            shots: asked.shots,
            keys: asked.keys,
            records: SmallVec::new(),
            others: SmallVec::new(),
        };
        // In this order, so that what is brought is found by its place: keys, what other workers are
        // asked for, and last what they are told, which nobody waits for.
        for expected in &ahead.keys {
            let name = self.keyspace.name(&expected.key);
            trip.push_along(Op::Get { name });
        }
        let mut told = SmallVec::<[Op; 4]>::new();
        for page in &outlook.departing {
            self.exchange(page, trip, &mut ahead.records, &mut told);
        }
        told.into_iter().for_each(|op| trip.push_along(op));
        Some(ahead)
    }

    /// Lets a trip of another cache on the same store bring what the pages of `scope` are likely to
    /// read, if their first trip is still to come.
    pub(crate) fn accompany(&self, scope: &Arc<Scope>, trip: &mut Trip) -> Option<Ahead> {
        let departs = scope
            .outlook()
            .is_some_and(|outlook| !outlook.departing.is_empty());
        if !departs || self.disabled {
            return None;
        }
        let none: &[&[u8]] = &[];
        let ahead = self.ahead_alone(scope, none, Reading::Piece(None), trip)?;
        // It will be given the replies to what it added, and no others.
        let end = trip.len() - ahead.own.end;
        Some(Ahead {
            own: 0..0,
            end,
            ..ahead
        })
    }

    /// Takes what a trip brought out of `replies`, which are then those of its own operations.
    pub(crate) fn arrive(
        &self,
        scope: Option<&Arc<Scope>>,
        ahead: Option<Ahead>,
        replies: &mut Replies,
    ) {
        let (Some(scope), Some(ahead)) = (scope, ahead) else {
            return;
        };
        let end = ahead.end.min(replies.len());
        let mut others = replies.drain(end..).collect::<Replies>().into_iter();
        for (count, arrival) in ahead.others {
            arrival(others.by_ref().take(count).collect());
        }
        let end = ahead.own.end.min(replies.len());
        let brought: Vec<Reply> = replies.drain(end..).collect();
        let mut brought = brought.into_iter();
        let mut pieces = Vec::with_capacity(ahead.keys.len());
        let mut shots = Vec::new();
        for (nth, key, lasting) in ahead.shots {
            if let Some(Reply::Entry(stored)) = replies.get(ahead.own.start + nth) {
                // This read is the one that an absence is good for.
                if stored.is_none() && !lasting {
                    continue;
                }
                let entry = stored.as_ref().map(|stored| stored.bytes.clone());
                shots.push(Brought {
                    key,
                    entry,
                    lasting,
                });
            }
        }
        for (expected, reply) in ahead.keys.into_iter().zip(brought.by_ref()) {
            // Unknown is not absent: such a key is asked for again when it is read.
            let Reply::Entry(stored) = reply else {
                continue;
            };
            let entry = stored.as_ref().map(|stored| &stored.bytes);
            if let Some(page) = &expected.page {
                scope.note_ahead(page, &expected.key, entry.map_or(0, Bytes::len));
            }
            let key = Bytes::from(expected.key);
            if expected.state {
                scope.compare(&key, entry.map(|entry| &**entry));
                shots.push(Brought {
                    key: key.clone(),
                    entry: entry.cloned(),
                    lasting: expected.lasting,
                });
            }
            if expected.piece {
                pieces.push((key, stored));
            }
        }
        scope.keep_all(ahead.ticket, false, pieces.into_iter());
        if ahead.snapshot {
            scope.keep_snapshot(ahead.ticket, shots.into_iter());
        }
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

/// Gathers what a trip is to bring.
struct Bringing<'a> {
    policy: &'a Policy,
    scope: &'a Scope,
    own: &'a HashMap<&'a [u8], usize>,
    is_plain: bool,
    snapshots: bool,
    seen: HashSet<Vec<u8>>,
    shots: Vec<(usize, Bytes, bool)>,
    keys: Vec<Expected>,
}

impl Bringing<'_> {
    /// Adds a key that is likely to be read. `page` is one that makes its first trip.
    fn add(&mut self, page: Option<&Arc<Page>>, predicted: &Predicted) {
        let Predicted { key, lasting, .. } = predicted;
        if let Some(nth) = self.own.get(key.as_slice()) {
            if let Some(page) = page {
                self.scope.note_ahead(page, key, predicted.bytes as usize);
            }
            if self.is_plain && self.snapshots && predicted.state {
                self.shots
                    .push((*nth, Bytes::copy_from_slice(key), *lasting));
            }
            return;
        }
        if self.policy.page_mode == PageMode::Shadow {
            if let Some(page) = page {
                self.scope.note_ahead(page, key, predicted.bytes as usize);
            }
            return;
        }
        // Pieces come once. State is read anew with each snapshot, if it is likely to be read yet.
        let piece = page.is_some() && predicted.piece && !self.scope.holds(key);
        let state = self.snapshots
            && predicted.state
            && (page.is_some() || predicted.again || !self.scope.has_read(key));
        if (piece || state) && self.seen.insert(key.clone()) {
            self.keys.push(Expected {
                page: page.cloned(),
                key: key.clone(),
                piece,
                state,
                lasting: *lasting,
            });
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
            cache.page(whole, read("other")).await;
        })));
        let learned = cache.pages();
        assert_eq!(learned.len(), 1);
        assert_eq!((&*learned[0].route, learned[0].reads), ("whole", 1));
    }
}

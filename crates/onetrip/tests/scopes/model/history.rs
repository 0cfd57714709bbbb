//! What the store held when, who wrote it, and which answers that allows.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use onetrip::Cache;
use onetrip::internals::Work;
use onetrip::trip::{Op, Replies, Reply, Trip};

use super::KEYS;
use crate::support::hand::{Answer, Hand, elsewhere};

/// Number of a step of the program.
pub(super) type Tick = usize;

type Key = &'static str;

const SCOPE_MAX_AGE: Duration = Duration::from_secs(10);
const READ_MAX_AGE: Duration = Duration::from_millis(100);

/// A plain write of this process.
struct Write {
    /// `None` for all keys.
    key: Option<Key>,
    scope: Option<usize>,
    began: Tick,
    returned: Option<Tick>,
}

/// A value that is being computed.
struct Flight {
    key: Key,
    value: String,
    claimed: Tick,
    over: bool,
}

/// The state of a scope.
#[derive(Default)]
pub(super) struct ScopeState {
    work: Work,
    /// When `fresh` was last called.
    fresh: Tick,
    sending: Option<Tick>,
    /// Lower bound for the moment of its latest plain answer, and when that was given.
    floors: Vec<(Tick, Tick)>,
    named: Vec<(Key, Tick)>,
}

pub(super) struct History {
    tick: Tick,
    /// Time after each step.
    times: Vec<Duration>,
    /// Values of each key, each with the step from which it was held.
    held: HashMap<Key, Vec<(Tick, Option<String>)>>,
    /// Text of each entry, and how often it was sent.
    texts: HashMap<Bytes, (String, usize)>,
    writes: Vec<Write>,
    flights: Vec<Flight>,
    scopes: Vec<ScopeState>,
    next: u64,
}

impl History {
    pub(super) fn new(cache: &Cache, works: &[Work]) -> Self {
        let hand = Hand::alone(cache);
        let texts = KEYS.map(|key| (hand.seal(key, "0"), ("0".to_owned(), 1)));
        let scopes = works.iter().map(|work| ScopeState {
            work: *work,
            ..ScopeState::default()
        });
        Self {
            tick: 0,
            times: vec![Duration::ZERO],
            held: KEYS
                .map(|key| (key, vec![(0, Some("0".to_owned()))]))
                .into(),
            texts: texts.into(),
            writes: Vec::new(),
            flights: Vec::new(),
            scopes: scopes.collect(),
            next: 0,
        }
    }

    pub(super) fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.times.push(self.now());
        self.tick
    }

    pub(super) fn at(&self) -> Tick {
        self.tick
    }

    fn now(&self) -> Duration {
        *self.times.last().unwrap()
    }

    pub(super) fn wait(&mut self, span: Duration) {
        *self.times.last_mut().unwrap() += span;
    }

    /// Returns a unique value.
    pub(super) fn value(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    /// Makes the entry of a value of this process.
    pub(super) fn seal(&mut self, hand: &Hand, key: Key, value: &str) -> Bytes {
        let entry = hand.seal(key, value);
        self.texts.insert(entry.clone(), (value.to_owned(), 0));
        entry
    }

    pub(super) fn elsewhere(&mut self, cache: &Cache, key: Key, set: bool) {
        let value = set.then(|| self.value());
        elsewhere(cache, key, value.as_deref());
        let entry = value
            .clone()
            .map(|value| Hand::alone(cache).seal(key, &value));
        self.texts
            .extend(entry.zip(value.clone().map(|value| (value, 1))));
        self.change(key, value);
    }

    fn change(&mut self, key: Key, value: Option<String>) {
        self.held.get_mut(key).unwrap().push((self.tick, value));
    }

    fn holds(&self, key: Key, at: Tick) -> Option<&str> {
        let changes = self.held[key].iter();
        let last = changes.take_while(|(since, _)| *since <= at).last();
        last.unwrap().1.as_deref()
    }

    /// Carries out a trip on the store and in the history. `may` accepts the writes that the
    /// program made: none for a read.
    pub(super) fn exchange(
        &mut self,
        hand: &Hand,
        trip: &Trip,
        may: impl Fn(&Op) -> bool,
    ) -> Replies {
        let replies = hand.exchange(trip);
        for (op, reply) in trip.ops().iter().zip(&replies) {
            self.carry_out(op, reply, &may);
        }
        replies
    }

    fn carry_out(&mut self, op: &Op, reply: &Reply, may: &impl Fn(&Op) -> bool) {
        let name = std::str::from_utf8(op.name()).unwrap();
        if name.starts_with("model@onetrip:") {
            // Workers exchange their records.
            return;
        }
        assert!(
            matches!(op, Op::Get { .. }) || may(op),
            "the program did not ask for {op:?}"
        );
        let key = KEYS.into_iter().find(|key| name == format!("model:{key}"));
        match op {
            Op::Set { entry, .. } => {
                let value = self.sent(entry);
                self.change(key.unwrap(), Some(value));
            }
            Op::Add { entry, .. } => {
                let value = self.sent(entry);
                let is_free = self.holds(key.unwrap(), self.tick).is_none();
                assert!(matches!(reply, Reply::Flag(added) if *added == is_free));
                if is_free {
                    self.change(key.unwrap(), Some(value));
                }
            }
            Op::Delete { .. } => self.change(key.unwrap(), None),
            Op::Clear { .. } => KEYS.into_iter().for_each(|key| self.change(key, None)),
            _ => {}
        }
    }

    fn sent(&mut self, entry: &Bytes) -> String {
        let (value, count) = self.texts.get_mut(entry).expect("an entry of the program");
        *count += 1;
        assert_eq!(*count, 1, "{value} is sent once");
        value.clone()
    }

    pub(super) fn fresh(&mut self, scope: usize) {
        self.scopes[scope].fresh = self.tick;
    }

    pub(super) fn begin_sending(&mut self, scope: usize) {
        let tick = self.tick;
        self.scopes[scope].sending.get_or_insert(tick);
    }

    pub(super) fn name(&mut self, scope: Option<usize>, keys: &[Key]) {
        let tick = self.tick;
        if let Some(scope) = scope {
            let named = keys.iter().map(|key| (*key, tick));
            self.scopes[scope].named.extend(named);
        }
    }

    /// Begins a plain write. Returns its number.
    pub(super) fn begin_write(&mut self, key: Option<Key>, scope: Option<usize>) -> usize {
        self.writes.push(Write {
            key,
            scope,
            began: self.tick,
            returned: None,
        });
        self.writes.len() - 1
    }

    /// Ends a write whose value is in the store.
    pub(super) fn end_write(&mut self, write: usize, value: Option<&str>) {
        self.writes[write].returned = Some(self.tick);
        if let Some(value) = value {
            let sent = self
                .texts
                .values()
                .any(|(text, count)| text == value && *count == 1);
            assert!(sent, "{value} is in the store when its call returns");
        }
    }

    /// Returns the last step at which a plain write of this process to `key` returned before
    /// `began`.
    fn written(&self, key: Key, began: Tick) -> Tick {
        let of_key = |write: &&Write| write.key.is_none_or(|of| of == key);
        let returns = self
            .writes
            .iter()
            .filter(of_key)
            .filter_map(|write| write.returned);
        returns
            .filter(|returned| *returned <= began)
            .max()
            .unwrap_or(0)
    }

    /// Returns whether a plain write of this process to `key` has begun or returned since. A write
    /// that began earlier and is still under way is concurrent: it may be ordered before or after.
    pub(super) fn is_written_since(&self, key: Key, tick: Tick) -> bool {
        let of_key = |write: &&Write| write.key.is_none_or(|of| of == key);
        let mut writes = self.writes.iter().filter(of_key);
        writes.any(|write| write.began >= tick || write.returned.is_some_and(|end| end >= tick))
    }

    pub(super) fn claim(&mut self, key: Key) -> usize {
        self.flights.push(Flight {
            key,
            value: String::new(),
            claimed: self.tick,
            over: false,
        });
        self.flights.len() - 1
    }

    pub(super) fn claimed(&self, flight: usize) -> Tick {
        self.flights[flight].claimed
    }

    pub(super) fn land(&mut self, flight: usize, value: &str) {
        let flight = &mut self.flights[flight];
        (flight.over, flight.value) = (true, value.to_owned());
    }

    /// Checks that law 13 lets a caller in `scope` wait for a flight of `key`.
    pub(super) fn assert_may_join(&self, key: Key, scope: Option<usize>) {
        if let Some(scope) = scope {
            assert_ne!(
                self.scopes[scope].work,
                Work::Request,
                "a POST joins no flight"
            );
            let wrote = self.writes.iter().any(|write| write.scope == Some(scope));
            assert!(!wrote, "a scope that wrote joins no flight");
        }
        let mut open = self
            .flights
            .iter()
            .filter(|flight| flight.key == key && !flight.over);
        assert!(
            open.any(|flight| !self.is_written_since(key, flight.claimed)),
            "there is no flight of {key} to wait for"
        );
    }

    /// Checks plain answers to a read of `keys` that began at `began`, with or without a trip.
    pub(super) fn check_plain(
        &mut self,
        scope: Option<usize>,
        keys: &[Key],
        answer: &Answer,
        began: Tick,
        travelled: bool,
    ) {
        let state = scope.map(|scope| &self.scopes[scope]);
        let is_named = |key: Key| {
            state.is_some_and(|state| {
                state
                    .named
                    .iter()
                    .any(|(named, since)| *named == key && *since <= self.tick)
            })
        };
        let pairs = || {
            keys.iter()
                .copied()
                .zip(answer.iter().map(Option::as_deref))
        };
        for (key, value) in pairs().filter(|(key, _)| is_named(key)) {
            self.check_piece(scope, key, value, began);
        }
        let exact: Vec<_> = pairs().filter(|(key, _)| !is_named(key)).collect();
        if exact.is_empty() {
            return;
        }
        let floors = state.into_iter().flat_map(|state| &state.floors);
        let floors = floors.filter(|(_, given)| *given <= began);
        let mut lowest = floors.map(|(moment, _)| *moment).max().unwrap_or(0);
        let mut oldest = Duration::ZERO;
        if travelled {
            lowest = lowest.max(began);
        } else {
            let state = state.expect("only scopes hold answers");
            assert_ne!(state.work, Work::Request, "a POST has no snapshot");
            assert!(
                state.sending.is_none_or(|since| since > began),
                "a stream has no snapshot"
            );
            let own = self.writes.iter().filter(|write| write.scope == scope);
            let own = own
                .filter_map(|write| write.returned)
                .filter(|end| *end <= began);
            lowest = lowest.max(state.fresh).max(own.max().unwrap_or(0));
            for (key, _) in &exact {
                lowest = lowest.max(self.written(key, began));
            }
            oldest = self.now().saturating_sub(READ_MAX_AGE);
        }
        // A snapshot aged exactly a tenth of a second is over.
        let moment = (lowest..=self.tick).find(|tick| {
            (travelled || self.times[*tick] > oldest || oldest.is_zero())
                && exact
                    .iter()
                    .all(|(key, value)| self.holds(key, *tick) == *value)
        });
        let Some(moment) = moment else {
            panic!(
                "{exact:?} of {scope:?}, begun at {began}, {}, was at no step from {lowest} to {}",
                if travelled { "from the store" } else { "held" },
                self.tick
            );
        };
        if let Some(scope) = scope {
            let tick = self.tick;
            self.scopes[scope].floors.push((moment, tick));
        }
    }

    /// Checks a piece that was found.
    pub(super) fn check_piece(
        &self,
        scope: Option<usize>,
        key: Key,
        value: Option<&str>,
        began: Tick,
    ) {
        let state = scope.map(|scope| &self.scopes[scope]);
        let is_sending = state.and_then(|state| state.sending);
        let age = match (state, is_sending) {
            (None, _) => Duration::ZERO,
            (_, Some(since)) if since <= began => READ_MAX_AGE,
            _ => SCOPE_MAX_AGE,
        };
        let oldest = self.times[began].saturating_sub(age);
        let lowest = self.written(key, began);
        let found = (lowest..=self.tick)
            .any(|tick| self.times[tick] >= oldest && self.holds(key, tick) == value);
        assert!(
            found,
            "the piece {key} of {scope:?}, begun at {began}, was {value:?} at no step from {lowest} to {}, or is older than {age:?}",
            self.tick
        );
    }

    /// Checks that the store holds what was written.
    pub(super) fn assert_left(&self, hand: &Hand) {
        for key in KEYS {
            let left = hand.finish(hand.get(key));
            assert_eq!(left[0].as_deref(), self.holds(key, self.tick), "{key}");
        }
    }
}

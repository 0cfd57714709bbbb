//! Actors make calls, one at a time. The trips of a call depart, are exchanged and arrive in
//! separate steps.

use onetrip::internals::{Caller, Fetch, Outcome, Stage, Waiting};
use onetrip::trip::{Op, Replies, Trip};

use super::history::{History, Tick};
use super::{Call, KEYS};
use crate::support::hand::{Answer, Called, Hand, Text};

type Key = &'static str;
type Arrive<'a> = Box<dyn FnOnce(Replies) -> Answer + 'a>;

/// How to check an answer.
#[derive(Clone, Copy)]
enum Kind {
    Read(&'static [Key]),
    Write(usize),
    Preload,
}

/// A trip under way; exchanged once it has replies.
struct Away {
    trip: Trip,
    replies: Option<Replies>,
}

#[expect(clippy::large_enum_variant, reason = "a program has few actors")]
enum Doing<'a> {
    Nothing,
    Call {
        kind: Kind,
        value: Option<String>,
        away: Away,
        arrive: Arrive<'a>,
    },
    Fetch {
        key: Key,
        fetch: Fetch<'a, Key, Text>,
        stage: At,
        /// The computed value and its flight.
        made: Option<(String, usize)>,
    },
}

/// The state of a fetch.
enum At {
    Trip(Away),
    Computing,
    Waiting(Waiting),
}

pub(super) struct Actor<'a> {
    hand: &'a Hand,
    scope: Option<usize>,
    began: Tick,
    doing: Doing<'a>,
}

impl<'a> Actor<'a> {
    pub(super) fn new(hand: &'a Hand, scope: Option<usize>) -> Self {
        Self {
            hand,
            scope,
            began: 0,
            doing: Doing::Nothing,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.doing, Doing::Nothing)
    }

    pub(super) fn begin(&mut self, history: &mut History, call: &Call) {
        if self.is_busy() {
            return;
        }
        self.began = history.at();
        let hand = self.hand;
        let one = |key: &usize| -> &'static [Key] { &KEYS[*key..=*key] };
        match call {
            Call::Get(key) => self.read(history, one(key), hand.get(KEYS[*key])),
            Call::GetMany(keys) => self.read(history, keys, hand.get_many(keys)),
            Call::Set(key) => {
                let value = history.value();
                history.seal(hand, KEYS[*key], &value);
                let write = history.begin_write(Some(KEYS[*key]), self.scope);
                self.write(history, write, hand.set(KEYS[*key], &value), Some(value));
            }
            Call::Add(key) => {
                let value = history.value();
                history.seal(hand, KEYS[*key], &value);
                let write = history.begin_write(Some(KEYS[*key]), self.scope);
                self.write(history, write, hand.add(KEYS[*key], &value), Some(value));
            }
            Call::Touch(key) => {
                let write = history.begin_write(Some(KEYS[*key]), self.scope);
                self.write(history, write, hand.touch(one(key)), None);
            }
            Call::Delete(key) => {
                let write = history.begin_write(Some(KEYS[*key]), self.scope);
                self.write(history, write, hand.delete(one(key)), None);
            }
            Call::Clear => {
                let write = history.begin_write(None, self.scope);
                self.write(history, write, hand.clear(), None);
            }
            Call::Preload(keys) => {
                history.name(self.scope, keys);
                let called = hand.preload(keys);
                self.call(history, Kind::Preload, called, None);
            }
            Call::Fresh => {
                if let Some(scope) = self.scope {
                    hand.scope().refresh();
                    history.fresh(scope);
                }
            }
            Call::BeginSending => {
                if let Some(scope) = self.scope {
                    hand.scope().begin_sending();
                    history.begin_sending(scope);
                }
            }
            Call::Cached(key) => self.fetch(history, KEYS[*key], |fetch| fetch),
            Call::GetOrInsert(key) => self.fetch(history, KEYS[*key], Fetch::adding),
            Call::Refresh(key) => self.fetch(history, KEYS[*key], Fetch::refreshing),
        }
    }

    fn read(&mut self, history: &mut History, keys: &'static [Key], called: Called<'a>) {
        self.call(history, Kind::Read(keys), called, None);
    }

    fn write(
        &mut self,
        history: &mut History,
        write: usize,
        called: Called<'a>,
        value: Option<String>,
    ) {
        assert!(matches!(called, Called::Away(..)), "a write travels");
        self.call(history, Kind::Write(write), called, value);
    }

    fn call(
        &mut self,
        history: &mut History,
        kind: Kind,
        called: Called<'a>,
        value: Option<String>,
    ) {
        match called {
            Called::Done(answer) => self.answered(history, kind, &answer, None, false),
            Called::Away(trip, arrive) => {
                let away = Away {
                    trip,
                    replies: None,
                };
                self.doing = Doing::Call {
                    kind,
                    value,
                    away,
                    arrive,
                };
            }
        }
    }

    fn answered(
        &self,
        history: &mut History,
        kind: Kind,
        answer: &Answer,
        value: Option<&str>,
        travelled: bool,
    ) {
        match kind {
            Kind::Read(keys) => {
                history.check_plain(self.scope, keys, answer, self.began, travelled);
            }
            Kind::Write(write) => history.end_write(write, value),
            Kind::Preload => {}
        }
    }

    fn fetch(
        &mut self,
        history: &mut History,
        key: Key,
        how: impl FnOnce(Fetch<'a, Key, Text>) -> Fetch<'a, Key, Text>,
    ) {
        let fetch = how(self.hand.fetch(key, Caller::Greenlet));
        self.proceed(history, key, fetch, None);
    }

    /// Advances a fetch until it has to wait.
    fn proceed(
        &mut self,
        history: &mut History,
        key: Key,
        mut fetch: Fetch<'a, Key, Text>,
        made: Option<(String, usize)>,
    ) {
        let mut flight = None;
        let stage = match fetch.advance() {
            Stage::Ask(trip) | Stage::Post(trip) => {
                if let Some((value, flight)) = &made
                    && trip.ops().iter().any(|op| !matches!(op, Op::Get { .. }))
                {
                    let claimed = history.claimed(*flight);
                    assert!(
                        !history.is_written_since(key, claimed),
                        "{value} was computed before {key} was written, and is stored after it"
                    );
                }
                At::Trip(Away {
                    trip,
                    replies: None,
                })
            }
            Stage::Compute(_) => {
                flight = Some((String::new(), history.claim(key)));
                At::Computing
            }
            Stage::Wait(waiting) => {
                history.assert_may_join(key, self.scope);
                At::Waiting(waiting)
            }
            Stage::Done => {
                self.doing = Doing::Nothing;
                if let Some((value, flight)) = &made {
                    history.land(*flight, value);
                }
                match fetch.finish().pop() {
                    Some(Outcome::Found(value)) => {
                        history.check_piece(self.scope, key, Some(&value), self.began);
                    }
                    Some(Outcome::Made) => assert!(made.is_some()),
                    outcome => panic!("{outcome:?}"),
                }
                return;
            }
        };
        self.doing = Doing::Fetch {
            key,
            fetch,
            stage,
            made: made.or(flight),
        };
    }

    /// Advances the current call by a step.
    pub(super) fn go(&mut self, history: &mut History, give_up: bool) {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Call {
                kind,
                value,
                mut away,
                arrive,
            } => {
                let Some(replies) = away.replies.take() else {
                    let writes = matches!(kind, Kind::Write(_));
                    away.replies = Some(history.exchange(self.hand, &away.trip, |_| writes));
                    self.doing = Doing::Call {
                        kind,
                        value,
                        away,
                        arrive,
                    };
                    return;
                };
                let answer = arrive(replies);
                self.answered(history, kind, &answer, value.as_deref(), true);
            }
            Doing::Fetch {
                key,
                mut fetch,
                stage,
                made,
            } => {
                let mut made = made;
                let stage = match stage {
                    At::Trip(mut away) => match away.replies.take() {
                        Some(replies) => {
                            fetch.replied(replies);
                            None
                        }
                        None => {
                            let value = made.as_ref().filter(|(value, _)| !value.is_empty());
                            let stores =
                                |op: &Op| value.is_some() && op.name().ends_with(key.as_bytes());
                            away.replies = Some(history.exchange(self.hand, &away.trip, stores));
                            Some(At::Trip(away))
                        }
                    },
                    At::Computing => {
                        let value = history.value();
                        fetch.made(0, history.seal(self.hand, key, &value));
                        if let Some((made, _)) = &mut made {
                            *made = value;
                        }
                        None
                    }
                    At::Waiting(waiting) if waiting.is_over() || give_up => {
                        fetch.waited(waiting);
                        None
                    }
                    waiting => Some(waiting),
                };
                match stage {
                    Some(stage) => {
                        self.doing = Doing::Fetch {
                            key,
                            fetch,
                            stage,
                            made,
                        };
                    }
                    None => self.proceed(history, key, fetch, made),
                }
            }
        }
    }
}

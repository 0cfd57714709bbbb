//! Law 1 as a property test with concurrency. Random programs run in two scopes at once, with two
//! tasks in one of them, a thread without a scope, and another process. Departure, exchange and
//! arrival of each trip are separate steps, in any order. The history of the store tells which
//! answers the laws allow.

mod actor;
mod history;

use std::time::Duration;

use onetrip::internals::Work;
use onetrip::{Cache, Clock, Page};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::actor::Actor;
use self::history::History;
use crate::support::hand::{Hand, elsewhere};
use crate::support::turn;

/// The keys that programs use. Pages have learned the first three.
pub(super) const KEYS: [&str; 4] = ["a", "b", "c", "x"];

/// A call that an actor makes.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Get(usize),
    GetMany(&'static [&'static str]),
    Cached(usize),
    GetOrInsert(usize),
    Refresh(usize),
    Set(usize),
    Add(usize),
    Touch(usize),
    Delete(usize),
    Clear,
    Preload(&'static [&'static str]),
    Fresh,
    BeginSending,
}

/// One step of a program.
#[derive(Clone, Debug)]
enum Step {
    /// An idle actor begins a call.
    Begin(usize, Call),
    /// An actor continues: its trip is exchanged or arrives, or its computation ends.
    Go(usize),
    /// An actor gives up waiting for a flight.
    GiveUp(usize),
    /// Another process writes or deletes.
    Elsewhere(usize, bool),
    /// Milliseconds.
    Wait(u64),
}

fn many() -> impl Strategy<Value = &'static [&'static str]> {
    prop_oneof![
        Just(&["a", "b"][..]),
        Just(&["b", "x", "b"][..]),
        Just(&["c", "a", "b"][..]),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let key = || 0..KEYS.len();
    prop_oneof![
        8 => key().prop_map(Call::Get),
        4 => many().prop_map(Call::GetMany),
        4 => key().prop_map(Call::Cached),
        2 => key().prop_map(Call::GetOrInsert),
        1 => key().prop_map(Call::Refresh),
        2 => key().prop_map(Call::Set),
        1 => key().prop_map(Call::Add),
        1 => key().prop_map(Call::Touch),
        2 => key().prop_map(Call::Delete),
        1 => Just(Call::Clear),
        1 => many().prop_map(Call::Preload),
        1 => Just(Call::Fresh),
        1 => Just(Call::BeginSending),
    ]
}

fn program() -> impl Strategy<Value = (Vec<Work>, Vec<Step>)> {
    let actor = || 0..4_usize;
    let step = prop_oneof![
        6 => (actor(), call()).prop_map(|(actor, call)| Step::Begin(actor, call)),
        12 => actor().prop_map(Step::Go),
        1 => actor().prop_map(Step::GiveUp),
        3 => (0..KEYS.len(), any::<bool>()).prop_map(|(key, set)| Step::Elsewhere(key, set)),
        2 => prop_oneof![4 => 1_u64..120, 1 => 5_000_u64..11_000].prop_map(Step::Wait),
    ];
    let work = prop_oneof![
        4 => Just(Work::SafeRequest),
        1 => Just(Work::Request),
        1 => Just(Work::Other),
    ];
    (
        prop::collection::vec(work, 2),
        prop::collection::vec(step, 1..80),
    )
}

fn run(works: &[Work], steps: &[Step]) {
    let clock = Clock::manual();
    let url = "memory://model";
    let open = || {
        let cache = Cache::builder(url).prefix("model").clock(clock.clone());
        cache.build().unwrap()
    };
    let (cache, twin) = (open(), open());
    for key in KEYS {
        elsewhere(&cache, key, Some("0"));
    }
    for _ in 0..10 {
        let hand = Hand::visiting(&cache, Page::new("page"));
        for key in &KEYS[..3] {
            hand.finish(hand.get(key));
        }
        hand.close();
        clock.advance(Duration::from_secs(1));
    }

    let scoped = |work: &Work| {
        let hand = Hand::within(&cache, *work);
        cache.policy().begin_visit(hand.scope(), Page::new("page"));
        hand
    };
    let (first, second) = (scoped(&works[0]), scoped(&works[1]));
    // A second task of the first scope, and a thread with another cache on the same store.
    let hands = [first.clone(), second, first, Hand::alone(&twin)];
    let mut history = History::new(&cache, works);
    let mut actors: Vec<Actor<'_>> = hands
        .iter()
        .zip([Some(0), Some(1), Some(0), None])
        .map(|(hand, scope)| Actor::new(hand, scope))
        .collect();
    for step in steps {
        history.tick();
        match step {
            Step::Begin(actor, call) => actors[*actor].begin(&mut history, call),
            Step::Go(actor) => actors[*actor].go(&mut history, false),
            Step::GiveUp(actor) => actors[*actor].go(&mut history, true),
            Step::Elsewhere(key, set) => history.elsewhere(&cache, KEYS[*key], *set),
            Step::Wait(millis) => {
                let span = Duration::from_millis(*millis);
                clock.advance(span);
                history.wait(span);
            }
        }
    }
    // Let all calls end.
    while actors.iter().any(Actor::is_busy) {
        for actor in &mut actors {
            history.tick();
            actor.go(&mut history, false);
        }
    }
    history.assert_left(&Hand::alone(&cache));
}

#[test]
fn concurrent_scopes_give_only_allowed_answers() {
    let _turn = turn();
    let cases = std::env::var("MODEL_CASES").ok();
    let config = Config {
        cases: cases.map_or(1000, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&program(), |(works, steps)| {
        run(&works, &steps);
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}

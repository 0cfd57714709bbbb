//! Law 13: which callers join a flight, and which compute. Fetches are driven by hand, so each test
//! fixes the order of events.

use std::time::Duration;

use onetrip::internals::{Caller, Fetch, Stage, Work};
use onetrip::{Cache, Ttl};

use crate::support::hand::{Hand, Text};
use crate::support::turn;

fn open() -> Cache {
    Cache::builder("memory://")
        .prefix("joining")
        .build()
        .unwrap()
}

/// The next step of a fetch after its lookup.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Computes,
    Waits,
}

fn then(fetch: &mut Fetch<'_, &'static str, Text>) -> Then {
    match fetch.advance() {
        Stage::Compute(_) => Then::Computes,
        Stage::Wait(_) => Then::Waits,
        stage => panic!("{stage:?}"),
    }
}

/// Returns the next step of a fetch of `key` by `caller` while `owner` computes it.
fn beside(key: &'static str, owner: &Hand, caller: &Hand, between: impl FnOnce()) -> Then {
    let mut first = owner.looked(key, Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    between();
    then(&mut caller.looked(key, Caller::Greenlet))
}

#[test]
fn caller_waits_for_a_flight_and_gets_the_stored_value() {
    let _turn = turn();
    let cache = open();
    for (owner, caller) in [
        (Hand::alone(&cache), Hand::alone(&cache)),
        (
            Hand::within(&cache, Work::Other),
            Hand::within(&cache, Work::Other),
        ),
        (
            Hand::within(&cache, Work::Request),
            Hand::within(&cache, Work::SafeRequest),
        ),
    ] {
        let mut first = owner.looked("a", Caller::Greenlet);
        let mut second = caller.looked("a", Caller::Greenlet);
        assert_eq!(then(&mut first), Then::Computes);
        let Stage::Wait(waiting) = second.advance() else {
            panic!("it does not wait");
        };
        assert!(!waiting.is_over());
        owner.make(first, "a", "made");
        assert!(waiting.wait(Duration::ZERO));
        second.waited(waiting);
        assert_eq!(Hand::found(second).as_deref(), Some("made"));
        assert_eq!(owner.finish(owner.get("a")), [Some("made".to_owned())]);
        owner.finish(owner.delete(&["a"]));
    }
}

#[test]
fn scope_that_began_after_the_flight_computes() {
    let _turn = turn();
    let cache = open();
    let owner = Hand::alone(&cache);
    let mut first = owner.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let late = Hand::within(&cache, Work::SafeRequest);
    assert_eq!(
        then(&mut late.looked("a", Caller::Greenlet)),
        Then::Computes
    );
}

#[test]
fn scope_that_wrote_computes() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::within(&cache, Work::Other));
    caller.finish(caller.set("other", "written"));
    assert_eq!(beside("a", &owner, &caller, || ()), Then::Computes);
    let caller = Hand::within(&cache, Work::Other);
    let wrote = || drop(caller.finish(caller.add("other", "not written")));
    assert_eq!(beside("b", &owner, &caller, wrote), Then::Computes);
}

#[test]
fn post_computes() {
    let _turn = turn();
    let cache = open();
    let owner = Hand::alone(&cache);
    for (work, does) in [
        (Work::Request, Then::Computes),
        (Work::SafeRequest, Then::Waits),
        (Work::Other, Then::Waits),
    ] {
        let caller = Hand::within(&cache, work);
        assert_eq!(beside("a", &owner, &caller, || ()), does, "{work:?}");
    }
}

#[test]
fn written_key_is_computed_again_and_the_old_value_not_stored() {
    let _turn = turn();
    let url = "memory://joining-written";
    let open = |prefix: &str| Cache::builder(url).prefix(prefix).build().unwrap();
    let (cache, twin) = (open("joining"), open("joining"));
    type Write = for<'a> fn(&'a Hand) -> Vec<Option<String>>;
    let writes: [(&str, Write); 4] = [
        ("set", |hand| hand.finish(hand.set("a", "set"))),
        ("add", |hand| hand.finish(hand.add("a", "set"))),
        ("delete", |hand| hand.finish(hand.delete(&["a"]))),
        ("clear", |hand| hand.finish(hand.clear())),
    ];
    for (word, write) in writes {
        for writer in [&cache, &twin] {
            let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
            let writer = Hand::alone(writer);
            writer.finish(writer.delete(&["a"]));
            let mut first = owner.looked("a", Caller::Greenlet);
            let mut waits = caller.looked("a", Caller::Greenlet);
            let mut late = caller.looked("a", Caller::Greenlet);
            assert_eq!(then(&mut first), Then::Computes);
            let Stage::Wait(waiting) = waits.advance() else {
                panic!("it does not wait");
            };
            write(&writer);
            assert_eq!(then(&mut late), Then::Computes, "{word}");
            let before = caller.finish(caller.get("a"));
            owner.make(first, "a", "stale");
            assert_eq!(caller.finish(caller.get("a")), before, "{word}: put back");
            waits.waited(waiting);
            assert_eq!(then(&mut waits), Then::Computes, "{word}");
        }
    }
}

#[test]
fn clear_of_another_prefix_ends_no_flight() {
    let _turn = turn();
    let url = "memory://joining-prefixes";
    let open = |prefix: &str| Cache::builder(url).prefix(prefix).build().unwrap();
    let (cache, other) = (open("joining"), open("other"));
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    let clear = || drop(Hand::alone(&other).finish(Hand::alone(&other).clear()));
    assert_eq!(beside("a", &owner, &caller, clear), Then::Waits);
}

#[test]
fn value_written_after_the_flight_is_not_shared() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::within(&cache, Work::Other));
    let mut first = owner.looked("a", Caller::Greenlet);
    let mut second = caller.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let Stage::Wait(waiting) = second.advance() else {
        panic!("it does not wait");
    };
    owner.make(first, "a", "made");
    owner.finish(owner.delete(&["a"]));
    second.waited(waiting);
    assert_eq!(then(&mut second), Then::Computes);
}

#[test]
fn thread_never_waits_for_a_task() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    for (owns, calls, does) in [
        (Caller::Task, Caller::Task, Then::Waits),
        (Caller::Task, Caller::Greenlet, Then::Computes),
        (Caller::Task, Caller::Thread, Then::Computes),
        (Caller::Greenlet, Caller::Task, Then::Waits),
        (Caller::Greenlet, Caller::Greenlet, Then::Waits),
        (Caller::Greenlet, Caller::Thread, Then::Waits),
        (Caller::Thread, Caller::Task, Then::Waits),
        (Caller::Thread, Caller::Greenlet, Then::Waits),
        (Caller::Thread, Caller::Thread, Then::Waits),
    ] {
        let mut first = owner.looked("a", owns);
        assert_eq!(then(&mut first), Then::Computes);
        let second = std::thread::scope(|threads| {
            let call = || then(&mut caller.looked("a", calls));
            threads.spawn(call).join().unwrap()
        });
        assert_eq!(second, does, "{calls:?} for {owns:?}");
    }
}

/// The computation on that thread is suspended, and continues only when the thread does.
#[test]
fn thread_never_waits_for_its_own_computation() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    for owns in [Caller::Thread, Caller::Greenlet, Caller::Task] {
        let mut first = owner.looked("a", owns);
        assert_eq!(then(&mut first), Then::Computes);
        let mut second = caller.looked("a", Caller::Thread);
        assert_eq!(then(&mut second), Then::Computes, "{owns:?}");
    }
}

#[test]
fn recursive_fetch_computes() {
    let _turn = turn();
    let cache = open();
    let owner = Hand::alone(&cache);
    let mut outer = owner.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut outer), Then::Computes);
    let within = Hand::computing(&owner, &outer);
    assert_eq!(
        then(&mut within.looked("a", Caller::Greenlet)),
        Then::Computes
    );
    // Also from a piece within the piece.
    let mut inner = within.looked("b", Caller::Greenlet);
    assert_eq!(then(&mut inner), Then::Computes);
    let innermost = Hand::computing(&within, &inner);
    for key in ["a", "b"] {
        let mut again = innermost.looked(key, Caller::Greenlet);
        assert_eq!(then(&mut again), Then::Computes, "{key}");
    }
}

#[test]
fn caller_that_would_close_a_cycle_computes() {
    let _turn = turn();
    let cache = open();
    let hands = [(); 3].map(|()| Hand::alone(&cache));
    let keys = ["a", "b", "c"];
    let mut outer: Vec<_> = hands
        .iter()
        .zip(keys)
        .map(|(hand, key)| hand.looked(key, Caller::Greenlet))
        .collect();
    for fetch in &mut outer {
        assert_eq!(then(fetch), Then::Computes);
    }
    let within: Vec<Hand> = hands
        .iter()
        .zip(&outer)
        .map(|(hand, fetch)| Hand::computing(hand, fetch))
        .collect();
    let mut next: Vec<_> = within
        .iter()
        .zip(["b", "c", "a"])
        .map(|(hand, key)| hand.looked(key, Caller::Greenlet))
        .collect();
    let (Stage::Wait(a_for_b), Stage::Wait(b_for_c)) = (next[0].advance(), next[1].advance())
    else {
        panic!("they do not wait");
    };
    assert_eq!(then(&mut next[2]), Then::Computes, "c for a for b for c");
    // Once one of them has given up, there is no cycle.
    next[0].waited(a_for_b);
    let mut again = within[2].looked("a", Caller::Greenlet);
    let Stage::Wait(_) = again.advance() else {
        panic!("it does not wait");
    };
    next[1].waited(b_for_c);
}

#[test]
fn isolated_caller_neither_joins_nor_is_joined() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    for alone in [[true, false], [false, true]] {
        let mut first = owner.looked("a", Caller::Greenlet).alone(alone[0]);
        assert_eq!(then(&mut first), Then::Computes);
        let mut second = caller.looked("a", Caller::Greenlet).alone(alone[1]);
        assert_eq!(then(&mut second), Then::Computes);
    }
}

#[test]
fn refresh_joins_nobody_and_may_be_joined() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    let mut first = owner.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let mut refresh = caller.fetch("a", Caller::Greenlet).refreshing();
    assert_eq!(then(&mut refresh), Then::Computes);
    drop(first);
    let mut third = owner.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut third), Then::Waits);
}

#[test]
fn waiters_compute_when_the_owner_fails() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    // The owner may fail, be dropped, or store nothing.
    for ending in 0..3 {
        let mut first = owner.looked("a", Caller::Greenlet);
        let mut second = caller.looked("a", Caller::Greenlet);
        assert_eq!(then(&mut first), Then::Computes);
        let Stage::Wait(waiting) = second.advance() else {
            panic!("it does not wait");
        };
        match ending {
            0 => {
                first.failed(0);
                assert!(matches!(first.advance(), Stage::Done));
            }
            1 => drop(first),
            _ => {
                first.made(0, owner.seal("a", "made"));
                assert!(matches!(first.advance(), Stage::Ask(_)));
                drop(first);
            }
        }
        assert!(
            waiting.wait(Duration::ZERO),
            "{ending}: the flight has ended"
        );
        second.waited(waiting);
        assert_eq!(then(&mut second), Then::Computes, "{ending}");
    }
}

#[test]
fn waiter_waits_for_one_flight_only() {
    let _turn = turn();
    let cache = open();
    let hands = [(); 3].map(|()| Hand::alone(&cache));
    let [mut first, mut second, mut third] =
        [0, 1, 2].map(|hand: usize| hands[hand].looked("a", Caller::Greenlet));
    assert_eq!(then(&mut first), Then::Computes);
    let (Stage::Wait(one), Stage::Wait(other)) = (second.advance(), third.advance()) else {
        panic!("they do not wait");
    };
    drop(first);
    second.waited(one);
    assert_eq!(then(&mut second), Then::Computes);
    third.waited(other);
    assert_eq!(
        then(&mut third),
        Then::Computes,
        "it must not wait for a second flight"
    );
}

#[test]
fn waiter_waits_twice_the_known_cost_or_a_second() {
    let _turn = turn();
    // A key of unknown cost.
    let cache = Cache::builder("memory://")
        .prefix("joining-cost")
        .build()
        .unwrap();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    let patience = || {
        let mut first = owner.looked("unknown-cost", Caller::Greenlet);
        let mut second = caller.looked("unknown-cost", Caller::Greenlet);
        assert_eq!(then(&mut first), Then::Computes);
        let Stage::Wait(waiting) = second.advance() else {
            panic!("it does not wait");
        };
        let patience = waiting.patience();
        std::thread::sleep(Duration::from_millis(40));
        owner.make(first, "unknown-cost", "made");
        owner.finish(owner.delete(&["unknown-cost"]));
        patience
    };
    let unknown = patience();
    assert!(unknown <= Duration::from_secs(1));
    assert!(unknown > Duration::from_millis(200), "{unknown:?}");
    let known = patience();
    assert!(known > Duration::from_millis(20), "{known:?}");
    assert!(known < unknown, "{known:?}");
}

/// Names share slots in which costs are remembered.
#[test]
fn costs_of_different_names_are_not_mixed_up() {
    let _turn = turn();
    let cache = Cache::builder("memory://").prefix("joining-costs");
    let cache = cache.build().unwrap();
    let blocking = cache.blocking();
    for number in 0..20_000 {
        let key = format!("quick:{number}");
        blocking
            .get_or_insert_with(key, Ttl::Default, || 1)
            .unwrap();
    }
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    let mut first = owner.looked("slow", Caller::Greenlet);
    let mut second = caller.looked("slow", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let Stage::Wait(waiting) = second.advance() else {
        panic!("it does not wait");
    };
    assert!(waiting.patience() > Duration::from_millis(200));
}

/// The result that a waiter got ends with a later write, as if it had computed it.
#[test]
fn shared_result_ends_with_a_write() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::within(&cache, Work::Other));
    let mut first = owner.looked("a", Caller::Greenlet);
    let mut second = caller.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let Stage::Wait(waiting) = second.advance() else {
        panic!("it does not wait");
    };
    owner.make(first, "a", "made");
    second.waited(waiting);
    assert_eq!(Hand::found(second).as_deref(), Some("made"));
    let mut held = caller.fetch("a", Caller::Greenlet);
    assert!(matches!(held.advance(), Stage::Done), "the scope holds it");
    owner.finish(owner.set("a", "new"));
    let mut again = caller.fetch("a", Caller::Greenlet);
    assert!(matches!(again.advance(), Stage::Ask(_)));
}

#[cfg(unix)]
#[test]
fn forked_child_waits_for_no_flight_of_its_parent() {
    let _turn = turn();
    let cache = open();
    let (owner, caller) = (Hand::alone(&cache), Hand::alone(&cache));
    let mut first = owner.looked("a", Caller::Greenlet);
    assert_eq!(then(&mut first), Then::Computes);
    let child = fork();
    if child == 0 {
        alarm(20);
        let computes = then(&mut caller.looked("a", Caller::Greenlet)) == Then::Computes;
        leave(if computes { 7 } else { 1 });
    }
    assert_eq!(exit_code(child), Some(7));
    assert_eq!(then(&mut caller.looked("a", Caller::Greenlet)), Then::Waits);
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "no safe function forks")]
fn fork() -> libc::pid_t {
    unsafe { libc::fork() }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a plain call of the system")]
fn alarm(seconds: u32) {
    unsafe { libc::alarm(seconds) };
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a plain call of the system")]
fn leave(code: i32) -> ! {
    unsafe { libc::_exit(code) }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a plain call, with memory of our own")]
fn exit_code(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

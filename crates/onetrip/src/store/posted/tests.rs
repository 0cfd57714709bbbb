//! The table of what is posted, without a socket: a connection is a number.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::trip::Reply;

#[derive(Debug, PartialEq)]
struct Wire(u8);

impl Park for Wire {
    fn unwatch(&mut self) {}

    fn abort(&self) {}
}

#[derive(Default)]
struct Told(Mutex<Vec<usize>>);

impl Late for Told {
    fn failed(&self, failed: usize, _error: &Error) {
        self.0.lock().unwrap().push(failed);
    }
}

struct Bed {
    posted: Posted<Wire>,
    home: Arc<Pool<Wire>>,
    told: Arc<Told>,
}

impl Bed {
    fn new() -> Self {
        Self {
            posted: Posted::new(),
            home: Arc::new(Pool::new()),
            told: Arc::default(),
        }
    }

    fn register(&self, scope: ScopeId, names: &[&'static str]) -> Ticket<Wire> {
        let ops = names.iter().map(|name| Op::Set {
            name: (*name).into(),
            entry: Bytes::new(),
            ttl: None,
        });
        let late: Arc<dyn Late> = self.told.clone();
        let trip = ops.collect::<Trip>().within(Some(scope)).posted(late);
        self.posted.register(&trip).unwrap()
    }

    /// Posts `names` on a connection with this number.
    fn post(&self, number: u8, scope: ScopeId, names: &[&'static str]) {
        let mut held = Held::new(Wire(number), Arc::clone(&self.home));
        held.add(Some(scope), self.register(scope, names));
        held.keep();
    }

    fn told(&self) -> Vec<usize> {
        self.told.0.lock().unwrap().clone()
    }

    fn idle(&self) -> Option<Wire> {
        self.home.take(|_| true)
    }
}

fn reads(names: &[&'static str]) -> Vec<Op> {
    let names = names.iter();
    names
        .map(|name| Op::Get {
            name: (*name).into(),
        })
        .collect()
}

fn by(scope: Option<ScopeId>, ops: &[Op]) -> Call<'_> {
    Call {
        ops,
        scope,
        ticket: None,
        road: None,
        rides: true,
    }
}

/// What a trip does next, in a word, and on which connection.
fn step(next: Next<Wire>) -> (&'static str, Option<u8>, Option<Held<Wire>>) {
    let number = |held: &mut Held<Wire>| held.connection().map(|wire| wire.0);
    match next {
        Next::Go(None) => ("go", None, None),
        Next::Go(Some(mut held)) => ("go", number(&mut held), Some(held)),
        Next::Read(mut held) => ("read", number(&mut held), Some(held)),
        Next::Wait => ("wait", None, None),
    }
}

macro_rules! assert_step {
    ($next:expr, $word:literal, $number:expr) => {{
        let (word, number, held) = step($next);
        assert_eq!((word, number), ($word, $number));
        held
    }};
}

#[test]
fn nothing_is_in_the_way_of_anybody_where_nothing_is_posted() {
    let bed = Bed::new();
    assert!(bed.posted.is_empty());
    assert_step!(bed.posted.next(&by(None, &reads(&["a"]))), "go", None);
}

#[test]
fn a_scope_goes_on_where_it_has_posted_and_others_do_not() {
    let bed = Bed::new();
    let (scope, other) = (ScopeId::next(), ScopeId::next());
    bed.post(1, scope, &["a", "b"]);
    assert!(bed.posted.has(Some(scope)) && bed.posted.has(None));
    assert!(!bed.posted.has(Some(other)));
    assert_step!(
        bed.posted.next(&by(Some(other), &reads(&["c"]))),
        "go",
        None
    );
    assert_step!(bed.posted.next(&by(None, &reads(&["c"]))), "go", None);
    let held = assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["c"]))),
        "go",
        Some(1)
    );
    // While it is in use, its scope's other threads take another one, but for what was posted.
    assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["c"]))),
        "go",
        None
    );
    assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["b"]))),
        "wait",
        None
    );
    let mut held = held.unwrap();
    held.told(&[Reply::Done, Reply::Done]);
    held.keep();
    assert!(bed.posted.is_empty());
    assert_eq!((bed.idle(), bed.told()), (Some(Wire(1)), vec![]));
}

#[test]
fn who_names_what_another_scope_posted_reads_its_replies_first() {
    let bed = Bed::new();
    let (scope, other) = (ScopeId::next(), ScopeId::next());
    bed.post(1, scope, &["a"]);
    bed.post(2, other, &["b"]);
    let clear = [Op::Clear {
        prefix: Bytes::new(),
    }];
    let held = assert_step!(bed.posted.next(&by(None, &reads(&["b"]))), "read", Some(2));
    // Others wait for the same replies.
    assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["a", "b"]))),
        "wait",
        None
    );
    // A clear reads what it can before it waits.
    let first = assert_step!(bed.posted.next(&by(None, &clear)), "read", Some(1));
    drop(first);
    let error = Error::new(ErrorKind::Refused, "full");
    let mut held = held.unwrap();
    held.told(&[Reply::Failed(error)]);
    held.keep();
    assert_eq!(bed.told(), [1]);
    assert_step!(bed.posted.next(&by(Some(scope), &clear)), "go", Some(1));
}

#[test]
fn a_scope_with_two_connections_goes_on_where_the_name_was_posted() {
    let bed = Bed::new();
    let scope = ScopeId::next();
    bed.post(1, scope, &["a"]);
    bed.post(2, scope, &["b"]);
    let held = assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["b"]))),
        "go",
        Some(2)
    );
    held.unwrap().keep();
    // Of both, one is read before.
    let both = reads(&["a", "b"]);
    let held = assert_step!(bed.posted.next(&by(Some(scope), &both)), "read", Some(2));
    held.unwrap().lost(&given_up());
    assert_step!(bed.posted.next(&by(Some(scope), &both)), "go", Some(1));
    assert_eq!(bed.told(), [1, 1]);
}

#[test]
fn a_post_waits_for_those_before_it_and_for_no_later_ones() {
    let bed = Bed::new();
    let (first, second) = (
        bed.register(ScopeId::next(), &["a"]),
        bed.register(ScopeId::next(), &["a"]),
    );
    let ops = reads(&["a"]);
    let call = |ticket: &Ticket<Wire>| Call {
        ticket: Some(ticket.id()),
        ..by(None, &ops)
    };
    assert_step!(bed.posted.next(&call(&first)), "go", None);
    assert_step!(bed.posted.next(&call(&second)), "wait", None);
    drop(first);
    assert_step!(bed.posted.next(&call(&second)), "go", None);
    assert_step!(bed.posted.next(&by(None, &ops)), "wait", None);
    drop(second);
    assert!(bed.posted.is_empty());
    // What was never sent is nobody's failure but the caller's.
    assert_eq!(bed.told(), [0; 0]);
}

#[cfg(feature = "redis")]
#[test]
fn on_a_shared_connection_others_follow_at_once() {
    let bed = Bed::new();
    let ticket = bed.register(ScopeId::next(), &["a"]);
    let ops = reads(&["a"]);
    let on = |road| Call {
        road: Some(road),
        rides: false,
        ..by(None, &ops)
    };
    assert_step!(bed.posted.next(&on(7)), "wait", None);
    bed.posted.sent(ticket.id(), 7);
    assert_step!(bed.posted.next(&on(7)), "go", None);
    assert_step!(bed.posted.next(&on(8)), "wait", None);
    assert_step!(bed.posted.next(&by(None, &ops)), "wait", None);
}

#[test]
fn what_is_dropped_in_use_has_failed_and_what_is_dropped_in_reading_is_read_by_the_next() {
    let bed = Bed::new();
    let scope = ScopeId::next();
    bed.post(1, scope, &["a", "b"]);
    drop(assert_step!(bed.posted.rest(Some(scope)), "read", Some(1)));
    assert_eq!(bed.told(), [0; 0]);
    drop(assert_step!(
        bed.posted.next(&by(Some(scope), &[])),
        "go",
        Some(1)
    ));
    assert_eq!(bed.told(), [2]);
    assert!(bed.posted.is_empty() && bed.idle().is_none());
}

#[test]
fn the_rest_of_a_scope_is_its_own_alone() {
    let bed = Bed::new();
    let (scope, other) = (ScopeId::next(), ScopeId::next());
    bed.post(1, scope, &["a"]);
    bed.post(2, other, &["b"]);
    let held = assert_step!(bed.posted.rest(Some(other)), "read", Some(2));
    assert_step!(bed.posted.rest(Some(other)), "wait", None);
    held.unwrap().lost(&given_up());
    assert_step!(bed.posted.rest(Some(other)), "go", None);
    drop(assert_step!(bed.posted.rest(None), "read", Some(1)));
}

#[test]
fn who_has_forgotten_its_connection_loses_it_to_others() {
    let bed = Bed::new();
    bed.post(1, ScopeId::next(), &["a"]);
    let now = Instant::now();
    assert!(bed.posted.forgotten(now - Duration::from_secs(1)).is_none());
    let held = bed.posted.forgotten(now + Duration::from_secs(1));
    assert!(held.is_some());
}

#[test]
fn the_end_of_the_table_is_told() {
    let bed = Bed::new();
    let told = Arc::clone(&bed.told);
    bed.post(1, ScopeId::next(), &["a", "a", "b"]);
    drop(bed);
    assert_eq!(*told.0.lock().unwrap(), [3]);
}

#[tokio::test]
async fn whoever_waits_is_woken() {
    let bed = Bed::new();
    let scope = ScopeId::next();
    let ticket = bed.register(scope, &["a"]);
    let changed = bed.posted.changed();
    let changed = changed.notified();
    drop(ticket);
    changed.await;
    let changed = bed.posted.changed();
    let changed = changed.notified();
    bed.post(1, scope, &["a"]);
    changed.await;
}

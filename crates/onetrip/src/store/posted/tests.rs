//! Tests of the table of posts. A connection is a number, not a socket.

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

    /// Posts `names` on connection `number`.
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
        shared_id: None,
        may_use_parked: true,
    }
}

/// The next step of a trip, as a word, and its connection.
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
fn without_posts_trips_are_sent_at_once() {
    let bed = Bed::new();
    assert!(bed.posted.is_empty());
    assert_step!(bed.posted.next(&by(None, &reads(&["a"]))), "go", None);
}

#[test]
fn only_the_posting_scope_uses_a_parked_connection() {
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
    // While it is in use, other threads of the scope use another connection, or wait if they name
    // a posted name.
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
fn trips_read_the_replies_to_other_scopes_posts_of_their_names_first() {
    let bed = Bed::new();
    let (scope, other) = (ScopeId::next(), ScopeId::next());
    bed.post(1, scope, &["a"]);
    bed.post(2, other, &["b"]);
    let clear = [Op::Clear {
        prefix: Bytes::new(),
    }];
    let held = assert_step!(bed.posted.next(&by(None, &reads(&["b"]))), "read", Some(2));
    // Other trips wait for the same replies.
    assert_step!(
        bed.posted.next(&by(Some(scope), &reads(&["a", "b"]))),
        "wait",
        None
    );
    // A clear reads the replies it can before it waits.
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
fn a_scope_with_two_connections_uses_the_one_where_the_name_was_posted() {
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
    // For names on both, the replies on one are read first.
    let both = reads(&["a", "b"]);
    let held = assert_step!(bed.posted.next(&by(Some(scope), &both)), "read", Some(2));
    held.unwrap().lost(&given_up());
    assert_step!(bed.posted.next(&by(Some(scope), &both)), "go", Some(1));
    assert_eq!(bed.told(), [1, 1]);
}

#[test]
fn a_post_waits_for_earlier_posts_and_not_for_later_ones() {
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
    // Posts that were never sent are not reported as lost.
    assert_eq!(bed.told(), [0; 0]);
}

#[cfg(feature = "redis")]
#[test]
fn trips_on_the_same_shared_connection_follow_a_post_at_once() {
    let bed = Bed::new();
    let ticket = bed.register(ScopeId::next(), &["a"]);
    let ops = reads(&["a"]);
    let on = |shared_id| Call {
        shared_id: Some(shared_id),
        may_use_parked: false,
        ..by(None, &ops)
    };
    assert_step!(bed.posted.next(&on(7)), "wait", None);
    bed.posted.sent(ticket.id(), 7);
    assert_step!(bed.posted.next(&on(7)), "go", None);
    assert_step!(bed.posted.next(&on(8)), "wait", None);
    assert_step!(bed.posted.next(&by(None, &ops)), "wait", None);
}

#[test]
fn dropping_a_connection_fails_its_posts_unless_it_was_only_read_from() {
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
fn draining_a_scope_reads_only_its_own_posts() {
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
fn connections_parked_for_long_are_taken_back() {
    let bed = Bed::new();
    bed.post(1, ScopeId::next(), &["a"]);
    let now = Instant::now();
    assert!(bed.posted.forgotten(now - Duration::from_secs(1)).is_none());
    let held = bed.posted.forgotten(now + Duration::from_secs(1));
    assert!(held.is_some());
}

#[test]
fn dropping_the_table_reports_its_posts_as_failed() {
    let bed = Bed::new();
    let told = Arc::clone(&bed.told);
    bed.post(1, ScopeId::next(), &["a", "a", "b"]);
    drop(bed);
    assert_eq!(*told.0.lock().unwrap(), [3]);
}

#[tokio::test]
async fn waiters_are_woken_by_ended_and_parked_posts() {
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

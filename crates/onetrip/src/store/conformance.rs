//! Checks that a store keeps the laws of [`Store`]. For the tests of its author.
//!
//! ```
//! use std::sync::Arc;
//! use onetrip::store::{Exchange, Store, conformance};
//! use onetrip::trip::{Reply, Trip};
//!
//! #[derive(Debug)]
//! struct Nothing;
//!
//! impl Store for Nothing {
//!     fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
//!         Exchange::Ready(trip.ops().iter().map(|_| Reply::Done).collect())
//!     }
//!
//!     fn label(&self) -> Arc<str> {
//!         "nothing://".into()
//!     }
//! }
//!
//! let broken = conformance::run(|| Arc::new(Nothing)).unwrap_err();
//! assert!(broken.to_string().contains("reads what was set"));
//! ```

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Exchange, Store};
use crate::error::ErrorKind;
use crate::trip::{Op, Replies, Reply, Stored, Trip};

/// Time to live of entries that have to expire. Some stores count in seconds.
const SHORT: Duration = Duration::from_secs(1);

/// Longest that an entry of [`SHORT`] may live, on a store that counts in seconds.
const PATIENCE: Duration = Duration::from_secs(5);

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Laws that a store breaks.
#[derive(Clone)]
pub struct Broken(Vec<(&'static str, String)>);

impl Broken {
    /// Returns the broken laws, each with what was observed.
    pub fn laws(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(law, seen)| (*law, seen.as_str()))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store breaks {} laws:", self.0.len())?;
        self.laws()
            .try_for_each(|(law, seen)| write!(f, "\n- {law}: {seen}"))
    }
}

/// Reads like [`Display`](fmt::Display), so that `unwrap` shows it well.
impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Broken {}

type Outcome = Result<(), String>;

/// Checks every law on stores that `open` makes, and takes some seconds.
///
/// The stores may share their entries, as those of one server do: names begin with a prefix that
/// no other run uses. Call it on a plain thread, not in a task of a Tokio runtime.
///
/// # Errors
///
/// Names the laws that the store breaks.
///
/// # Panics
///
/// If it is called in a task of a Tokio runtime, or no runtime can be made.
pub fn run<S: Store + ?Sized + 'static>(open: impl Fn() -> Arc<S>) -> Result<(), Broken> {
    #[expect(
        clippy::expect_used,
        reason = "a test can do nothing without a runtime"
    )]
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut broken = Vec::new();
    macro_rules! check {
        ($($name:literal: $law:ident;)+) => {$(
            let store = open();
            let bench = Bench::new(&*store);
            if let Err(seen) = runtime.block_on($law(&bench)) {
                broken.push(($name, seen));
            }
        )+};
    }
    check! {
        "reads what was set": reads_what_was_set;
        "carries out a trip in its order": carries_out_a_trip_in_its_order;
        "takes any name": takes_any_name;
        "takes any entry": takes_any_entry;
        "adds only where nothing is": adds_only_where_nothing_is;
        "counts exactly": counts_exactly;
        "deletes and touches what is there": deletes_and_touches;
        "lets entries expire": lets_entries_expire;
        "clears a prefix or refuses to": clears_a_prefix;
        "forgets a dropped exchange": forgets_a_dropped_exchange;
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Broken(broken)),
    }
}

/// A store, and a part of it that is this law's alone.
struct Bench<'a, S: ?Sized> {
    store: &'a S,
    prefix: String,
}

impl<'a, S: Store + ?Sized> Bench<'a, S> {
    fn new(store: &'a S) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let prefix = format!(
            "conformance-{}-{:x}-{}:",
            std::process::id(),
            now.unwrap_or_default().as_nanos(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self { store, prefix }
    }

    fn name(&self, key: impl AsRef<[u8]>) -> Bytes {
        [self.prefix.as_bytes(), key.as_ref()].concat().into()
    }

    fn get(&self, key: impl AsRef<[u8]>) -> Op {
        let name = self.name(key);
        Op::Get { name }
    }

    fn set(&self, key: impl AsRef<[u8]>, entry: impl AsRef<[u8]>, ttl: Option<Duration>) -> Op {
        let (name, entry) = (self.name(key), Bytes::copy_from_slice(entry.as_ref()));
        Op::Set { name, entry, ttl }
    }

    fn add(&self, key: impl AsRef<[u8]>, entry: impl AsRef<[u8]>, ttl: Option<Duration>) -> Op {
        let (name, entry) = (self.name(key), Bytes::copy_from_slice(entry.as_ref()));
        Op::Add { name, entry, ttl }
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> Op {
        let name = self.name(key);
        Op::Delete { name }
    }

    fn incr(&self, key: impl AsRef<[u8]>, delta: i64) -> Op {
        let name = self.name(key);
        Op::Incr { name, delta }
    }

    fn touch(&self, key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Op {
        let name = self.name(key);
        Op::Touch { name, ttl }
    }

    /// Makes a trip. Returns its replies.
    async fn ask(&self, ops: impl IntoIterator<Item = Op>) -> Result<Replies, String> {
        let trip: Trip = ops.into_iter().collect();
        let replies = match self.store.exchange(&trip) {
            Exchange::Ready(replies) => replies,
            Exchange::Refused(error) => return Err(format!("the store refused a trip: {error}")),
            Exchange::Pending(_) if self.store.is_local() => {
                return Err("it says it is local, and has its caller wait".into());
            }
            Exchange::Pending(answer) => answer
                .await
                .map_err(|error| format!("a trip failed: {error}"))?,
        };
        if replies.len() != trip.len() {
            let (replies, ops) = (replies.len(), trip.len());
            return Err(format!("{ops} operations have {replies} replies"));
        }
        Ok(replies)
    }

    /// Makes a trip and compares its replies.
    async fn expect(&self, calls: impl IntoIterator<Item = (Op, Reply)>) -> Outcome {
        let (ops, expected): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let replies = self.ask(ops.iter().cloned()).await?;
        for ((op, expected), reply) in ops.iter().zip(&expected).zip(&replies) {
            if !is_same(expected, reply) {
                let name = crate::key::display(op.name());
                return Err(format!(
                    "{} of {name:?} is answered {}, not {}",
                    op.word(),
                    shown(reply),
                    shown(expected)
                ));
            }
        }
        Ok(())
    }
}

fn found(entry: impl AsRef<[u8]>) -> Reply {
    let bytes = Bytes::copy_from_slice(entry.as_ref());
    Reply::Entry(Some(Stored::new(bytes)))
}

fn is_same(one: &Reply, other: &Reply) -> bool {
    match (one, other) {
        // Some stores say how long an entry has left to live.
        (Reply::Entry(one), Reply::Entry(other)) => {
            let bytes =
                |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.bytes.clone());
            bytes(one) == bytes(other)
        }
        (Reply::Done, Reply::Done) => true,
        (Reply::Flag(one), Reply::Flag(other)) => one == other,
        (Reply::Number(one), Reply::Number(other)) => one == other,
        (Reply::Count(one), Reply::Count(other)) => one == other,
        (Reply::Failed(one), Reply::Failed(other)) => one.kind() == other.kind(),
        _ => false,
    }
}

fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Entry(Some(stored)) if stored.bytes.len() > 40 => {
            format!("{} bytes", stored.bytes.len())
        }
        reply => format!("{reply:?}"),
    }
}

fn failed(kind: ErrorKind) -> Reply {
    Reply::Failed(crate::Error::new(kind, format!("{kind:?}")))
}

async fn reads_what_was_set<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    bench.expect([(bench.get("a"), Reply::Entry(None))]).await?;
    let set = bench.set("a", "old", None);
    bench.expect([(set, Reply::Done)]).await?;
    bench.expect([(bench.get("a"), found("old"))]).await?;
    let set = bench.set("a", "new", Some(HOUR));
    bench.expect([(set, Reply::Done)]).await?;
    bench.expect([(bench.get("a"), found("new"))]).await?;
    bench.expect([(bench.get("b"), Reply::Entry(None))]).await
}

async fn carries_out_a_trip_in_its_order<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let trip = [
        (bench.get("a"), Reply::Entry(None)),
        (bench.set("a", "1", None), Reply::Done),
        (bench.get("a"), found("1")),
        (bench.incr("a", 4), Reply::Number(Some(5))),
        (bench.set("b", "beta", None), Reply::Done),
        (bench.get("a"), found("5")),
        (bench.delete("a"), Reply::Flag(true)),
        (bench.get("b"), found("beta")),
        (bench.get("a"), Reply::Entry(None)),
        (bench.add("a", "again", None), Reply::Flag(true)),
        (bench.set("b", "gamma", None), Reply::Done),
        (bench.get("b"), found("gamma")),
        (bench.get("a"), found("again")),
        (bench.get("a"), found("again")),
    ];
    bench.expect(trip).await?;
    let sets = (0..100).map(|nth| {
        let nth = nth.to_string();
        (bench.set(&nth, &nth, None), Reply::Done)
    });
    bench.expect(sets).await?;
    let gets = (0..100).rev().map(|nth| {
        let nth = nth.to_string();
        (bench.get(&nth), found(&nth))
    });
    bench.expect(gets).await
}

async fn takes_any_name<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let mut names: Vec<Vec<u8>> = ["", " ", "a b", "a\r\nb", "A", "a", "\0", "ä", "a*", "a%20b"]
        .map(|name| name.as_bytes().to_vec())
        .into();
    names.push((0..=255).collect());
    names.push(vec![b'x'; 2000]);
    names.push([vec![b'x'; 2000], vec![b'y']].concat());
    let sets = names.iter().zip(0..).map(|(name, nth)| {
        let entry = format!("entry {nth}");
        (bench.set(name, entry, None), Reply::Done)
    });
    bench.expect(sets).await?;
    let gets = names.iter().zip(0..).map(|(name, nth)| {
        let entry = format!("entry {nth}");
        (bench.get(name), found(entry))
    });
    bench.expect(gets).await
}

async fn takes_any_entry<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let large: Vec<u8> = (0..512 * 1024_u32).map(|at| at.to_le_bytes()[1]).collect();
    let entries = [
        Vec::new(),
        b"None".to_vec(),
        b"\r\nEND\r\n".to_vec(),
        vec![0; 10],
        (0..=255).collect(),
        large,
    ];
    for (entry, key) in entries.iter().zip(["a", "b", "c", "d", "e", "f"]) {
        let set = (bench.set(key, entry, None), Reply::Done);
        bench.expect([set, (bench.get(key), found(entry))]).await?;
    }
    // An empty entry is there.
    let add = bench.add("a", "x", None);
    bench.expect([(add, Reply::Flag(false))]).await
}

async fn adds_only_where_nothing_is<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let (mine, yours) = (bench.add("a", "mine", None), bench.add("a", "yours", None));
    bench.expect([(mine, Reply::Flag(true))]).await?;
    bench.expect([(yours, Reply::Flag(false))]).await?;
    bench.expect([(bench.get("a"), found("mine"))]).await
}

async fn counts_exactly<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let absent = (bench.incr("absent", 1), Reply::Number(None));
    let still = (bench.get("absent"), Reply::Entry(None));
    bench.expect([absent, still]).await?;
    let top = (1_i64 << 53) + 1;
    let calls = [
        (bench.set("n", "40", None), Reply::Done),
        (bench.incr("n", 2), Reply::Number(Some(42))),
        (bench.incr("n", -50), Reply::Number(Some(-8))),
        (bench.get("n"), found("-8")),
        (bench.incr("n", top + 8), Reply::Number(Some(top))),
        (bench.set("n", "9223372036854775807", None), Reply::Done),
    ];
    bench.expect(calls).await?;
    let beyond = (bench.incr("n", 1), failed(ErrorKind::NotANumber));
    bench.expect([beyond]).await?;
    let word = (bench.set("word", "12 apples", None), Reply::Done);
    bench.expect([word]).await?;
    let add = (bench.incr("word", 1), failed(ErrorKind::NotANumber));
    bench.expect([add]).await?;
    bench
        .expect([(bench.get("word"), found("12 apples"))])
        .await
}

async fn deletes_and_touches<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let calls = [
        (bench.set("a", "1", None), Reply::Done),
        (bench.touch("a", Some(HOUR)), Reply::Flag(true)),
        (bench.touch("a", None), Reply::Flag(true)),
        (bench.touch("b", Some(HOUR)), Reply::Flag(false)),
        (bench.get("a"), found("1")),
        (bench.delete("a"), Reply::Flag(true)),
        (bench.delete("a"), Reply::Flag(false)),
        (bench.touch("a", None), Reply::Flag(false)),
    ];
    bench.expect(calls).await
}

async fn lets_entries_expire<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let began = Instant::now();
    let calls = [
        (bench.set("set", "1", Some(SHORT)), Reply::Done),
        (bench.add("added", "1", Some(SHORT)), Reply::Flag(true)),
        (bench.set("touched", "1", Some(HOUR)), Reply::Done),
        (bench.touch("touched", Some(SHORT)), Reply::Flag(true)),
        (bench.set("counted", "1", Some(SHORT)), Reply::Done),
        (bench.incr("counted", 1), Reply::Number(Some(2))),
        (bench.set("kept", "1", Some(HOUR)), Reply::Done),
        (bench.set("renewed", "1", Some(SHORT)), Reply::Done),
        (bench.touch("renewed", Some(HOUR)), Reply::Flag(true)),
        (bench.set("replaced", "1", Some(SHORT)), Reply::Done),
        (bench.set("replaced", "2", None), Reply::Done),
        (bench.set("untouched", "1", Some(SHORT)), Reply::Done),
        (bench.add("untouched", "2", Some(HOUR)), Reply::Flag(false)),
    ];
    bench.expect(calls).await?;
    let ends = ["set", "added", "touched", "counted", "untouched"];
    loop {
        let late = began.elapsed() > PATIENCE;
        let replies = bench.ask(ends.map(|key| bench.get(key))).await?;
        let mut alive = ends.iter().zip(&replies).filter_map(|(key, reply)| {
            let is_absent = matches!(reply, Reply::Entry(None));
            (!is_absent).then_some(key)
        });
        match alive.next() {
            None => break,
            Some(key) if late => return Err(format!("the entry {key:?} outlives {SHORT:?}")),
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    // An expired entry is absent for every operation.
    let calls = [
        (bench.get("kept"), found("1")),
        (bench.get("renewed"), found("1")),
        (bench.get("replaced"), found("2")),
        (bench.touch("set", None), Reply::Flag(false)),
        (bench.delete("added"), Reply::Flag(false)),
        (bench.incr("counted", 1), Reply::Number(None)),
        (bench.add("touched", "3", None), Reply::Flag(true)),
    ];
    bench.expect(calls).await
}

async fn clears_a_prefix<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let keys = ["in*:a", "in*:b", "in*", "inx:a", "out"];
    let sets = keys.map(|key| (bench.set(key, "1", None), Reply::Done));
    bench.expect(sets).await?;
    let prefix = bench.name("in*:");
    let replies = bench.ask([Op::Clear { prefix }]).await?;
    let reply = replies.first().unwrap_or(&Reply::Done);
    let refused = is_same(&failed(ErrorKind::Unsupported), reply);
    if !refused && !is_same(&Reply::Count(2), reply) {
        let reply = shown(reply);
        return Err(format!(
            "clear of a prefix with two entries is answered {reply}"
        ));
    }
    let left = keys.map(|key| match key.starts_with("in*:") && !refused {
        true => (bench.get(key), Reply::Entry(None)),
        false => (bench.get(key), found("1")),
    });
    bench.expect(left).await
}

async fn forgets_a_dropped_exchange<S: Store + ?Sized>(bench: &Bench<'_, S>) -> Outcome {
    let sets = ["a", "b"].map(|key| (bench.set(key, key, None), Reply::Done));
    bench.expect(sets).await?;
    for _ in 0..10 {
        let dropped = Trip::from(bench.get("a"));
        if let Exchange::Pending(mut answer) = bench.store.exchange(&dropped) {
            poll_fn(|context| {
                let _ = answer.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
        }
        bench.expect([(bench.get("b"), found("b"))]).await?;
    }
    Ok(())
}

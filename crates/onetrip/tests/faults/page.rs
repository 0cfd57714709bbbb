//! A thread's page that posts writes and collects their errors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onetrip::Error;
use onetrip::blocking::Cache;
use onetrip::internals::entry::Kind;
use onetrip::internals::{Context, Keyspace};
use onetrip::trip::{Late, Op, Replies, Reply, ScopeId, Trip};

/// Errors of posted writes, which are reported late.
#[derive(Default)]
pub(crate) struct LateErrors {
    pub(crate) failed: AtomicUsize,
    pub(crate) errors: Mutex<Vec<String>>,
}

impl Late for LateErrors {
    fn failed(&self, failed: usize, error: &Error) {
        self.failed.fetch_add(failed, Ordering::SeqCst);
        self.errors.lock().unwrap().push(error.to_string());
    }
}

impl LateErrors {
    pub(crate) fn count(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }
}

pub(crate) fn tagged(key: &str) -> String {
    format!("<{key}>").repeat(10)
}

pub(crate) fn name(cache: &Cache, key: &str) -> bytes::Bytes {
    Keyspace::new(cache.asynchronous().prefix()).name(key.as_bytes())
}

pub(crate) fn set(cache: &Cache, key: &str, value: &str) -> Op {
    let policy = cache.asynchronous().policy();
    let entry = policy.seal::<Error>(key.as_bytes(), |out| {
        out.extend_from_slice(value.as_bytes());
        Ok(Kind::Str)
    });
    Op::Set {
        name: name(cache, key),
        entry: entry.unwrap(),
        ttl: Some(Duration::from_secs(600)),
    }
}

pub(crate) fn posted(
    scope: ScopeId,
    late: &Arc<LateErrors>,
    ops: impl IntoIterator<Item = Op>,
) -> Trip {
    let late: Arc<dyn Late> = late.clone();
    let trip: Trip = ops.into_iter().collect();
    trip.within(Some(scope)).posted(late)
}

/// A thread's page.
pub(crate) struct Page<'c> {
    pub(crate) cache: &'c Cache,
    pub(crate) scope: ScopeId,
    pub(crate) late: Arc<LateErrors>,
}

impl<'c> Page<'c> {
    /// Creates a page of a cache that has an idle connection.
    pub(crate) fn of(cache: &'c Cache, warm: &str) -> Self {
        cache.get::<String>(warm).unwrap();
        Self {
            cache,
            scope: ScopeId::next(),
            late: Arc::default(),
        }
    }

    pub(crate) fn post(&self, keys: &[&str]) -> Replies {
        let ops = keys.iter().map(|key| set(self.cache, key, &tagged(key)));
        let trip = posted(self.scope, &self.late, ops);
        let cache = self.cache.asynchronous();
        cache.send_blocking(&Context::default(), &trip).unwrap()
    }

    pub(crate) fn ask(&self, ops: impl IntoIterator<Item = Op>) -> Replies {
        let trip: Trip = ops.into_iter().collect();
        let trip = trip.within(Some(self.scope));
        let cache = self.cache.asynchronous();
        cache.send_blocking(&Context::default(), &trip).unwrap()
    }

    pub(crate) fn get(&self, key: &str) -> Option<bytes::Bytes> {
        let name = name(self.cache, key);
        match self.ask([Op::Get { name }]).into_iter().next() {
            Some(Reply::Entry(stored)) => stored.map(|stored| stored.bytes),
            _ => None,
        }
    }

    pub(crate) fn drain(&self) {
        self.cache.asynchronous().settle_blocking(Some(self.scope));
    }
}

pub(crate) fn are_posted(replies: &Replies) -> bool {
    replies.iter().all(|reply| matches!(reply, Reply::Posted))
}

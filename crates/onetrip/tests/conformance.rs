//! The laws of stores fail for a store that breaks one, and a cache runs over a store of a user's own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::sync::Arc;
use std::time::Duration;

use onetrip::store::{Exchange, Store, StoreOptions, conformance, open};
use onetrip::trip::{Op, Replies, Reply, Trip};
use onetrip::{Builder, Cache, Clock, OnError};

/// A good store, whose trips and replies are changed on their way.
#[derive(Debug)]
struct Changed {
    store: Arc<dyn Store>,
    ops: fn(Op) -> Op,
    replies: fn(&Trip, Replies) -> Replies,
    waits: bool,
}

fn good() -> Arc<dyn Store> {
    let options = StoreOptions {
        clock: Clock::system(),
        connect_timeout: Duration::from_secs(1),
        trip_timeout: Duration::from_secs(1),
    };
    open("memory://", &options).unwrap()
}

fn changed() -> Changed {
    Changed {
        store: good(),
        ops: |op| op,
        replies: |_, replies| replies,
        waits: false,
    }
}

impl Store for Changed {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        let ops = trip.ops().iter().cloned();
        let Exchange::Ready(replies) = self.store.exchange(&ops.map(self.ops).collect()) else {
            panic!("memory answers at once");
        };
        let replies = (self.replies)(trip, replies);
        match self.waits {
            true => Exchange::Pending(Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(replies)
            })),
            false => Exchange::Ready(replies),
        }
    }

    fn is_local(&self) -> bool {
        !self.waits
    }

    fn label(&self) -> Arc<str> {
        "changed://".into()
    }
}

/// The laws that a store breaks.
fn broken(store: Changed) -> Vec<String> {
    let store = Arc::new(store);
    match conformance::run(|| Arc::clone(&store)) {
        Ok(()) => Vec::new(),
        Err(broken) => broken.laws().map(|(law, _)| law.to_owned()).collect(),
    }
}

fn assert_breaks_order(store: Changed) {
    let broken = broken(store);
    let law = "carries out a trip in its order";
    assert!(broken.iter().any(|broken| broken == law), "{broken:?}");
}

#[test]
fn good_stores_conform() {
    assert_eq!(broken(changed()), [""; 0]);
    let waits = Changed {
        waits: true,
        ..changed()
    };
    assert_eq!(broken(waits), [""; 0]);
}

#[test]
fn store_that_ignores_ttl_fails() {
    let store = Changed {
        ops: |op| match op {
            Op::Set { name, entry, .. } => Op::Set {
                name,
                entry,
                ttl: None,
            },
            op => op,
        },
        ..changed()
    };
    assert_eq!(broken(store), ["lets entries expire"]);
}

#[test]
fn store_that_answers_in_the_wrong_order_fails() {
    let store = Changed {
        replies: |_, replies| {
            let mut replies = replies;
            replies.reverse();
            replies
        },
        ..changed()
    };
    assert_breaks_order(store);
}

#[test]
fn store_that_leaves_a_reply_out_fails() {
    let store = Changed {
        replies: |trip, replies| replies.into_iter().take(trip.len().min(5)).collect(),
        ..changed()
    };
    assert_breaks_order(store);
}

#[test]
fn store_that_takes_empty_for_absent_fails() {
    let store = Changed {
        replies: |_, replies| {
            let replies = replies.into_iter().map(|reply| match reply {
                Reply::Entry(Some(stored)) if stored.bytes.is_empty() => Reply::Entry(None),
                reply => reply,
            });
            replies.collect()
        },
        ..changed()
    };
    assert_eq!(broken(store), ["takes any entry"]);
}

#[test]
fn store_that_clears_something_else_fails() {
    let store = Changed {
        ops: |op| match op {
            Op::Clear { prefix } => Op::Clear {
                prefix: prefix.slice(..prefix.len() - 2),
            },
            op => op,
        },
        ..changed()
    };
    assert_eq!(broken(store), ["clears a prefix or refuses to"]);
}

#[test]
fn cache_runs_over_a_store_of_ones_own() {
    let store = Arc::new(Changed {
        waits: true,
        ..changed()
    });
    let open = |prefix: &str| {
        let builder = Builder::default().store(store.clone()).prefix(prefix);
        builder.on_error(OnError::Miss).build().unwrap().blocking()
    };
    let (cache, other) = (open("a"), open("b"));
    cache.set("n", &None::<i64>).unwrap();
    assert_eq!(cache.get::<Option<i64>>("n").unwrap(), Some(None));
    assert_eq!(other.get::<Option<i64>>("n").unwrap(), None);
    assert_eq!(cache.asynchronous().label(), "changed://");
    // Nothing is posted to a store that does not order its posts.
    let (value, seen) = cache
        .watch(|| cache.scope(|| cache.get_or_insert_with("x", Duration::from_secs(60), || 5)));
    assert_eq!((value.unwrap(), seen.posted()), (5, 0));
    assert_eq!(cache.get("x").unwrap(), Some(5));
    drop::<Cache>(cache.asynchronous().clone());
}

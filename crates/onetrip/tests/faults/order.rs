//! Law 3: operations on a posted key follow the post, and every reply goes to its own caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::internals::Context;
use onetrip::trip::{Op, Replies, Reply, ScopeId, Trip};

use crate::page::{LateErrors, Page, are_posted, name, posted, set, tagged};
use crate::proxy::Fault;
use crate::stand::Stand;

on_every_server!(
    delete_from_another_caller_follows_a_post,
    post_of_another_scope_follows_a_post,
    clear_follows_all_posts,
    key_of_a_pending_delete_is_not_posted,
    tasks_and_threads_wait_for_each_others_posts,
    post_of_a_task_does_not_wait_on_its_own_connection;
    alone: replies_to_posts_are_never_mixed_up,
);

/// While the reply to a post is late, the proxy holds back what is sent after the post.
const LATE: Duration = Duration::from_millis(3);

fn delete_from_another_caller_follows_a_post(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other, warm] = ["key", "other", "warm"].map(|name| stand.key(name));
    cache.get::<String>(&warm).unwrap();
    stand.fail(Fault::Delay(LATE));
    for round in 0..60 {
        let page = Page::of(&cache, &warm);
        page.post(&[&other]);
        assert!(are_posted(&page.post(&[&key])));
        let delete = || {
            if round % 3 == 0 {
                let deleted = page.ask([Op::Delete {
                    name: name(&cache, &key),
                }]);
                assert!(matches!(deleted[..], [Reply::Flag(true)]), "{deleted:?}");
            } else {
                assert!(cache.delete(&key).unwrap());
            }
        };
        if round % 2 == 0 {
            std::thread::scope(|threads| threads.spawn(delete).join().unwrap());
        } else {
            delete();
        }
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        page.drain();
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        assert_eq!(page.late.count(), 0);
    }
}

fn post_of_another_scope_follows_a_post(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other, warm] = ["key", "other", "warm"].map(|name| stand.key(name));
    stand.fail(Fault::Delay(LATE));
    for round in 0..30 {
        let [first, second] = [0, 1].map(|_| Page::of(&cache, &warm));
        first.post(&[&other]);
        first.post(&[&key]);
        let value = format!("round {round}");
        let trip = posted(second.scope, &second.late, [set(&cache, &key, &value)]);
        let asynchronous = cache.asynchronous();
        asynchronous
            .send_blocking(&Context::default(), &trip)
            .unwrap();
        second.drain();
        first.drain();
        assert_eq!(direct.get(&key).unwrap(), Some(value));
    }
}

fn clear_follows_all_posts(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(3);
    stand.fail(Fault::Delay(LATE));
    for _ in 0..5 {
        let pages = [0, 1, 2].map(|_| Page::of(&cache, "warm"));
        for (page, key) in pages.iter().zip(&keys) {
            page.post(&[key]);
        }
        cache.clear().unwrap();
        for (page, key) in pages.iter().zip(&keys) {
            assert_eq!(direct.get::<String>(key).unwrap(), None);
            page.drain();
            assert_eq!(direct.get::<String>(key).unwrap(), None);
        }
    }
}

fn key_of_a_pending_delete_is_not_posted(stand: Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    let [key, other] = ["key", "other"].map(|name| stand.key(name));
    direct.set(&key, "stale").unwrap();
    let page = Page::of(&cache, &other);
    stand.fail(Fault::Refuse);
    // The idle connection is closed, and the breaker does not open at once.
    cache.delete(&key).unwrap();
    stand.recover();
    let dropped = page.post(&[&key]);
    assert!(matches!(dropped[..], [Reply::Failed(_)]), "{dropped:?}");
    cache.get::<String>(&other).unwrap();
    assert_eq!(direct.get::<String>(&key).unwrap(), None);
    page.post(&[&key]);
    page.drain();
    assert_eq!(direct.get(&key).unwrap(), Some(tagged(&key)));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Begins a post and leaves it to another task, as tasks do.
fn post_by_a_task(
    cache: &Cache,
    runtime: &tokio::runtime::Runtime,
    trip: Trip,
) -> tokio::task::JoinHandle<Replies> {
    let cache = cache.asynchronous().clone();
    let mut sending = Box::pin(async move { cache.send(&Context::default(), &trip).await });
    // Outside of a runtime the post is only registered.
    let waker = std::task::Waker::noop();
    let begun = sending
        .as_mut()
        .poll(&mut std::task::Context::from_waker(waker));
    assert!(begun.is_pending());
    runtime.spawn(async move { sending.await.unwrap() })
}

fn tasks_and_threads_wait_for_each_others_posts(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other, warm] = ["key", "other", "warm"].map(|name| stand.key(name));
    let runtime = runtime();
    let asynchronous = cache.asynchronous().clone();
    runtime.block_on(asynchronous.get::<String>(&warm)).unwrap();
    stand.fail(Fault::Delay(LATE));
    for round in 0..40 {
        let page = Page::of(&cache, &warm);
        let value = tagged(&key);
        if round % 2 == 0 {
            // A thread deletes what a task has posted.
            let trip = posted(page.scope, &page.late, [set(&cache, &key, &value)]);
            let post = post_by_a_task(&cache, &runtime, trip);
            assert!(cache.delete(&key).unwrap(), "round {round}");
            let replies = runtime.block_on(post).unwrap();
            assert!(matches!(replies[..], [Reply::Done]), "{replies:?}");
        } else {
            page.post(&[&other]);
            page.post(&[&key]);
            assert!(runtime.block_on(asynchronous.delete(&key)).unwrap());
        }
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        page.drain();
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        assert_eq!(page.late.count(), 0);
    }
}

fn post_of_a_task_does_not_wait_on_its_own_connection(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, warm] = ["key", "warm"].map(|name| stand.key(name));
    let runtime = runtime();
    let asynchronous = cache.asynchronous().clone();
    runtime.block_on(asynchronous.get::<String>(&warm)).unwrap();
    let page = Page::of(&cache, &warm);
    stand.fail(Fault::Delay(LATE));
    for round in 0..20 {
        let trip = posted(page.scope, &page.late, [set(&cache, &key, &tagged(&key))]);
        let post = post_by_a_task(&cache, &runtime, trip);
        assert!(
            runtime.block_on(asynchronous.delete(&key)).unwrap(),
            "round {round}"
        );
        runtime.block_on(asynchronous.drain(Some(page.scope)));
        assert!(post.is_finished() || !runtime.block_on(post).unwrap().is_empty());
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
    }
}

/// Threads post and read, alone and in scopes that two of them share, through network faults that
/// end soon.
fn replies_to_posts_are_never_mixed_up(stand: Stand) {
    let keys = stand.keys(40);
    let shared = ScopeId::next();
    let late = Arc::new(LateErrors::default());
    let done = AtomicBool::new(false);
    let cache = stand.cache();
    let found = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let faults = [
                Fault::Cut(300),
                Fault::Reset(200),
                Fault::Delay(Duration::from_millis(2)),
                Fault::Cut(0),
                Fault::Garbage,
            ];
            for fault in faults.into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                stand.fail(fault);
                std::thread::sleep(Duration::from_millis(5));
                stand.recover();
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (cache, keys, late, found) = (&cache, &keys, &late, &found);
                threads.spawn(move || {
                    for round in 0..600 {
                        let scope = if reader < 2 { shared } else { ScopeId::next() };
                        let page = Page {
                            cache,
                            scope,
                            late: Arc::clone(late),
                        };
                        let at =
                            |step: usize| &*keys[(round * 7 + reader * 13 + step) % keys.len()];
                        page.post(&[at(0), at(1), at(2)]);
                        for step in [3, 0, 5] {
                            if let Some(entry) = page.get(at(step)) {
                                let entry = String::from_utf8_lossy(&entry).into_owned();
                                assert!(entry.contains(&tagged(at(step))), "{entry}");
                                found.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        page.post(&[at(6)]);
                        if round % 3 > 0 {
                            page.drain();
                        }
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    // Nothing is posted while the breaker is open.
    assert!(found.load(Ordering::Relaxed) > 100, "{found:?}");
}

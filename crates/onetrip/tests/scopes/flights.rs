//! Law 13 with real threads and tasks: callers that miss a key together compute it once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use onetrip::{Cache, ErrorKind, OnError, Ttl};

use crate::support::{Bed, Face, Outcome, Server, turn};

on_every_store![
    fifty_callers_compute_a_key_once,
    fifty_callers_in_scopes_compute_a_key_once,
    get_or_insert_with_returns_what_the_store_holds,
    get_or_insert_with_keeps_a_concurrent_set,
    cached_function_overwrites_what_others_stored,
    failed_computation_stores_nothing,
    nested_fetches_are_computed_within,
];

const CALLERS: usize = 50;
const HOUR: Duration = Duration::from_secs(60 * 60);

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Counts computations.
#[derive(Debug, Default)]
struct Count(AtomicU32);

impl Count {
    fn up(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets fifty callers fetch `key` at the same time: on threads, or as parts of a task.
async fn together(face: &Face, key: &str, scopes: bool) -> u32 {
    let count = Count::default();
    match face {
        Face::Awaited(cache) => {
            let all_began = tokio::sync::Barrier::new(CALLERS);
            let caller = async || {
                let work = async {
                    all_began.wait().await;
                    let make = async || {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        vec![count.up()]
                    };
                    let mut made = cache.get_or_insert_with(key, HOUR, make).await.unwrap();
                    assert_eq!(made, [1]);
                    made.push(2);
                };
                match scopes {
                    true => cache.scope(work).await,
                    false => work.await,
                }
            };
            futures_util::future::join_all((0..CALLERS).map(|_| caller())).await;
        }
        Face::Blocking(cache) => {
            let all_began = Barrier::new(CALLERS);
            let caller = || {
                let work = || {
                    all_began.wait();
                    let make = || {
                        std::thread::sleep(Duration::from_millis(100));
                        vec![count.up()]
                    };
                    let mut made = cache.get_or_insert_with(key, HOUR, make).unwrap();
                    assert_eq!(made, [1]);
                    made.push(2);
                };
                match scopes {
                    true => cache.scope(work),
                    false => work(),
                }
            };
            std::thread::scope(|threads| {
                for _ in 0..CALLERS {
                    threads.spawn(caller);
                }
            });
        }
    }
    count.get()
}

async fn fifty_callers_compute_a_key_once(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    assert_eq!(together(cache, "a", false).await, 1);
    let kept: Option<Vec<u32>> = cache.get("a").await?;
    assert_eq!(kept, Some(vec![1]), "a caller changed another's value");
    Ok(())
}

async fn fifty_callers_in_scopes_compute_a_key_once(bed: Bed) -> Outcome {
    assert_eq!(together(&bed.posting(), "a", true).await, 1);
    Ok(())
}

/// Several processes may have to agree on one token.
async fn get_or_insert_with_returns_what_the_store_holds(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    // Another process stores its value while this one computes; both must end with that value.
    let server = &bed.elsewhere();
    let theirs = async |scoped: bool| {
        let key = if scoped { "scoped" } else { "plain" };
        let get = async || match cache {
            Face::Awaited(cache) => {
                let make = async || {
                    server.set(key, "theirs").await.unwrap();
                    "ours".to_owned()
                };
                cache.get_or_insert_with(key, HOUR, make).await
            }
            Face::Blocking(cache) => cache.get_or_insert_with(key, HOUR, || {
                let set = server.set(key, "theirs");
                crate::support::Driver::Thread.run(set).unwrap();
                "ours".to_owned()
            }),
        };
        let work = async {
            assert_eq!(get().await?, "theirs");
            assert_eq!(
                get().await?,
                "theirs",
                "the scope holds the value agreed on"
            );
            Ok(())
        };
        match scoped {
            true => cache.scope(work).await?,
            false => work.await?,
        }
        assert_eq!(others.get(key).await?, text("theirs"));
        Ok::<_, onetrip::Error>(())
    };
    theirs(false).await?;
    theirs(true).await
}

async fn get_or_insert_with_keeps_a_concurrent_set(bed: Bed) -> Outcome {
    let (cache, other) = (&bed.cache(), &bed.cache());
    let page = async {
        let made = cache.get_or_insert_with("a", HOUR, || {
            beside(other, async |other| other.set("a", "newer").await);
            "older".to_owned()
        });
        assert_eq!(made.await?, "newer", "the value in the store");
        assert_eq!(
            cache.get("a").await?,
            text("newer"),
            "the older value must not be stored"
        );
        let again = cache.get_or_insert_with("a", HOUR, || "older".to_owned());
        assert_eq!(again.await?, "newer");
        Ok(())
    };
    cache.scope(page).await
}

/// Runs `work` on another thread, without a scope.
fn beside<F: Future<Output = Outcome>>(face: &Face, work: impl FnOnce(Face) -> F + Send) {
    let face = face.clone();
    std::thread::scope(|threads| {
        let done = threads.spawn(move || face.driver().run(work(face.clone())));
        done.join().unwrap().unwrap();
    });
}

async fn cached_function_overwrites_what_others_stored(bed: Bed) -> Outcome {
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    let server = &bed.elsewhere();
    let made = cache.cached("a", HOUR, || {
        std::thread::scope(|threads| {
            let set = || cache.driver().run(server.set("a", "theirs"));
            threads.spawn(set).join().unwrap().unwrap();
        });
        "ours".to_owned()
    });
    assert_eq!(made.await?, "ours");
    assert_eq!(others.get("a").await?, text("ours"));
    Ok(())
}

async fn failed_computation_stores_nothing(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    #[derive(Debug, PartialEq)]
    struct Failed;
    impl From<onetrip::Error> for Failed {
        fn from(error: onetrip::Error) -> Self {
            panic!("{error}")
        }
    }
    for answer in [Err(Failed), Ok(5), Err(Failed)] {
        let made = match cache {
            Face::Awaited(cache) => {
                let make = async || answer;
                cache.try_get_or_insert_with("a", HOUR, make).await
            }
            Face::Blocking(cache) => cache.try_get_or_insert_with("a", HOUR, || answer),
        };
        let stored = cache.get::<i64>("a").await?;
        assert_eq!(made.ok(), stored);
    }
    assert_eq!(cache.get("a").await?, Some(5));
    Ok(())
}

/// Pieces within pieces, and a piece that fetches itself.
async fn nested_fetches_are_computed_within(bed: Bed) -> Outcome {
    let made = match &bed.cache() {
        Face::Awaited(cache) => {
            let inner = async || {
                let again = cache.get_or_insert_with("outer", HOUR, async || 1);
                again.await.unwrap() + 1
            };
            let outer = async || {
                cache
                    .get_or_insert_with("inner", HOUR, inner)
                    .await
                    .unwrap()
                    + 1
            };
            cache.get_or_insert_with("outer", HOUR, outer).await?
        }
        Face::Blocking(cache) => {
            let inner = || cache.get_or_insert_with("outer", HOUR, || 1).unwrap() + 1;
            let outer = || cache.get_or_insert_with("inner", HOUR, inner).unwrap() + 1;
            cache.get_or_insert_with("outer", HOUR, outer)?
        }
    };
    // The innermost fetch stored it first.
    assert_eq!(made, 1);
    assert_eq!(bed.cache().get("inner").await?, Some(2));
    Ok(())
}

fn local(prefix: &str) -> Cache {
    let cache = Cache::builder("memory://").prefix(prefix).build();
    cache.unwrap()
}

/// Runs two threads; the second fetches `a` while the first computes it.
fn beside_an_owner(prefix: &str, owner: impl FnOnce(&Barrier) -> u32 + Send) -> (Duration, u32) {
    let cache = &local(prefix).blocking();
    let both = &Barrier::new(2);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let fetch = || cache.get_or_insert_with("a", HOUR, || owner(both));
            let _ = catch_unwind(AssertUnwindSafe(fetch));
        });
        both.wait();
        let began = Instant::now();
        let made = cache.get_or_insert_with("a", HOUR, || 2).unwrap();
        (began.elapsed(), made)
    })
}

#[test]
fn waiters_compute_when_the_computing_thread_panics() {
    let _turn = turn();
    let (_, made) = beside_an_owner("panics", |both| {
        both.wait();
        std::thread::sleep(Duration::from_millis(20));
        panic!("as a function may")
    });
    assert_eq!(made, 2);
}

#[test]
fn thread_waits_at_most_a_second() {
    let _turn = turn();
    let (waited, made) = beside_an_owner("long", |both| {
        both.wait();
        std::thread::sleep(Duration::from_millis(2500));
        1
    });
    assert_eq!(made, 2);
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
    assert!(waited < Duration::from_millis(2400), "{waited:?}");
}

#[test]
fn threads_that_need_each_other_do_not_deadlock() {
    let _turn = turn();
    let cache = &local("circle").blocking();
    let both = &Barrier::new(2);
    let began = Instant::now();
    std::thread::scope(|threads| {
        for (own, other) in [("a", "b"), ("b", "a")] {
            threads.spawn(move || {
                let make = || {
                    both.wait();
                    let theirs = cache.get_or_insert_with(other, HOUR, || other.to_owned());
                    format!("{own}({})", theirs.unwrap())
                };
                cache.get_or_insert_with(own, HOUR, make).unwrap();
            });
        }
    });
    // Neither gave up.
    assert!(began.elapsed() < Duration::from_millis(900));
}

#[test]
fn waiters_compute_when_the_computing_task_is_cancelled() {
    let _turn = turn();
    let cache = local("cancelled");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let count = Arc::new(Count::default());
        let fetch = |endless: bool| {
            let (cache, count) = (cache.clone(), Arc::clone(&count));
            async move {
                let make = async || {
                    count.up();
                    if endless {
                        std::future::pending::<()>().await;
                    }
                    7
                };
                cache.get_or_insert_with("a", HOUR, make).await.unwrap()
            }
        };
        let owner = tokio::spawn(fetch(true));
        while count.get() == 0 {
            tokio::task::yield_now().await;
        }
        let waits = tokio::spawn(fetch(false));
        tokio::task::yield_now().await;
        assert_eq!(count.get(), 1, "it waits");
        let began = Instant::now();
        owner.abort();
        assert_eq!(waits.await.unwrap(), 7);
        assert!(began.elapsed() < Duration::from_millis(500), "at once");
        assert_eq!(count.get(), 2);
        // A cancelled waiter holds up nobody either.
        cache.delete("a").await.unwrap();
        let owner = tokio::spawn(fetch(true));
        while count.get() == 2 {
            tokio::task::yield_now().await;
        }
        let waits = tokio::spawn(fetch(false));
        tokio::task::yield_now().await;
        waits.abort();
        assert!(waits.await.unwrap_err().is_cancelled());
        owner.abort();
        assert_eq!(fetch(false).await, 7);
    });
}

/// A thread must not wait for a task: the thread may be running the task's event loop.
#[test]
fn thread_does_not_wait_for_a_task() {
    let _turn = turn();
    let cache = local("beside-a-task");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let make = async || {
            let cache = cache.blocking();
            let began = Instant::now();
            // On the thread of the event loop itself.
            let made = cache.get_or_insert_with("a", HOUR, || 2).unwrap();
            assert!(began.elapsed() < Duration::from_millis(500));
            made + 1
        };
        let made = cache.get_or_insert_with("a", HOUR, make).await.unwrap();
        assert_eq!(made, 2, "what was stored first");
    });
}

/// Under `OnError::Raise` stores are waited for and their errors returned; otherwise they are
/// dropped.
#[test]
fn failing_store_is_an_error_only_with_on_error_raise() {
    let _turn = turn();
    let server = Server::start();
    let _: () = server.ask(&["ACL", "SETUSER", "default", "-set"]);
    let open = |on_error| {
        let cache = Cache::builder(server.url()).on_error(on_error);
        cache.build().unwrap()
    };
    let cached = |cache: &Cache| {
        let make = || Ok(5);
        onetrip::__private::fetch_blocking(cache, "a", Ttl::Default, false, make, Err)
    };
    let raising = open(OnError::Raise);
    for error in [
        cached(&raising).unwrap_err(),
        raising.blocking().scope(|| cached(&raising)).unwrap_err(),
        raising
            .blocking()
            .get_or_insert_with("a", HOUR, || 5)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
    let lenient = open(OnError::Miss);
    assert_eq!(cached(&lenient).unwrap(), 5);
    let page = || cached(&lenient);
    assert_eq!(lenient.blocking().scope(page).unwrap(), 5);
    let got = lenient.blocking().get_or_insert_with("a", HOUR, || 5);
    assert_eq!(got.unwrap(), 5);
    assert!(lenient.stats().errors >= 3);
    let exists: u64 = server.ask(&["EXISTS", "a"]);
    assert_eq!(exists, 0);
}

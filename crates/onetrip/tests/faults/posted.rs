//! Law 3: what is posted is not waited for, is never sent again, and keeps its place in the order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onetrip::blocking::Cache;
use onetrip::entry::Kind;
use onetrip::trip::{Late, Op, Replies, Reply, ScopeId, Trip};
use onetrip::{Context, Error, Keyspace};

use crate::eventually;
use crate::proxy::Fault;
use crate::stand::{Stand, TRIP_TIMEOUT};

on_every_server!(
    a_post_arrives_and_waits_for_nothing,
    a_trip_reads_the_replies_to_posts_with_its_own,
    what_is_posted_in_a_row_is_all_there,
    what_is_posted_last_is_there_when_its_cache_is_dropped,
    what_was_lost_is_told_and_not_sent_again,
    a_server_that_hangs_costs_one_timeout_in_all,
    a_scope_that_was_forgotten_keeps_no_connection,
    a_delete_elsewhere_follows_a_post,
    a_post_of_another_scope_follows_a_post,
    a_clear_follows_all_posts,
    nothing_is_posted_where_a_delete_is_owed,
    tasks_and_threads_wait_for_each_others_posts,
    what_a_task_posts_waits_for_nobody_on_its_own_connection;
    alone: replies_to_posts_are_never_anothers, a_child_leaves_what_its_parent_posted_alone,
);

/// What came to light late.
#[derive(Default)]
struct Told {
    failed: AtomicUsize,
    errors: Mutex<Vec<String>>,
}

impl Late for Told {
    fn failed(&self, failed: usize, error: &Error) {
        self.failed.fetch_add(failed, Ordering::SeqCst);
        self.errors.lock().unwrap().push(error.to_string());
    }
}

impl Told {
    fn count(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }
}

fn tagged(key: &str) -> String {
    format!("<{key}>").repeat(10)
}

fn name(cache: &Cache, key: &str) -> bytes::Bytes {
    Keyspace::new(cache.asynchronous().prefix()).name(key.as_bytes())
}

fn set(cache: &Cache, key: &str, value: &str) -> Op {
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

fn posted(scope: ScopeId, told: &Arc<Told>, ops: impl IntoIterator<Item = Op>) -> Trip {
    let late: Arc<dyn Late> = told.clone();
    let trip: Trip = ops.into_iter().collect();
    trip.within(Some(scope)).posted(late)
}

/// A thread's page.
struct Page<'c> {
    cache: &'c Cache,
    scope: ScopeId,
    told: Arc<Told>,
}

impl<'c> Page<'c> {
    /// Of a cache that has an idle connection.
    fn of(cache: &'c Cache, warm: &str) -> Self {
        cache.get::<String>(warm).unwrap();
        Self {
            cache,
            scope: ScopeId::next(),
            told: Arc::default(),
        }
    }

    fn post(&self, keys: &[&str]) -> Replies {
        let ops = keys.iter().map(|key| set(self.cache, key, &tagged(key)));
        let trip = posted(self.scope, &self.told, ops);
        let cache = self.cache.asynchronous();
        cache.send_blocking(&Context::default(), &trip).unwrap()
    }

    fn ask(&self, ops: impl IntoIterator<Item = Op>) -> Replies {
        let trip: Trip = ops.into_iter().collect();
        let trip = trip.within(Some(self.scope));
        let cache = self.cache.asynchronous();
        cache.send_blocking(&Context::default(), &trip).unwrap()
    }

    fn get(&self, key: &str) -> Option<bytes::Bytes> {
        let name = name(self.cache, key);
        match self.ask([Op::Get { name }]).into_iter().next() {
            Some(Reply::Entry(entry)) => entry,
            _ => None,
        }
    }

    fn settle(&self) {
        self.cache.asynchronous().settle_blocking(Some(self.scope));
    }
}

fn are_posted(replies: &Replies) -> bool {
    replies.iter().all(|reply| matches!(reply, Reply::Posted))
}

fn a_post_arrives_and_waits_for_nothing(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(3);
    let page = Page::of(&cache, &keys[0]);
    let delay = Duration::from_millis(500);
    stand.fail(Fault::Delay(delay));
    let began = Instant::now();
    assert!(are_posted(&page.post(&[&keys[0], &keys[1]])));
    assert!(are_posted(&page.post(&[&keys[2]])));
    assert!(began.elapsed() < delay, "{:?}", began.elapsed());
    // The first two, since the proxy holds up what follows with the reply.
    for key in &keys[..2] {
        eventually("a post arrives", || {
            direct.get(key).unwrap() == Some(tagged(key))
        });
    }
    page.settle();
    assert_eq!(direct.get(&keys[2]).unwrap(), Some(tagged(&keys[2])));
    assert_eq!(page.told.count(), 0);
}

fn a_trip_reads_the_replies_to_posts_with_its_own(stand: Stand) {
    let cache = stand.patient();
    let keys = stand.keys(3);
    let page = Page::of(&cache, &keys[0]);
    let (connections, requests) = (stand.proxy.connections(), stand.proxy.requests());
    for _ in 0..5 {
        assert!(are_posted(&page.post(&[&keys[0], &keys[1]])));
        let held = page.get(&keys[1]).unwrap();
        assert!(String::from_utf8_lossy(&held).contains(&tagged(&keys[1])));
        assert!(page.get(&keys[2]).is_none());
    }
    // All on one connection, and no more was sent than that.
    assert_eq!(stand.proxy.connections(), connections);
    assert!(stand.proxy.requests() - requests <= 15);
    // What is a call by HTTP, or a question of several steps, is answered rightly too.
    page.post(&[&keys[0]]);
    let added = page.ask([Op::Add {
        name: name(&cache, &keys[0]),
        entry: "other".into(),
        ttl: None,
    }]);
    assert!(matches!(added[..], [Reply::Flag(false)]), "{added:?}");
    page.post(&[&keys[0]]);
    let touched = page.ask([Op::Touch {
        name: name(&cache, &keys[0]),
        ttl: None,
    }]);
    assert!(matches!(touched[..], [Reply::Flag(true)]), "{touched:?}");
    assert_eq!(page.told.count(), 0);
}

const MANY: usize = 2_000;

fn what_is_posted_in_a_row_is_all_there(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(MANY);
    let page = Page::of(&cache, &keys[0]);
    for key in &keys {
        assert!(are_posted(&page.post(&[key])));
    }
    page.settle();
    cache.asynchronous().close_idle();
    let found = direct.get_many::<String, _>(&keys).unwrap();
    let lost = found.iter().filter(|value| value.is_none()).count();
    assert_eq!((lost, page.told.count()), (0, 0));
}

fn what_is_posted_last_is_there_when_its_cache_is_dropped(stand: Stand) {
    let direct = stand.direct();
    let keys = stand.keys(MANY);
    let told = {
        let cache = stand.patient();
        let page = Page::of(&cache, &keys[0]);
        for key in &keys {
            page.post(&[key]);
        }
        page.told
    };
    let found = direct.get_many::<String, _>(&keys).unwrap();
    let lost = found.iter().filter(|value| value.is_none()).count();
    assert_eq!((lost, told.count()), (0, 0));
}

fn what_was_lost_is_told_and_not_sent_again(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other] = ["key", "other"].map(|name| stand.key(name));
    direct.set(&other, "other").unwrap();
    let page = Page::of(&cache, &key);
    // It never arrives.
    stand.fail(Fault::Hang);
    let requests = stand.proxy.requests();
    assert!(are_posted(&page.post(&[&key])));
    eventually("it is on its way", || stand.proxy.requests() > requests);
    stand.proxy.close_all();
    assert!(page.get(&other).is_some(), "the next trip works");
    assert_eq!(page.told.count(), 1, "{:?}", page.told.errors);
    assert_eq!(direct.get::<String>(&key).unwrap(), None);
    // And once more where nobody of its scope makes a trip.
    for settles in [true, false] {
        page.get(&other);
        stand.fail(Fault::Hang);
        let (requests, before) = (stand.proxy.requests(), page.told.count());
        assert!(are_posted(&page.post(&[&key])));
        eventually("it is on its way", || stand.proxy.requests() > requests);
        stand.proxy.close_all();
        if settles {
            page.settle();
        } else {
            assert_eq!(cache.get::<String>(&key).unwrap(), None);
        }
        assert_eq!(page.told.count() - before, 1);
        assert_eq!(direct.get::<String>(&key).unwrap(), None);
    }
}

fn a_server_that_hangs_costs_one_timeout_in_all(stand: Stand) {
    let cache = stand.cache();
    let keys = stand.keys(60);
    let pages = [0, 1].map(|_| Page::of(&cache, &keys[0]));
    // Each has a connection of its own.
    pages[0].post(&[&keys[58]]);
    assert!(pages[1].get(&keys[59]).is_none());
    stand.fail(Fault::Hang);
    let began = Instant::now();
    for (nth, key) in keys[..50].iter().enumerate() {
        assert!(are_posted(&pages[nth % 2].post(&[key])));
    }
    assert!(began.elapsed() < TRIP_TIMEOUT, "{:?}", began.elapsed());
    for page in &pages {
        page.settle();
    }
    let refused = pages[0].post(&[&keys[50]]);
    assert!(matches!(refused[..], [Reply::Failed(_)]), "{refused:?}");
    for key in &keys[51..58] {
        assert_eq!(cache.get::<String>(key).unwrap(), None);
    }
    let took = began.elapsed();
    assert!(took < TRIP_TIMEOUT * 3 / 2, "{took:?}");
    let told: usize = pages.iter().map(|page| page.told.count()).sum();
    // One was answered before, and counts with those behind it on its connection.
    assert_eq!(told, 51);
    stand.recover();
    assert!(cache.get::<String>(&keys[50]).unwrap().is_none());
    assert!(pages[0].get(&keys[51]).is_none());
}

fn a_scope_that_was_forgotten_keeps_no_connection(stand: Stand) {
    let cache = stand.cache();
    let keys = stand.keys(2);
    Page::of(&cache, &keys[0]).post(&[&keys[0]]);
    let before = stand.proxy.connections();
    std::thread::sleep(TRIP_TIMEOUT + Duration::from_millis(100));
    // Whoever comes next reads what it left, and has its connection.
    for _ in 0..3 {
        assert!(cache.get::<String>(&keys[1]).unwrap().is_none());
    }
    assert_eq!(stand.proxy.connections(), before);
}

/// The proxy holds up what is sent behind a post, as long as its reply is late.
const LATE: Duration = Duration::from_millis(3);

fn a_delete_elsewhere_follows_a_post(stand: Stand) {
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
        page.settle();
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        assert_eq!(page.told.count(), 0);
    }
}

fn a_post_of_another_scope_follows_a_post(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other, warm] = ["key", "other", "warm"].map(|name| stand.key(name));
    stand.fail(Fault::Delay(LATE));
    for round in 0..30 {
        let [first, second] = [0, 1].map(|_| Page::of(&cache, &warm));
        first.post(&[&other]);
        first.post(&[&key]);
        let value = format!("round {round}");
        let trip = posted(second.scope, &second.told, [set(&cache, &key, &value)]);
        let asynchronous = cache.asynchronous();
        asynchronous
            .send_blocking(&Context::default(), &trip)
            .unwrap();
        second.settle();
        first.settle();
        assert_eq!(direct.get(&key).unwrap(), Some(value));
    }
}

fn a_clear_follows_all_posts(stand: Stand) {
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
            page.settle();
            assert_eq!(direct.get::<String>(key).unwrap(), None);
        }
    }
}

fn nothing_is_posted_where_a_delete_is_owed(stand: Stand) {
    let (cache, direct) = (stand.cache(), stand.direct());
    let [key, other] = ["key", "other"].map(|name| stand.key(name));
    direct.set(&key, "stale").unwrap();
    let page = Page::of(&cache, &other);
    stand.fail(Fault::Refuse);
    // The idle connection is gone, and the breaker does not open at once.
    cache.delete(&key).unwrap();
    stand.recover();
    let dropped = page.post(&[&key]);
    assert!(matches!(dropped[..], [Reply::Failed(_)]), "{dropped:?}");
    cache.get::<String>(&other).unwrap();
    assert_eq!(direct.get::<String>(&key).unwrap(), None);
    page.post(&[&key]);
    page.settle();
    assert_eq!(direct.get(&key).unwrap(), Some(tagged(&key)));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// As whoever posts in a task does: begun at once, and left to another task.
fn post_by_a_task(
    cache: &Cache,
    runtime: &tokio::runtime::Runtime,
    trip: Trip,
) -> tokio::task::JoinHandle<Replies> {
    let cache = cache.asynchronous().clone();
    let mut sending = Box::pin(async move { cache.send(&Context::default(), &trip).await });
    // Outside of a runtime it gets no further than to be registered.
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
            let trip = posted(page.scope, &page.told, [set(&cache, &key, &value)]);
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
        page.settle();
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
        assert_eq!(page.told.count(), 0);
    }
}

fn what_a_task_posts_waits_for_nobody_on_its_own_connection(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, warm] = ["key", "warm"].map(|name| stand.key(name));
    let runtime = runtime();
    let asynchronous = cache.asynchronous().clone();
    runtime.block_on(asynchronous.get::<String>(&warm)).unwrap();
    let page = Page::of(&cache, &warm);
    stand.fail(Fault::Delay(LATE));
    for round in 0..20 {
        let trip = posted(page.scope, &page.told, [set(&cache, &key, &tagged(&key))]);
        let post = post_by_a_task(&cache, &runtime, trip);
        assert!(
            runtime.block_on(asynchronous.delete(&key)).unwrap(),
            "round {round}"
        );
        runtime.block_on(asynchronous.settle(Some(page.scope)));
        assert!(post.is_finished() || !runtime.block_on(post).unwrap().is_empty());
        assert_eq!(direct.get::<String>(&key).unwrap(), None, "round {round}");
    }
}

fn a_child_leaves_what_its_parent_posted_alone(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(20);
    let page = Page::of(&cache, &keys[0]);
    stand.fail(Fault::Delay(Duration::from_millis(50)));
    for key in &keys {
        page.post(&[key]);
    }
    let child = fork();
    if child == 0 {
        // The same scope, even: nothing of the parent's is used.
        let work = || {
            page.settle();
            let trip: Trip = [Op::Get {
                name: name(&cache, &keys[1]),
            }]
            .into_iter()
            .collect();
            let trip = trip.within(Some(page.scope));
            let sent = cache
                .asynchronous()
                .send_blocking(&Context::default(), &trip);
            assert!(sent.is_ok());
            cache.asynchronous().close_idle();
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        leave(i32::from(done.is_err()));
    }
    wait_for(child);
    page.settle();
    for key in &keys {
        assert_eq!(direct.get(key).unwrap(), Some(tagged(key)));
    }
    // Before a fork all is read.
    page.post(&[&keys[0]]);
    onetrip::close_all_idle();
    page.settle();
    assert_eq!(page.told.count(), 0);
}

#[expect(
    unsafe_code,
    reason = "no safe function forks; the child only does what is tested"
)]
fn fork() -> libc::pid_t {
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    pid
}

#[expect(
    unsafe_code,
    reason = "a plain call of the system, with memory of our own"
)]
fn wait_for(child: libc::pid_t) {
    let mut status = -1;
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child failed");
}

#[expect(unsafe_code, reason = "a plain call of the system")]
fn leave(status: i32) -> ! {
    unsafe { libc::_exit(status) }
}

/// Threads post and read, alone and in scopes that two of them share, while the network fails in
/// ways that end soon.
fn replies_to_posts_are_never_anothers(stand: Stand) {
    let keys = stand.keys(40);
    let shared = ScopeId::next();
    let told = Arc::new(Told::default());
    let done = std::sync::atomic::AtomicBool::new(false);
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
                let (cache, keys, told, found) = (&cache, &keys, &told, &found);
                threads.spawn(move || {
                    for round in 0..600 {
                        let scope = if reader < 2 { shared } else { ScopeId::next() };
                        let page = Page {
                            cache,
                            scope,
                            told: Arc::clone(told),
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
                            page.settle();
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
    assert!(found.load(Ordering::Relaxed) > 500, "{found:?}");
}

/// The slot of a posted write has moved: it is dropped, and the map is mended.
#[test]
fn a_post_to_a_node_that_has_given_up_the_slot_is_dropped() {
    let _turn = crate::turn::beside_others();
    let cluster = crate::cluster::Cluster::start();
    let cache = onetrip::Cache::open(cluster.url()).unwrap().blocking();
    let key = "{b}moved";
    let page = Page::of(&cache, key);
    let slot = cluster.slot(key);
    let owner = cluster.holder(key).port();
    let to = (0..3)
        .find(|nth| cluster.servers[*nth].port() != owner)
        .unwrap();
    cluster.move_slot(slot, to, || {});
    let sets = || -> u64 {
        let told = cluster.servers.iter().map(|server| {
            let told: String = server.ask(&["INFO", "commandstats"]);
            let line = told.lines().find(|line| line.starts_with("cmdstat_set:"));
            let calls = line.and_then(|line| {
                line.split([':', ','])
                    .nth(1)?
                    .strip_prefix("calls=")?
                    .parse()
                    .ok()
            });
            calls.unwrap_or(0)
        });
        told.sum()
    };
    let before = sets();
    assert!(are_posted(&page.post(&[key])));
    page.settle();
    assert_eq!(page.told.count(), 1, "{:?}", page.told.errors);
    assert!(page.told.errors.lock().unwrap()[0].contains("MOVED"));
    assert_eq!(sets(), before, "no node has carried it out");
    // Now it is known where.
    assert!(matches!(
        page.post(&[key])[..],
        [Reply::Posted | Reply::Done]
    ));
    page.settle();
    assert_eq!(page.told.count(), 1, "{:?}", page.told.errors);
    assert_eq!(cache.get(key).unwrap(), Some(tagged(key)));
}

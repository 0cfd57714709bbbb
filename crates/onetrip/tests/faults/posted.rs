//! Law 3: posts are not waited for, arrive, and are never sent again.

use std::time::{Duration, Instant};

use onetrip::internals::Context;
use onetrip::trip::{Op, Reply, Trip};

use crate::eventually;
use crate::page::{Page, are_posted, name, tagged};
use crate::proxy::Fault;
use crate::stand::{Stand, TRIP_TIMEOUT};

on_every_server!(
    post_arrives_without_waiting,
    trip_reads_the_replies_to_posts_with_its_own,
    many_posts_in_a_row_all_arrive,
    last_post_arrives_when_the_cache_is_dropped,
    lost_post_is_reported_and_not_sent_again,
    hung_server_costs_all_posts_one_timeout;
    alone: forked_child_ignores_posts_of_its_parent, forgotten_scope_keeps_no_connection,
);

fn post_arrives_without_waiting(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(3);
    let page = Page::of(&cache, &keys[0]);
    let delay = Duration::from_millis(500);
    stand.fail(Fault::Delay(delay));
    let began = Instant::now();
    assert!(are_posted(&page.post(&[&keys[0], &keys[1]])));
    assert!(are_posted(&page.post(&[&keys[2]])));
    assert!(began.elapsed() < delay, "{:?}", began.elapsed());
    // The first two only, since the proxy holds back the rest with the reply.
    for key in &keys[..2] {
        eventually("a post arrives", || {
            direct.get(key).unwrap() == Some(tagged(key))
        });
    }
    page.drain();
    assert_eq!(direct.get(&keys[2]).unwrap(), Some(tagged(&keys[2])));
    assert_eq!(page.late.count(), 0);
}

fn trip_reads_the_replies_to_posts_with_its_own(stand: Stand) {
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
    // All on one connection, without other requests.
    assert_eq!(stand.proxy.connections(), connections);
    assert!(stand.proxy.requests() - requests <= 15);
    // HTTP calls and operations of several steps get their own answers, too.
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
    assert_eq!(page.late.count(), 0);
}

const MANY: usize = 2_000;

fn many_posts_in_a_row_all_arrive(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(MANY);
    let page = Page::of(&cache, &keys[0]);
    for key in &keys {
        assert!(are_posted(&page.post(&[key])));
    }
    page.drain();
    cache.asynchronous().close_idle();
    let found = direct.get_many::<String, _>(&keys).unwrap();
    let lost = found.iter().filter(|value| value.is_none()).count();
    assert_eq!((lost, page.late.count()), (0, 0));
}

fn last_post_arrives_when_the_cache_is_dropped(stand: Stand) {
    let direct = stand.direct();
    let keys = stand.keys(MANY);
    let late = {
        let cache = stand.patient();
        let page = Page::of(&cache, &keys[0]);
        for key in &keys {
            page.post(&[key]);
        }
        page.late
    };
    let found = direct.get_many::<String, _>(&keys).unwrap();
    let lost = found.iter().filter(|value| value.is_none()).count();
    assert_eq!((lost, late.count()), (0, 0));
}

fn lost_post_is_reported_and_not_sent_again(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let [key, other] = ["key", "other"].map(|name| stand.key(name));
    direct.set(&other, "other").unwrap();
    let page = Page::of(&cache, &key);
    // The post never arrives.
    stand.fail(Fault::Hang);
    let requests = stand.proxy.requests();
    assert!(are_posted(&page.post(&[&key])));
    eventually("the post is sent", || stand.proxy.requests() > requests);
    stand.proxy.close_all();
    assert!(page.get(&other).is_some(), "the next trip works");
    assert_eq!(page.late.count(), 1, "{:?}", page.late.errors);
    assert_eq!(direct.get::<String>(&key).unwrap(), None);
    // Also if no trip of its scope follows.
    for drains in [true, false] {
        page.get(&other);
        stand.fail(Fault::Hang);
        let (requests, before) = (stand.proxy.requests(), page.late.count());
        assert!(are_posted(&page.post(&[&key])));
        eventually("the post is sent", || stand.proxy.requests() > requests);
        stand.proxy.close_all();
        if drains {
            page.drain();
        } else {
            assert_eq!(cache.get::<String>(&key).unwrap(), None);
        }
        assert_eq!(page.late.count() - before, 1);
        assert_eq!(direct.get::<String>(&key).unwrap(), None);
    }
}

fn hung_server_costs_all_posts_one_timeout(stand: Stand) {
    let cache = stand.cache();
    let keys = stand.keys(60);
    let pages = [0, 1].map(|_| Page::of(&cache, &keys[0]));
    // Each has its own connection.
    pages[0].post(&[&keys[58]]);
    assert!(pages[1].get(&keys[59]).is_none());
    stand.fail(Fault::Hang);
    let began = Instant::now();
    for (nth, key) in keys[..50].iter().enumerate() {
        assert!(are_posted(&pages[nth % 2].post(&[key])));
    }
    assert!(began.elapsed() < TRIP_TIMEOUT, "{:?}", began.elapsed());
    for page in &pages {
        page.drain();
    }
    let refused = pages[0].post(&[&keys[50]]);
    assert!(matches!(refused[..], [Reply::Failed(_)]), "{refused:?}");
    for key in &keys[51..58] {
        assert_eq!(cache.get::<String>(key).unwrap(), None);
    }
    let took = began.elapsed();
    assert!(took < TRIP_TIMEOUT * 3 / 2, "{took:?}");
    let late: usize = pages.iter().map(|page| page.late.count()).sum();
    // One was answered before; it counts together with the posts after it on its connection.
    assert_eq!(late, 51);
    stand.recover();
    assert!(cache.get::<String>(&keys[50]).unwrap().is_none());
    assert!(pages[0].get(&keys[51]).is_none());
}

fn forgotten_scope_keeps_no_connection(stand: Stand) {
    let cache = stand.cache();
    let keys = stand.keys(2);
    Page::of(&cache, &keys[0]).post(&[&keys[0]]);
    let before = stand.proxy.connections();
    std::thread::sleep(TRIP_TIMEOUT + Duration::from_millis(100));
    // The next caller reads the replies left unread, and takes over the connection.
    for _ in 0..3 {
        assert!(cache.get::<String>(&keys[1]).unwrap().is_none());
    }
    assert_eq!(stand.proxy.connections(), before);
}

fn forked_child_ignores_posts_of_its_parent(stand: Stand) {
    let (cache, direct) = (stand.patient(), stand.direct());
    let keys = stand.keys(20);
    let page = Page::of(&cache, &keys[0]);
    stand.fail(Fault::Delay(Duration::from_millis(50)));
    for key in &keys {
        page.post(&[key]);
    }
    let child = fork();
    if child == 0 {
        // The same scope id, too: the child uses nothing of the parent's.
        let work = || {
            page.drain();
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
    page.drain();
    for key in &keys {
        assert_eq!(direct.get(key).unwrap(), Some(tagged(key)));
    }
    // All replies are read before a fork.
    page.post(&[&keys[0]]);
    onetrip::internals::close_all_idle();
    page.drain();
    assert_eq!(page.late.count(), 0);
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

/// The slot of a posted write has moved: the write is dropped, and the slot map is corrected.
#[test]
fn post_to_a_node_without_the_slot_is_dropped() {
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
        let counts = cluster.servers.iter().map(|server| {
            let info: String = server.ask(&["INFO", "commandstats"]);
            let line = info.lines().find(|line| line.starts_with("cmdstat_set:"));
            let calls = line.and_then(|line| {
                line.split([':', ','])
                    .nth(1)?
                    .strip_prefix("calls=")?
                    .parse()
                    .ok()
            });
            calls.unwrap_or(0)
        });
        counts.sum()
    };
    let before = sets();
    assert!(are_posted(&page.post(&[key])));
    page.drain();
    assert_eq!(page.late.count(), 1, "{:?}", page.late.errors);
    assert!(page.late.errors.lock().unwrap()[0].contains("MOVED"));
    assert_eq!(sets(), before, "no node has carried it out");
    // Now the new node is known.
    assert!(matches!(
        page.post(&[key])[..],
        [Reply::Posted | Reply::Done]
    ));
    page.drain();
    assert_eq!(page.late.count(), 1, "{:?}", page.late.errors);
    assert_eq!(cache.get(key).unwrap(), Some(tagged(key)));
}

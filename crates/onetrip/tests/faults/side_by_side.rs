//! Law 2 for stores of several servers: one trip to each, in parallel. All servers are asked before
//! the first one answers; here none does.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{OnError, Ttl};

use crate::cluster::Cluster;
use crate::eventually;
use crate::memcached::Memcached;
use crate::proxy::{Fault, Proxy};

fn assert_asked_in_parallel(url: &str, proxies: &[Proxy]) {
    let patience = Duration::from_secs(60);
    let builder = onetrip::Cache::builder(url)
        .on_error(OnError::Raise)
        .connect_timeout(patience)
        .trip_timeout(patience);
    let cache: Cache = builder.build().unwrap().blocking();
    let keys: Vec<String> = (0..60).map(|number| format!("key:{number}")).collect();
    cache
        .set_many(keys.iter().map(|key| (key, 1)), Ttl::Never)
        .unwrap();
    let requests = || proxies.iter().map(Proxy::requests).collect::<Vec<_>>();
    let before = requests();
    for proxy in proxies {
        proxy.fail(Fault::Hang);
    }
    std::thread::scope(|threads| {
        let page = threads.spawn(|| {
            let page = || cache.get_many::<i64, _>(&keys);
            cache.preload(&keys, page).unwrap()
        });
        let once: Vec<usize> = before.iter().map(|count| count + 1).collect();
        eventually("a request to each server", || requests() == once);
        assert!(!page.is_finished(), "nobody has answered");
        for proxy in proxies {
            proxy.close_all();
        }
        assert_eq!(page.join().unwrap(), vec![Some(1); 60]);
    });
}

#[test]
fn cluster_nodes_are_asked_in_parallel() {
    let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::to(0)).collect();
    let cluster = Cluster::behind(|number, _| proxies[number].port());
    for (proxy, server) in proxies.iter().zip(&cluster.servers) {
        proxy.redirect(server.port());
    }
    let url = format!("redis+cluster://127.0.0.1:{}", proxies[0].port());
    assert_asked_in_parallel(&url, &proxies);
}

#[test]
fn memcached_servers_are_asked_in_parallel() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start(&[])).collect();
    let proxies: Vec<Proxy> = servers
        .iter()
        .map(|server| Proxy::to(server.port()))
        .collect();
    let hosts: Vec<String> = proxies
        .iter()
        .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
        .collect();
    assert_asked_in_parallel(&format!("memcached://{}", hosts.join(",")), &proxies);
}

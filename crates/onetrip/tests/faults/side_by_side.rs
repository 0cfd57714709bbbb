//! Law 2, of a store of several servers: one trip to each, side by side. All of them have been
//! asked before the first one answers, which here none does.

use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{OnError, Ttl};

use crate::cluster::Cluster;
use crate::eventually;
use crate::memcached::Memcached;
use crate::proxy::{Fault, Proxy};

fn are_asked_side_by_side(url: &str, proxies: &[Proxy]) {
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
            cache.preload(&keys, page).unwrap().unwrap()
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
fn the_nodes_of_a_cluster() {
    let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::to(0)).collect();
    let cluster = Cluster::behind(|number, _| proxies[number].port());
    for (proxy, server) in proxies.iter().zip(&cluster.servers) {
        proxy.redirect(server.port());
    }
    let url = format!("redis+cluster://127.0.0.1:{}", proxies[0].port());
    are_asked_side_by_side(&url, &proxies);
}

#[test]
fn the_servers_of_a_ring() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start(&[])).collect();
    let proxies: Vec<Proxy> = servers
        .iter()
        .map(|server| Proxy::to(server.port()))
        .collect();
    let hosts: Vec<String> = proxies
        .iter()
        .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
        .collect();
    are_asked_side_by_side(&format!("memcached://{}", hosts.join(",")), &proxies);
}

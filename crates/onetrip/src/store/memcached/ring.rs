//! Which server has which key: ketama, point for point as libmemcached has it.
//!
//! Other clients then find our entries, and we theirs, wherever they use libmemcached's weighted
//! ketama with all weights equal (`MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`; `pylibmc` calls it
//! `ketama_weighted`). Taking one server out moves the keys of that one alone.

use md5::{Digest, Md5};

/// Of the servers' default port; left out of the names that points are made from.
pub(super) const DEFAULT_PORT: u16 = 11211;

/// Points of one server, before rounding.
const POINTS: u16 = 160;

/// Points that one digest gives.
const POINTS_PER_HASH: u16 = 4;

/// The points of all servers on a circle of 32 bits. A key belongs to the next one.
#[derive(Debug)]
pub(super) struct Ring {
    /// Each point and the index of its server, in ascending order.
    points: Vec<(u32, usize)>,
}

impl Ring {
    /// The ring of these servers, which are at most 65,535.
    pub(super) fn new(servers: &[(String, u16)]) -> Self {
        let hashes = hashes(servers.len());
        let mut points: Vec<_> = servers
            .iter()
            .enumerate()
            .flat_map(|(index, (host, port))| {
                let host = match *port {
                    DEFAULT_PORT => host.clone(),
                    port => format!("{host}:{port}"),
                };
                (0..hashes).flat_map(move |hash| {
                    words(format!("{host}-{hash}").as_bytes()).map(|point| (point, index))
                })
            })
            .collect();
        points.sort_unstable();
        Self { points }
    }

    /// The index of the server that has `key`.
    pub(super) fn server(&self, key: &[u8]) -> usize {
        let [hash, ..] = words(key);
        let next = self.points.partition_point(|(point, _)| *point < hash);
        let point = self.points.get(next).or_else(|| self.points.first());
        point.map_or(0, |(_, server)| *server)
    }
}

/// Digests of each of so many servers. libmemcached reckons in floats, where 160 points of a
/// server may come out as 159.99999 and are then 156; so that is how it is reckoned here.
fn hashes(servers: usize) -> u32 {
    let servers = f32::from(u16::try_from(servers).unwrap_or(u16::MAX));
    let share = 1.0 / servers;
    let exact = share * f32::from(POINTS) / f32::from(POINTS_PER_HASH) * servers;
    let nudged = (f64::from(exact) + 0.000_000_000_1) as f32;
    nudged.floor() as u32
}

/// The four words of a text's digest, least significant byte first.
fn words(text: &[u8]) -> [u32; 4] {
    let digest = u128::from_le_bytes(Md5::digest(text).into());
    [0, 32, 64, 96].map(|bits| (digest >> bits) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libmemcached 1.1.4 answers (`memcached_generate_hash` under
    /// `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`): a line for each set of servers, and the index of the
    /// server of each of `key:0`, `key:1`, …
    const REFERENCE: &str = include_str!("ketama.txt");

    #[test]
    fn every_key_is_where_libmemcached_has_it() {
        for line in REFERENCE.lines() {
            let (servers, expected) = line.split_once(" = ").unwrap();
            let servers: Vec<_> = servers
                .split(' ')
                .map(|server| server.rsplit_once(':').unwrap())
                .map(|(host, port)| (host.to_owned(), port.parse().unwrap()))
                .collect();
            let ring = Ring::new(&servers);
            for (number, expected) in expected.split(' ').enumerate() {
                let found = ring.server(format!("key:{number}").as_bytes());
                assert_eq!(
                    found,
                    expected.parse::<usize>().unwrap(),
                    "key:{number} of {servers:?}"
                );
            }
        }
    }

    #[test]
    fn floats_are_rounded_as_libmemcached_rounds_them() {
        assert_eq!((hashes(1), hashes(2), hashes(25)), (40, 40, 39));
    }

    #[test]
    fn a_server_less_moves_its_own_keys_alone() {
        let servers: Vec<_> = (1..=4)
            .map(|host| (format!("10.0.0.{host}"), 11211))
            .collect();
        let (all, fewer) = (Ring::new(&servers), Ring::new(&servers[..3]));
        for number in 0..1000 {
            let key = number.to_string();
            let server = all.server(key.as_bytes());
            assert!(server == 3 || server == fewer.server(key.as_bytes()));
        }
    }
}

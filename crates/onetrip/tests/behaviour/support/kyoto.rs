//! The Kyoto Tycoon server that `KT_URL` names, and the ttl of its entries.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Its URL.
pub(crate) const URL: &str = env!("KT_URL");

/// Returns a number that no other run of the suite has.
pub(crate) fn run() -> u128 {
    static RUN: LazyLock<u128> = LazyLock::new(|| now().as_nanos());
    *RUN
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("now")
}

/// Returns the remaining ttl of the entry called `name`; `None` if it never expires.
pub(crate) fn left(name: &str) -> Option<Duration> {
    let path = URL.strip_prefix("kt://").expect("kt://host:port/database");
    let (address, db) = path.split_once('/').unwrap_or((path, "0"));
    let key: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let request = format!("GET /rpc/check?DB={db}&key={key} HTTP/1.1\r\nConnection: close\r\n\r\n");
    let mut server = TcpStream::connect(address).expect("the server runs");
    server.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    server.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let expires = answer.lines().find_map(|line| line.strip_prefix("xt\t"))?;
    let expires = Duration::from_secs(expires.parse().expect("seconds"));
    Some(expires.saturating_sub(now()))
}

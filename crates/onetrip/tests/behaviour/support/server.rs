//! A real `redis-server`, on a free port and a Unix socket, that surely stops.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue};

/// Starts the server and waits for the end of its own input, which comes when the test process
/// ends in whatever way; then stops the server and tidies up.
const KEEPER: &str = r#"
    trap : INT TERM
    redis-server --bind 127.0.0.1 --port "$1" --unixsocket "$2/redis.sock" --dir "$2" \
        --save '' --appendonly no --daemonize no </dev/null >"$2/log" 2>&1 &
    while read -r _; do :; done
    kill "$!"
    wait "$!"
    rm -rf "$2"
"#;

/// What connecting asks of a server, and what reading the counters does.
const OWN_COMMANDS: &[&str] = &[
    "client|setinfo",
    "config|resetstat",
    "info",
    "ping",
    "select",
];

/// A server with a folder of its own.
#[derive(Debug)]
pub(crate) struct Server {
    keeper: Child,
    port: u16,
    folder: PathBuf,
}

/// The server that all tests of this process share, each under its own prefix.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        let found = Command::new("redis-server").arg("--version").output();
        assert!(
            found.is_ok(),
            "redis-server is not installed; run `make test`, which installs it"
        );
        // Another process may take the port between finding it and using it: look for a new one.
        for _ in 0..10 {
            if let Some(server) = Self::start_on(free_port()) {
                return server;
            }
        }
        panic!("redis-server does not start on any port of 127.0.0.1");
    }

    fn start_on(port: u16) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("onetrip-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the server");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "redis-keeper", &port.to_string()])
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let server = Self {
            keeper,
            port,
            folder,
        };
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let answers = |url: String| {
                let connection = Client::open(url).and_then(|client| client.get_connection());
                connection
                    .is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
            };
            // The socket's folder is this server's alone; a port might be answered by another.
            if answers(server.socket_url()) {
                return Some(server);
            }
            let log = std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            if log.contains("Failed listening") {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "redis-server does not answer; its log is in {:?}",
            server.folder
        );
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn socket_url(&self) -> String {
        format!("redis+unix://{}/redis.sock", self.folder.display())
    }

    fn connection(&self) -> Connection {
        let client = Client::open(self.socket_url()).expect("a URL");
        client.get_connection().expect("the server runs")
    }

    /// The server's answer to a command.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()).expect("an answer")
    }

    /// How long the entry called `name` lives yet; `None` if for ever.
    pub(crate) fn milliseconds_left(&self, name: &str) -> Option<Duration> {
        let left: i64 = self.ask(&["PTTL", name]);
        assert_ne!(left, -2, "there is no entry");
        u64::try_from(left).ok().map(Duration::from_millis)
    }

    /// Forgets what was counted.
    pub(crate) fn reset(&self) {
        let _: () = self.ask(&["CONFIG", "RESETSTAT"]);
    }

    /// How often the server was asked what since the last [`reset`](Self::reset), by its own count.
    pub(crate) fn asked(&self) -> BTreeMap<String, u64> {
        let text: String = self.ask(&["INFO", "commandstats"]);
        text.lines()
            .filter_map(|line| {
                let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                let (calls, _) = rest.split_once(',')?;
                let counts = !OWN_COMMANDS.contains(&command);
                counts.then(|| (command.to_owned(), calls.parse().expect("a number")))
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A port of 127.0.0.1 that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

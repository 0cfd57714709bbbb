//! A real `redis-server`, on a free port and a Unix socket, that reliably stops.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{Client, FromRedisValue};

/// Starts the server and waits for the end of its own input, which comes when the test process ends
/// in any way. Then stops the server and tidies up.
const KEEPER: &str = r#"
    trap : INT TERM
    folder="$1"
    shift
    # By its whole name, by which it can restart.
    "$(command -v redis-server)" "$@" </dev/null >"$folder/log" 2>&1 &
    while read -r _; do :; done
    exec 2>/dev/null
    kill -KILL "$!"
    wait "$!"
    rm -rf "$folder"
"#;

/// Commands of connecting and of reading the counters.
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

/// Returns the server that all tests of this process share, each under its own prefix.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a sentinel with this configuration.
    pub(crate) fn start_sentinel(configuration: &str) -> Self {
        Self::start_as(Some(configuration), &[])
    }

    /// Starts a server with these options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_as(None, options)
    }

    fn start_as(sentinel: Option<&str>, options: &[&str]) -> Self {
        let found = Command::new("redis-server").arg("--version").output();
        assert!(
            found.is_ok(),
            "redis-server is not installed; run `make test`, which installs it"
        );
        // Another process may take the port before it is used: try again with a new one.
        for _ in 0..10 {
            if let Some(server) = Self::start_on(free_port(), sentinel, options) {
                return server;
            }
        }
        panic!("redis-server does not start on any port of 127.0.0.1");
    }

    fn start_on(port: u16, sentinel: Option<&str>, options: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("onetrip-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the server");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "redis-keeper"]).arg(&folder);
        if let Some(configuration) = sentinel {
            let file = folder.join("sentinel.conf");
            std::fs::write(&file, configuration).expect("a file");
            keeper.arg(file).arg("--sentinel");
        }
        keeper
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .arg("--unixsocket")
            .arg(folder.join("redis.sock"))
            .arg("--dir")
            .arg(&folder)
            .args(options)
            .stdin(Stdio::piped());
        let keeper = keeper.spawn().expect("a shell");
        let server = Self {
            keeper,
            port,
            folder,
        };
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let answers = |url: String| {
                let connection = Client::open(url).and_then(|client| client.get_connection());
                let answer =
                    connection.and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
                // A server that asks for a password is up, too.
                answer.map_or_else(|error| error.code() == Some("NOAUTH"), |()| true)
            };
            // The folder of the socket is unique to this server; another process might answer on
            // the port.
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

    /// Returns the server's answer to a command.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).expect("an answer")
    }

    /// Returns the server's answer to a command, or the error.
    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let client = Client::open(self.socket_url())?;
        command.query(&mut client.get_connection()?)
    }

    /// Returns the number after `name:` in the server's INFO.
    pub(crate) fn info(&self, name: &str) -> u64 {
        let text: String = self.ask(&["INFO"]);
        let number = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            rest.parse().ok()
        });
        number.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Sends a signal such as `KILL`, `STOP` or `CONT` to the process `pid` of a server.
    pub(crate) fn signal(pid: u64, signal: &str) {
        let pid = pid.to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -$0 $1", signal, &pid]);
        assert!(kill.status().expect("a shell").success());
    }

    /// Returns the remaining ttl of the entry called `name`; `None` if it never expires.
    pub(crate) fn milliseconds_left(&self, name: &str) -> Option<Duration> {
        let left: i64 = self.ask(&["PTTL", name]);
        assert_ne!(left, -2, "there is no entry");
        u64::try_from(left).ok().map(Duration::from_millis)
    }

    /// Resets the command counters.
    pub(crate) fn reset(&self) {
        let _: () = self.ask(&["CONFIG", "RESETSTAT"]);
    }

    /// Returns how often the server got each command since the last [`reset`](Self::reset).
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

/// Returns an unused port of 127.0.0.1 that leaves room for a cluster node's second port, which is
/// 10 000 higher.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        if port < 55_535 {
            return port;
        }
    }
}

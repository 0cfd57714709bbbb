//! Real `memcached` servers, on free ports or a Unix socket, that reliably stop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Starts the server and waits for the end of its own input, which comes when the test process ends
/// in any way. Then stops the server and tidies up.
const KEEPER: &str = r#"
    trap : INT TERM
    folder="$1"; shift
    memcached -u "$(id -un)" -U 0 "$@" </dev/null >"$folder/log" 2>&1 &
    echo "$!" >"$folder/pid.new" && mv "$folder/pid.new" "$folder/pid"
    while read -r _; do :; done
    kill "$!"
    wait "$!"
    rm -rf "$folder"
"#;

/// A server with a folder of its own.
#[derive(Debug)]
pub(crate) struct Memcached {
    keeper: Child,
    folder: PathBuf,
    /// `None` on a socket, which is in the folder.
    port: Option<u16>,
}

/// How long an entry still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    ForEver,
    Seconds(u64),
}

/// Returns the servers that all tests of this process share, each under its own prefix.
fn shared(number: usize) -> &'static Memcached {
    static SHARED: [OnceLock<Memcached>; 3] = [const { OnceLock::new() }; 3];
    SHARED[number].get_or_init(|| match number {
        2 => Memcached::start_on_socket(),
        _ => Memcached::start(&[]),
    })
}

pub(crate) fn one() -> &'static Memcached {
    shared(0)
}

pub(crate) fn on_socket() -> &'static Memcached {
    shared(2)
}

/// Returns the URL of two servers that share the keys.
pub(crate) fn two() -> String {
    let [one, other] = [0, 1].map(|number| shared(number).port());
    format!("memcached://127.0.0.1:{one},127.0.0.1:{other}")
}

/// Returns the shared servers that a URL names.
pub(crate) fn shared_by(url: &str) -> Vec<&'static Memcached> {
    match url {
        url if url.starts_with("memcached+unix") => vec![shared(2)],
        url if url.contains(',') => vec![shared(0), shared(1)],
        _ => vec![shared(0)],
    }
}

/// Returns whether `span` ends after 2038, the limit of the protocol's times.
pub(crate) fn outlives(span: Duration) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    now.saturating_add(span) > Duration::from_secs(i32::MAX as u64)
}

impl Memcached {
    /// Starts a server on a free port and waits until it answers.
    pub(crate) fn start(options: &[&str]) -> Self {
        // Another process may take the port before it is used: try again with a new one.
        for _ in 0..10 {
            if let Some(server) = Self::start_at(Some(free_port()), options) {
                return server;
            }
        }
        panic!("memcached does not start on any port of 127.0.0.1");
    }

    /// Starts a server on this port.
    pub(crate) fn start_on(port: u16) -> Self {
        Self::start_at(Some(port), &[]).expect("the port is free again")
    }

    pub(crate) fn start_on_socket() -> Self {
        Self::start_at(None, &[]).expect("nobody else uses the socket")
    }

    fn start_at(port: Option<u16>, options: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onetrip-memcached-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the server");
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER, "memcached-keeper"])
            .arg(&folder);
        match port {
            Some(port) => command.args(["-l", "127.0.0.1", "-p", &port.to_string()]),
            None => command.arg("-s").arg(folder.join("socket")),
        };
        command.args(["-t", "2", "-m", "256", "-I", "16m"]);
        let keeper = command.args(options).stdin(Stdio::piped()).spawn();
        let server = Self {
            keeper: keeper.expect("a shell"),
            folder,
            port,
        };
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            // Another process might answer on the port.
            let pid = std::fs::read_to_string(server.folder.join("pid")).unwrap_or_default();
            if !pid.is_empty() && server.pid().is_some_and(|answers| answers == pid.trim()) {
                return Some(server);
            }
            let log = std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            assert!(
                !log.contains("not found"),
                "memcached is not installed; run `make test`, which installs it"
            );
            if log.contains("failed to listen") {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "memcached does not answer; its log is in {:?}",
            server.folder
        );
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.expect("it listens on a port")
    }

    pub(crate) fn url(&self) -> String {
        match self.port {
            Some(port) => format!("memcached://127.0.0.1:{port}"),
            None => format!("memcached+unix://{}/socket", self.folder.display()),
        }
    }

    /// Returns the lines of the server's answer to `question`, up to the line that begins with
    /// `last`.
    pub(crate) fn ask(&self, question: &str, last: &str) -> Option<Vec<String>> {
        let (mut writer, reader): (Box<dyn Write>, Box<dyn Read>) = match self.port {
            Some(port) => {
                let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
                (Box::new(stream.try_clone().ok()?), Box::new(stream))
            }
            None => {
                let stream = UnixStream::connect(self.folder.join("socket")).ok()?;
                (Box::new(stream.try_clone().ok()?), Box::new(stream))
            }
        };
        write!(writer, "{question}\r\n").ok()?;
        let mut lines = Vec::new();
        for line in BufReader::new(reader).lines() {
            let line = line.ok()?;
            if line.starts_with(last) {
                return Some(lines);
            }
            lines.push(line);
        }
        None
    }

    fn pid(&self) -> Option<String> {
        let lines = self.ask("stats", "END")?;
        let pid = lines.iter().find_map(|line| line.strip_prefix("STAT pid "));
        pid.map(str::to_owned)
    }

    /// Returns how long the entry called `name` still lives; `None` if there is none.
    pub(crate) fn life(&self, name: &str) -> Option<Life> {
        let lines = self
            .ask(&format!("mg {name} t\r\nmn"), "MN")
            .expect("an answer");
        let left = lines[0].strip_prefix("HD t")?;
        Some(left.parse().map_or(Life::ForEver, Life::Seconds))
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Returns an unused port of 127.0.0.1.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

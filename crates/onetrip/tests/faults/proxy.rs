//! A proxy between a client and a real server that makes the network fail in a chosen way.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Bytes that no client sends. They are not counted.
const PROBE: &[u8] = b"\0probe";

/// How the network fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all: the proxy is transparent.
    None,
    /// Connections are refused.
    Refuse,
    /// Connections and requests are accepted and never answered.
    Hang,
    /// Each reply is delayed.
    Delay(Duration),
    /// The connection is closed after this many bytes of replies, as by the server.
    Cut(usize),
    /// The connection is reset after this many bytes of replies.
    Reset(usize),
    /// Replies are replaced by meaningless bytes.
    Garbage,
}

/// A proxy on its own port, until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Keeps the tasks alive; dropping it ends them.
    _runtime: Runtime,
}

struct Shared {
    /// The current fault, and how many times all open connections had to end.
    fault: watch::Sender<(Fault, usize)>,
    upstream: Mutex<SocketAddr>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    probes: AtomicUsize,
    replied: AtomicUsize,
}

impl Proxy {
    pub(crate) fn to(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (fault, mut faults) = watch::channel((Fault::None, 0));
        let shared = Arc::new(Shared {
            fault,
            upstream: Mutex::new(SocketAddr::from(([127, 0, 0, 1], port))),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            replied: AtomicUsize::new(0),
        });
        let first = runtime.block_on(async { listen(SocketAddr::from(([127, 0, 0, 1], 0))) });
        let address = first.local_addr().unwrap();
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            let mut listener = Some(first);
            loop {
                if faults.borrow_and_update().0 == Fault::Refuse {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(listen(address));
                }
                tokio::select! {
                    _ = faults.changed() => {}
                    Ok((client, _)) = accept(listener.as_ref()) => {
                        tokio::spawn(serve(Arc::clone(&accepting), client));
                    }
                }
            }
        });
        Self {
            address,
            shared,
            _runtime: runtime,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Makes the network fail like this from now on, on open connections too.
    pub(crate) fn fail(&self, fault: Fault) {
        self.change(fault, matches!(fault, Fault::Refuse | Fault::Cut(0)));
    }

    fn change(&self, fault: Fault, end_all: bool) {
        self.shared.replied.store(0, Ordering::SeqCst);
        self.shared.fault.send_modify(|(now, endings)| {
            *now = fault;
            *endings += usize::from(end_all);
        });
        // A task opens and closes the listener, while other threads connect.
        let open = || std::net::TcpStream::connect(self.address).is_ok();
        while open() == (fault == Fault::Refuse) {
            std::thread::yield_now();
        }
    }

    /// Sends requests to another server from now on, and ends open connections.
    pub(crate) fn redirect(&self, port: u16) {
        *self.shared.upstream.lock().unwrap() = SocketAddr::from(([127, 0, 0, 1], port));
        self.close_all();
    }

    /// Closes all open connections, as a server does with idle ones. Nothing fails after that.
    pub(crate) fn close_all(&self) {
        self.change(Fault::None, true);
    }

    /// Returns the number of connections on which a client has sent something.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns how many times a client has sent something until now.
    pub(crate) fn requests(&self) -> usize {
        // On a busy machine the proxy's task sees requests late; a probe comes after them.
        let before = self.shared.probes.load(Ordering::SeqCst);
        if let Ok(mut probe) = std::net::TcpStream::connect(self.address) {
            probe.write_all(PROBE).unwrap();
            while self.shared.probes.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
        }
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Returns how many bytes of replies have passed since the fault was chosen.
    pub(crate) fn replied(&self) -> usize {
        self.shared.replied.load(Ordering::SeqCst)
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Overwrites bytes but keeps line ends: a client that waits for one would wait long.
fn spoil(bytes: &mut [u8]) {
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = match place % 8 {
            7 => b'\n',
            _ => byte.wrapping_mul(31) ^ 0xA5,
        };
    }
}

/// Forwards one connection, until either side or a fault ends it.
async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    // Subscribe before reading the address: a redirect ends connections to the old address.
    let mut faults = shared.fault.subscribe();
    let (_, born) = *faults.borrow();
    let upstream = *shared.upstream.lock().unwrap();
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut is_used = false;
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (fault, endings) = *faults.borrow_and_update();
        if endings != born {
            return;
        }
        tokio::select! {
            biased;
            _ = faults.changed() => {}
            Ok(length) = client.read(&mut request) => {
                if length == 0 {
                    return;
                }
                if &request[..length] == PROBE {
                    shared.probes.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                shared.requests.fetch_add(1, Ordering::SeqCst);
                if !std::mem::replace(&mut is_used, true) {
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                }
                if fault == Fault::Hang {
                    continue;
                }
                if server.write_all(&request[..length]).await.is_err() {
                    return;
                }
            }
            Ok(length) = server.read(&mut reply) => {
                if length == 0 {
                    return;
                }
                let bytes = &mut reply[..length];
                let passed = shared.replied.fetch_add(length, Ordering::SeqCst);
                match fault {
                    Fault::Hang => continue,
                    Fault::Delay(span) => tokio::time::sleep(span).await,
                    Fault::Garbage => spoil(bytes),
                    Fault::Cut(after) | Fault::Reset(after) if passed + length > after => {
                        let _ = client.write_all(&bytes[..after.saturating_sub(passed)]).await;
                        if matches!(fault, Fault::Reset(_)) {
                            let _ = client.set_zero_linger();
                        }
                        return;
                    }
                    _ => {}
                }
                if client.write_all(bytes).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

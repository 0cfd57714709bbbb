//! A proxy between a client and a real server that makes the network fail in a chosen way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to the replies of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the proxy is not noticed.
    None,
    /// Connections are refused.
    Refuse,
    /// Connections are accepted, requests taken, and nothing is ever answered.
    Hang,
    /// Each reply comes so much later.
    Delay(Duration),
    /// After so many bytes of replies the connection ends, as if the server had closed it.
    Cut(usize),
    /// After so many bytes of replies the connection is reset.
    Reset(usize),
    /// Replies are replaced by bytes of no meaning.
    Garbage,
}

/// A proxy on a port of its own, until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Kept for its tasks; dropping it ends them.
    _runtime: Runtime,
}

struct Shared {
    /// What fails, and how many times all connections that were open had to end.
    fault: watch::Sender<(Fault, usize)>,
    upstream: Mutex<SocketAddr>,
    connections: AtomicUsize,
    requests: AtomicUsize,
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

    /// From now on, for connections that are open as well, the network fails like this.
    pub(crate) fn fail(&self, fault: Fault) {
        self.shared.replied.store(0, Ordering::SeqCst);
        self.shared.fault.send_modify(|(now, endings)| {
            *now = fault;
            *endings += usize::from(matches!(fault, Fault::Refuse | Fault::Cut(0)));
        });
        // The listener is opened and closed by a task, and those who connect are other threads.
        let open = || std::net::TcpStream::connect(self.address).is_ok();
        while open() == (fault == Fault::Refuse) {
            std::thread::yield_now();
        }
    }

    /// From now on requests go to another server, and open connections end.
    pub(crate) fn redirect(&self, port: u16) {
        *self.shared.upstream.lock().unwrap() = SocketAddr::from(([127, 0, 0, 1], port));
        self.close_all();
    }

    /// Ends all open connections, as a server does with idle ones.
    pub(crate) fn close_all(&self) {
        self.fail(Fault::Cut(0));
        self.fail(Fault::None);
    }

    /// How many connections a client has sent something on.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many times a client has sent something.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many bytes of replies have passed since the fault was chosen.
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

/// Leaves nothing of bytes but their number. Where lines end, one does: a client that waits for an
/// end would wait for long.
fn spoil(bytes: &mut [u8]) {
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = match place % 8 {
            7 => b'\n',
            _ => byte.wrapping_mul(31) ^ 0xA5,
        };
    }
}

/// Carries one connection, until either end or a fault ends it.
async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    let upstream = *shared.upstream.lock().unwrap();
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut faults = shared.fault.subscribe();
    let (_, born) = *faults.borrow();
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

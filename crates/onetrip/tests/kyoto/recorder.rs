//! A proxy in front of a real server that records what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::recording::{Recording, Step};

/// A recorder on its own port.
pub(crate) struct Recorder {
    address: SocketAddr,
    steps: Arc<Mutex<Recording>>,
}

impl Recorder {
    /// Starts a recorder in front of the server at `upstream`.
    pub(crate) fn of(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let steps = Arc::new(Mutex::new(Recording::default()));
        let recording = Arc::clone(&steps);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&upstream).unwrap());
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let number = {
                    let mut recording = recording.lock().unwrap();
                    recording.0.push(Vec::new());
                    recording.0.len() - 1
                };
                let (back, forth) = (Arc::clone(&recording), Arc::clone(&recording));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let is_over = Arc::new(AtomicBool::new(false));
                let over = Arc::clone(&is_over);
                thread::spawn(move || pass(from, to, &forth, number, Some(&over)));
                thread::spawn(move || {
                    pass(server, client, &back, number, None);
                    // A server that closes after the client closed has not hung up.
                    if !is_over.load(Ordering::SeqCst) {
                        back.lock().unwrap().0[number].push(Step::HungUp);
                    }
                });
            }
        });
        Self { address, steps }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns what has passed so far. Once a client has its answer, the answer is included.
    pub(crate) fn recording(&self) -> Recording {
        self.steps.lock().unwrap().clone()
    }
}

/// Forwards one direction of a connection, and records bytes before it forwards them. The end of
/// the client's direction is recorded first, too.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    all: &Mutex<Recording>,
    number: usize,
    client: Option<&AtomicBool>,
) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if length == 0 {
            break;
        }
        let bytes = &buffer[..length];
        {
            let steps = &mut all.lock().unwrap().0[number];
            match (client, steps.last_mut()) {
                (Some(_), Some(Step::Sent(before))) => before.extend(bytes),
                (Some(_), _) => steps.push(Step::Sent(bytes.to_vec())),
                (None, Some(Step::Answered(before))) => before.extend(bytes),
                (None, _) => steps.push(Step::Answered(bytes.to_vec())),
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    if let Some(is_over) = client {
        is_over.store(true, Ordering::SeqCst);
    }
    let _ = to.shutdown(Shutdown::Write);
}

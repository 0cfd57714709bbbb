//! A server that accepts exactly the recorded requests and gives the recorded answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::recording::{Recording, Step};

/// A replayer on its own port, for one client.
pub(crate) struct Replayer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    server: JoinHandle<Result<(), String>>,
}

impl Replayer {
    pub(crate) fn of(recording: Recording) -> Self {
        Self::cut(recording, usize::MAX)
    }

    /// Starts a replayer that hangs up after `after` bytes of answers on each connection.
    pub(crate) fn cut(recording: Recording, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let server = thread::spawn(move || {
            let (mut open, mut more) = (Vec::new(), 0);
            let mut connections = recording.0.into_iter();
            for client in listener.incoming() {
                let client = client.unwrap();
                if over.load(Ordering::SeqCst) {
                    break;
                }
                match connections.next() {
                    Some(steps) => open.push(thread::spawn(move || serve(client, steps, after))),
                    None => more += 1,
                }
            }
            // Report a difference first: after one, the client tries again.
            for connection in open {
                connection.join().unwrap()?;
            }
            match (connections.len(), more) {
                (0, 0) => Ok(()),
                (left, more) => Err(format!(
                    "{left} connections less, or {more} more, than recorded"
                )),
            }
        });
        Self {
            address,
            is_over,
            server,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends the replayer, after the client has closed its connections. Returns how the client
    /// deviated from the recording, if it did.
    pub(crate) fn finish(self) -> Result<(), String> {
        self.is_over.store(true, Ordering::SeqCst);
        // It may be waiting for one more client.
        let _ = TcpStream::connect(self.address);
        self.server.join().unwrap()
    }
}

fn serve(mut client: TcpStream, steps: Vec<Step>, after: usize) -> Result<(), String> {
    client.set_nodelay(true).unwrap();
    let mut answered = 0;
    for step in steps {
        match step {
            Step::Sent(expected) => take(&mut client, &expected)?,
            Step::Answered(bytes) => {
                let length = bytes.len().min(after - answered);
                // A client that has read enough may have gone.
                let _ = client.write_all(&bytes[..length]);
                answered += length;
                if length < bytes.len() {
                    return Ok(());
                }
            }
            Step::HungUp => return Ok(()),
        }
    }
    let mut more = Vec::new();
    match client.read_to_end(&mut more) {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(format!(
            "more is sent than was recorded: {}",
            more.escape_ascii()
        )),
    }
}

/// Reads from the client, which must send exactly `expected`.
fn take(client: &mut TcpStream, expected: &[u8]) -> Result<(), String> {
    let mut buffer = vec![0; 1 << 16];
    let mut rest = expected;
    while !rest.is_empty() {
        let most = rest.len().min(buffer.len());
        let length = client.read(&mut buffer[..most]).unwrap_or(0);
        if length == 0 {
            return Err(format!(
                "less is sent than was recorded: {}",
                rest.escape_ascii()
            ));
        }
        let (sent, (now, later)) = (&buffer[..length], rest.split_at(length));
        if sent != now {
            let place = sent
                .iter()
                .zip(now)
                .take_while(|(is, was)| is == was)
                .count();
            let show = |bytes: &[u8]| bytes[place..].iter().take(200).copied().collect::<Vec<_>>();
            return Err(format!(
                "sent is     {}\nrecorded is {}",
                show(sent).escape_ascii(),
                show(now).escape_ascii()
            ));
        }
        rest = later;
    }
    Ok(())
}

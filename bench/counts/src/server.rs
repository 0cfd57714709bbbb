//! As much of a Redis as a preload asks for, in a thread: what it says is always the same, and
//! that costs next to nothing beside what is counted.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Starts it, and gives its URL.
///
/// # Panics
///
/// If this machine has no loopback.
#[expect(clippy::unwrap_used, reason = "without it there is nothing to count")]
pub(crate) fn start() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = BTreeMap::new();
        for stream in listener.incoming().flatten() {
            serve(stream, &mut held);
        }
    });
    format!("redis://{address}/0")
}

/// Answers one client after the other. Each question is read at once: it fits into a packet.
fn serve(mut stream: TcpStream, held: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut buffer = vec![0; 1 << 16];
    let (mut asked, mut answer) = (Vec::new(), Vec::new());
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let question = buffer.get(..length).unwrap_or_default();
        if question != asked {
            asked = question.to_vec();
            answer = commands(question)
                .iter()
                .flat_map(|command| reply(command, held))
                .collect();
        }
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The words of each command.
fn commands(question: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    let mut rest = question;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\r') {
        let (line, after) = rest.split_at(end);
        rest = after.get(2..).unwrap_or_default();
        let Some((mark, digits)) = line.split_first() else {
            continue;
        };
        if *mark == b'*' {
            commands.push(Vec::new());
            continue;
        }
        let length = digits.iter().fold(0, |sum, digit| {
            sum * 10 + usize::from(digit.wrapping_sub(b'0'))
        });
        let word = rest.get(..length).unwrap_or_default();
        rest = rest.get(length + 2..).unwrap_or_default();
        if let Some(command) = commands.last_mut() {
            command.push(word);
        }
    }
    commands
}

fn reply(command: &[&[u8]], held: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    match command {
        [b"SET", key, value, ..] => {
            held.insert(key.to_vec(), value.to_vec());
            b"+OK\r\n".to_vec()
        }
        [b"MGET", keys @ ..] => {
            let mut reply = format!("*{}\r\n", keys.len()).into_bytes();
            for value in keys.iter().filter_map(|key| held.get(*key)) {
                reply.extend(format!("${}\r\n", value.len()).bytes());
                reply.extend_from_slice(value);
                reply.extend_from_slice(b"\r\n");
            }
            reply
        }
        [b"HELLO", ..] => b"-ERR unknown command\r\n".to_vec(),
        _ => b"+OK\r\n".to_vec(),
    }
}

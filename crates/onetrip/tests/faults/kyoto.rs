//! A stand-in for a Kyoto Tycoon server, which is rarely packaged, if `KT_URL` names none.
//!
//! It implements just the parts of the two protocols that the client uses, over a map. That
//! suffices: tests of failures check how the client handles the network, and also run over a live
//! server. Answers of a real server are recorded in `tests/kyoto`, byte for byte.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// The expiry of entries that never expire, in requests and in answers.
const NEVER: i64 = i64::MAX;
const NEVER_SEEN: i64 = (1 << 40) - 1;

/// Entries, each with its expiry in seconds.
type Records = HashMap<Vec<u8>, (Vec<u8>, i64)>;

/// A server on its own port, until it is dropped.
pub(crate) struct Kyoto {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Kyoto {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let records: Arc<Mutex<Records>> = Arc::default();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (client, records) = (client.unwrap(), Arc::clone(&records));
                std::thread::spawn(move || serve(&client, &records));
            }
        });
        Self { address, is_over }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Kyoto {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(client: &TcpStream, records: &Mutex<Records>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from, mut to) = (BufReader::new(client), client);
    while let Some(first) = from.fill_buf()?.first().copied() {
        let answer = match first {
            0xB8..=0xBA => bulk(&mut from, records)?,
            _ => call(&mut from, records)?,
        };
        to.write_all(&answer)?;
    }
    Ok(())
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().try_into().unwrap()
}

/// Returns the expiry for `span` from now; a negative one is a Unix time.
fn expiry(span: i64) -> i64 {
    match span {
        NEVER => NEVER_SEEN,
        ..0 => -span,
        span => now().saturating_add(span).min(NEVER_SEEN),
    }
}

fn living<'r>(records: &'r Records, name: &[u8]) -> Option<&'r (Vec<u8>, i64)> {
    records.get(name).filter(|(_, expires)| *expires > now())
}

fn number<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn size(from: &mut impl Read) -> io::Result<usize> {
    Ok(u32::from_be_bytes(number(from)?) as usize)
}

fn bytes(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a set_bulk, remove_bulk or get_bulk, and answers it.
fn bulk(from: &mut impl Read, records: &Mutex<Records>) -> io::Result<Vec<u8>> {
    let [magic] = number(from)?;
    let _flags = size(from)?;
    let (mut found, mut count) = (Vec::new(), 0_u32);
    for _ in 0..size(from)? {
        let db: [u8; 2] = number(from)?;
        let name = size(from)?;
        if magic == 0xB8 {
            let value = size(from)?;
            let span = i64::from_be_bytes(number(from)?);
            let (name, value) = (bytes(from, name)?, bytes(from, value)?);
            records.lock().unwrap().insert(name, (value, expiry(span)));
            count += 1;
            continue;
        }
        let name = bytes(from, name)?;
        let mut records = records.lock().unwrap();
        let Some((value, expires)) = living(&records, &name) else {
            continue;
        };
        count += 1;
        if magic == 0xB9 {
            records.remove(&name);
            continue;
        }
        found.extend(db);
        for length in [name.len(), value.len()] {
            found.extend(u32::try_from(length).unwrap().to_be_bytes());
        }
        found.extend(expires.to_be_bytes());
        found.extend_from_slice(&name);
        found.extend_from_slice(value);
    }
    Ok([&[magic][..], &count.to_be_bytes(), &found].concat())
}

/// Reads a call by HTTP, and answers it.
fn call(from: &mut impl BufRead, records: &Mutex<Records>) -> io::Result<Vec<u8>> {
    let (mut procedure, mut length) = (String::new(), 0);
    from.read_line(&mut procedure)?;
    loop {
        let mut header = String::new();
        from.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        if name == "Content-Length" {
            length = value.parse().unwrap();
        }
    }
    let body = bytes(from, length)?;
    let mut columns = HashMap::new();
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
        columns.insert(base64(&line[..tab]), base64(&line[tab + 1..]));
    }
    let column = |name: &str| columns.get(name.as_bytes()).cloned().unwrap_or_default();
    let span = String::from_utf8(column("xt")).unwrap().parse();
    let expires = expiry(span.unwrap_or(NEVER));
    let mut records = records.lock().unwrap();
    let (key, there) = (column("key"), living(&records, &column("key")).cloned());
    let mut answer = String::new();
    let status = match procedure.split(' ').nth(1).unwrap() {
        "/rpc/add" if there.is_none() => {
            records.insert(key, (column("value"), expires));
            "200 OK"
        }
        "/rpc/cas" if there.is_some_and(|(value, _)| value == column("oval")) => {
            records.insert(key, (column("nval"), expires));
            "200 OK"
        }
        "/rpc/match_prefix" => {
            let prefix = column("prefix");
            for name in records.keys().filter(|name| name.starts_with(&prefix)) {
                let name: String = name.iter().map(|byte| format!("%{byte:02x}")).collect();
                answer += &format!("_{name}\t0\n");
            }
            "200 OK"
        }
        "/rpc/status" => "200 OK",
        "/rpc/add" | "/rpc/cas" => "450 Logical Inconsistency",
        other => panic!("{other} is not a supported call"),
    };
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: text/tab-separated-values; colenc=U\r\n\r\n"
    );
    Ok((head + &answer).into_bytes())
}

fn base64(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.iter().take_while(|byte| **byte != b'=');
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        let value = DIGITS.iter().position(|other| other == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xFF) as u8);
        }
    }
    bytes
}

//! Traffic of connections as text: `>` is what the client sent, `<` what the server answered.
//!
//! Bytes are escaped as in Rust; `\*{1000*61}` is the byte `61` a thousand times.

use std::fmt;

/// The first line of every file.
const PREAMBLE: &str = "# Recorded from ktserver; see tests/kyoto/main.rs.\n";

/// Fewest repetitions written as a run.
const RUN: usize = 64;

/// The connections of a client, in the order they were opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording(pub(crate) Vec<Vec<Step>>);

/// One event on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Sent(Vec<u8>),
    Answered(Vec<u8>),
    /// The server closes the connection.
    HungUp,
}

impl Recording {
    pub(crate) fn parse(text: &str) -> Self {
        let mut connections: Vec<Vec<Step>> = Vec::new();
        for line in text.lines().map(str::trim_start) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line == "connection" {
                connections.push(Vec::new());
                continue;
            }
            let steps = connections.last_mut().expect("a connection comes first");
            if line == "hung up" {
                steps.push(Step::HungUp);
                continue;
            }
            let bytes = unescape(line.get(2..).unwrap_or_default());
            match (&line[..1], steps.last_mut()) {
                (">", Some(Step::Sent(before))) => before.extend(bytes),
                (">", _) => steps.push(Step::Sent(bytes)),
                ("<", Some(Step::Answered(before))) => before.extend(bytes),
                ("<", _) => steps.push(Step::Answered(bytes)),
                _ => panic!("{line:?} is not a line of a recording"),
            }
        }
        Self(connections)
    }

    /// Returns all answers of the server, in order.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flatten().filter_map(|step| match step {
            Step::Answered(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREAMBLE)?;
        for steps in &self.0 {
            f.write_str("connection\n")?;
            for step in steps {
                match step {
                    Step::Sent(bytes) => lines(f, '>', bytes)?,
                    Step::Answered(bytes) => lines(f, '<', bytes)?,
                    Step::HungUp => f.write_str("hung up\n")?,
                }
            }
        }
        Ok(())
    }
}

/// Writes bytes that are mostly text as one line for each of their lines.
fn lines(f: &mut fmt::Formatter<'_>, mark: char, bytes: &[u8]) -> fmt::Result {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        writeln!(f, "{mark} {}", escape(line))?;
    }
    Ok(())
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, next| one == next) {
        if run.len() >= RUN {
            text.push_str(&format!("\\*{{{}*{:02x}}}", run.len(), run[0]));
        } else {
            text.push_str(&run.escape_ascii().to_string());
        }
    }
    text
}

fn unescape(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let hex = |digits: &str| u8::from_str_radix(digits, 16).expect("two digits");
    while let Some(first) = text.chars().next() {
        if first != '\\' {
            bytes.push(u8::try_from(first).expect("ASCII"));
            text = &text[1..];
            continue;
        }
        let (byte, length) = match &text[1..2] {
            "t" => (b'\t', 2),
            "r" => (b'\r', 2),
            "n" => (b'\n', 2),
            "x" => (hex(&text[2..4]), 4),
            "*" => {
                let (run, rest) = text[3..].split_once('}').expect("a run");
                let (count, byte) = run.split_once('*').expect("a count and a byte");
                let count: usize = count.parse().expect("a count");
                bytes.resize(bytes.len() + count, hex(byte));
                text = rest;
                continue;
            }
            other => (other.as_bytes()[0], 2),
        };
        bytes.push(byte);
        text = &text[length..];
    }
    bytes
}

#[test]
fn recording_round_trips() {
    let all: Vec<u8> = (0..=255).collect();
    let long = [b"a\r\n".to_vec(), vec![b'b'; 1000], vec![b'\\'; 100]].concat();
    let recording = Recording(vec![
        vec![Step::Sent(all.clone()), Step::Answered(long)],
        vec![
            Step::Sent(b" # ".to_vec()),
            Step::Answered(all),
            Step::HungUp,
        ],
    ]);
    assert_eq!(Recording::parse(&recording.to_string()).0, recording.0);
}

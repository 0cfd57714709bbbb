//! Fifty keys at once from Redis.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use fred::interfaces::{ClientLike, KeysInterface};
use tokio::runtime::Builder;

use crate::measure::{Pace, Work, compare};
use crate::text;

const COUNT: usize = 50;

pub(crate) fn multi_get(url: &str, pace: Pace) -> Result<(), Box<dyn Error>> {
    let keys: Vec<String> = (0..COUNT).map(|number| format!("rust:{number}")).collect();
    let plain: Vec<String> = (0..COUNT).map(|number| format!("bare:{number}")).collect();
    let text = text();
    let right = vec![Some(text.clone()); COUNT];

    let cache = onetrip::Cache::open(url)?.blocking();
    for key in &keys {
        cache.set(key, &text)?;
    }
    let client = redis::Client::open(url)?;
    let mut connection = client.get_connection()?;
    let pairs: Vec<(&String, &String)> = plain.iter().map(|key| (key, &text)).collect();
    redis::cmd("MSET").arg(&pairs).exec(&mut connection)?;

    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut multiplexed = runtime.block_on(client.get_multiplexed_async_connection())?;
    let fred = fred::clients::Client::new(
        fred::types::config::Config::from_url(url)?,
        None,
        None,
        None,
    );
    runtime.block_on(fred.init())?;
    let mut bare = Bare::connect(url, &keys)?;

    compare(
        "multi-get of 50, Redis",
        pace,
        vec![
            Work::new("floor", move || bare.exchange()),
            Work::new("onetrip", || {
                let values: Vec<Option<String>> = cache.get_many(&keys).unwrap();
                assert!(values == right);
            }),
            Work::new("redis-rs", || {
                let values: Vec<Option<String>> = redis::cmd("MGET")
                    .arg(&plain)
                    .query(&mut connection)
                    .unwrap();
                assert!(values == right);
            }),
            Work::new("redis-rs, multiplexed", || {
                let mut command = redis::cmd("MGET");
                let command = command.arg(&plain);
                let values: Vec<Option<String>> = runtime
                    .block_on(command.query_async(&mut multiplexed))
                    .unwrap();
                assert!(values == right);
            }),
            Work::new("fred", || {
                let values: Vec<Option<String>> =
                    runtime.block_on(fred.mget(plain.clone())).unwrap();
                assert!(values == right);
            }),
        ],
    );
    Ok(())
}

/// A bare socket that asks the same, and reads as many bytes as the answer has.
struct Bare {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Bare {
    fn connect(url: &str, keys: &[String]) -> Result<Self, Box<dyn Error>> {
        let address = url.trim_start_matches("redis://");
        let address = address.split('/').next().unwrap_or(address);
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut request = format!("*{}\r\n$4\r\nMGET\r\n", keys.len() + 1).into_bytes();
        for key in keys {
            write!(request, "${}\r\n{key}\r\n", key.len())?;
        }
        // How long one value is, its first line tells; all are alike.
        stream.write_all(format!("GET {}\r\n", keys[0]).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let digits = std::str::from_utf8(&head[1..head.len() - 2])?;
        let length = head.len() + digits.parse::<usize>()? + 2;
        stream.read_exact(&mut vec![0; length - head.len()])?;
        let answer = vec![0; format!("*{}\r\n", keys.len()).len() + keys.len() * length];
        Ok(Self {
            stream,
            request,
            answer,
        })
    }

    fn exchange(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        self.stream.read_exact(&mut self.answer).unwrap();
        assert!(self.answer.ends_with(b"abcde\r\n"));
    }
}

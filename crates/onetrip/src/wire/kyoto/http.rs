//! Calls by HTTP/1.1: `POST /rpc/<procedure>` with tab-separated columns of names and values.
//!
//! Columns are sent as Base64, since they contain any byte. The server chooses the encoding of its
//! answer.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

use super::{Input, MAX_DATA, Stop, base64};

/// Longest headers of an answer, far above what the server sends.
const MAX_HEAD: usize = 16 << 10;

/// Success.
pub(crate) const OK: u16 = 200;
/// Invalid call, or no such database. Our calls fail only for the latter.
pub(crate) const INVALID: u16 = 400;
/// Conflict: a record exists, does not exist, or holds something else.
pub(crate) const CONFLICT: u16 = 450;

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) columns: Columns,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
}

/// The columns of an answer, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    body: Range<usize>,
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Base64,
    Percent,
}

/// Returns whether a call with `columns` is short enough for the server.
pub(crate) fn fits(columns: &[(&str, &[u8])]) -> bool {
    // The number of the database, sent along, takes less than 64 bytes.
    body_length(columns) <= MAX_DATA - 64
}

fn body_length(columns: &[(&str, &[u8])]) -> usize {
    columns
        .iter()
        .map(|(name, value)| {
            base64::encoded_length(name.len()) + base64::encoded_length(value.len()) + 2
        })
        .sum()
}

/// Calls a procedure.
pub(crate) fn call(out: &mut Vec<u8>, procedure: &str, db: u16, columns: &[(&str, &[u8])]) {
    let number = db.to_string();
    // In the body, since the server decodes the path differently.
    let database = [("DB", number.as_bytes())];
    let length = body_length(&database) + body_length(columns);
    out.extend(
        format!(
            "POST /rpc/{procedure} HTTP/1.1\r\nHost: kyoto\r\n\
             Content-Type: text/tab-separated-values; colenc=B\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes(),
    );
    for (name, value) in database.iter().chain(columns) {
        base64::encode(out, name.as_bytes());
        out.push(b'\t');
        base64::encode(out, value);
        out.push(b'\n');
    }
}

/// Reads the answer to a call.
pub(super) fn response(input: &mut Input<'_>) -> Result<Response, Stop> {
    const END: &[u8] = b"\r\n\r\n";
    let rest = input.rest();
    let start = b"HTTP/1.1 ";
    if !rest.iter().zip(start).all(|(is, should)| is == should) {
        return Err(Stop::Nonsense("no HTTP/1.1 answer"));
    }
    let window = rest.get(..MAX_HEAD).unwrap_or(rest);
    let Some(length) = window.windows(END.len()).position(|four| four == END) else {
        return Err(if window.len() == MAX_HEAD {
            Stop::Nonsense("endless headers")
        } else {
            Stop::More(1)
        });
    };
    let head = rest.get(start.len()..length).unwrap_or_default();
    let head =
        std::str::from_utf8(head).map_err(|_| Stop::Nonsense("headers that are not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').next());
    let status = status.and_then(|status| status.parse().ok());
    let status = status.ok_or(Stop::Nonsense("no status"))?;
    let (mut size, mut encoding, mut closes) = (None, Encoding::Plain, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(Stop::Nonsense("a header without a value"));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => size = value.parse().ok().filter(|size| *size <= MAX_DATA),
            "content-type" => encoding = encoding_of(value)?,
            "connection" => closes = value.eq_ignore_ascii_case("close"),
            "transfer-encoding" => return Err(Stop::Nonsense("a body in chunks")),
            _ => {}
        }
    }
    let size = size.ok_or(Stop::Nonsense("no length, or more than 256 MiB"))?;
    // Take nothing until all of it is there.
    let mut ahead = Input::new(input.buffer, input.at + length + END.len());
    let body = ahead.take(size)?;
    input.at = ahead.at;
    Ok(Response {
        status,
        columns: Columns { body, encoding },
        closes,
    })
}

/// Returns the encoding of columns that a media type such as `text/tab-separated-values; colenc=B`
/// names.
fn encoding_of(media_type: &str) -> Result<Encoding, Stop> {
    match media_type.split_once("colenc=") {
        None => Ok(Encoding::Plain),
        Some((_, "B")) => Ok(Encoding::Base64),
        Some((_, "U")) => Ok(Encoding::Percent),
        Some(_) => Err(Stop::Nonsense("columns in an unknown encoding")),
    }
}

/// The name and the value of a column.
type Column<'b> = (Cow<'b, [u8]>, Cow<'b, [u8]>);

impl Columns {
    /// Iterates over the columns in `buffer`, from which they were read.
    pub(crate) fn iter<'b>(
        &self,
        buffer: &'b [u8],
    ) -> impl Iterator<Item = Result<Column<'b>, Stop>> {
        let body = buffer.get(self.body.clone()).unwrap_or_default();
        let encoding = self.encoding;
        let lines = body.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).map(move |line| {
            let tab = line.iter().position(|byte| *byte == b'\t');
            let (name, value) = tab
                .and_then(|tab| Some((line.get(..tab)?, line.get(tab + 1..)?)))
                .ok_or(Stop::Nonsense("a column without a value"))?;
            Ok((decoded(encoding, name)?, decoded(encoding, value)?))
        })
    }

    /// Returns the server's error message.
    pub(crate) fn error(&self, buffer: &[u8]) -> String {
        let mut columns = self.iter(buffer).filter_map(Result::ok);
        columns
            .find(|(name, _)| **name == *b"ERROR")
            .map_or_else(String::new, |(_, text)| {
                String::from_utf8_lossy(&text).into_owned()
            })
    }
}

fn decoded(encoding: Encoding, text: &[u8]) -> Result<Cow<'_, [u8]>, Stop> {
    match encoding {
        Encoding::Plain => Ok(Cow::Borrowed(text)),
        Encoding::Percent => Ok(percent_decode(text).into()),
        Encoding::Base64 => base64::decode(text)
            .map(Cow::Owned)
            .ok_or(Stop::Nonsense("a column that is not Base64")),
    }
}

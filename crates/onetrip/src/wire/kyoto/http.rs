//! Calls by HTTP/1.1: `POST /rpc/<procedure>` with columns of names and values, tab-separated.
//!
//! Columns are sent in Base64, since they hold any byte. The server chooses how it answers.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

use super::{Input, MAX_DATA, Stop, base64};

/// More than the server's few headers ever take.
const MAX_HEAD: usize = 16 << 10;

/// It was done.
pub(crate) const OK: u16 = 200;
/// The call is wrong; or there is no such database, which is all that can be wrong with ours.
pub(crate) const INVALID: u16 = 400;
/// What the call relies on is not so: a record is there, is not, or holds something else.
pub(crate) const CONFLICT: u16 = 450;

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) columns: Columns,
    /// Whether the server hangs up behind it.
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

/// Whether a call with `columns` is short enough for the server to take it.
pub(crate) fn fits(columns: &[(&str, &[u8])]) -> bool {
    // What else travels in it, the number of the database, is counted amply.
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
    // In the body, since the server decodes what it finds in the path as if it were there too.
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
        return Err(Stop::Nonsense("no answer in HTTP/1.1"));
    }
    let window = rest.get(..MAX_HEAD).unwrap_or(rest);
    let Some(length) = window.windows(END.len()).position(|four| four == END) else {
        return Err(if window.len() == MAX_HEAD {
            Stop::Nonsense("headers without an end")
        } else {
            Stop::More(1)
        });
    };
    let head = rest.get(start.len()..length).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| Stop::Nonsense("headers that are no text"))?;
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
    // Nothing is taken until all of it is there.
    let mut ahead = Input::new(input.buffer, input.at + length + END.len());
    let body = ahead.take(size)?;
    input.at = ahead.at;
    Ok(Response {
        status,
        columns: Columns { body, encoding },
        closes,
    })
}

/// How `text/tab-separated-values; colenc=B` says that columns are encoded.
fn encoding_of(media_type: &str) -> Result<Encoding, Stop> {
    match media_type.split_once("colenc=") {
        None => Ok(Encoding::Plain),
        Some((_, "B")) => Ok(Encoding::Base64),
        Some((_, "U")) => Ok(Encoding::Percent),
        Some(_) => Err(Stop::Nonsense("columns in an encoding that nobody chose")),
    }
}

/// The name and the value of a column.
type Column<'b> = (Cow<'b, [u8]>, Cow<'b, [u8]>);

impl Columns {
    /// The columns in `buffer`, which is what they were read from.
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

    /// The server's own words for what went wrong.
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

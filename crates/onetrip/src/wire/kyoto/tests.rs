//! Tests of the protocols without a socket: replies cut, out of order, damaged, and very large.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::binary::{self, Held, NewRecord};
use super::{MAX_DATA, Reader, RequestKind, ServerReply, Stop, base64, http};

/// An answer to get_bulk, as the server writes it.
fn got(records: &[(&[u8], &[u8], i64)]) -> Vec<u8> {
    let mut out = vec![0xBA];
    out.extend((records.len() as u32).to_be_bytes());
    for (name, value, expires) in records {
        out.extend(3_u16.to_be_bytes());
        out.extend((name.len() as u32).to_be_bytes());
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(expires.to_be_bytes());
        out.extend(*name);
        out.extend(*value);
    }
    out
}

fn responded(status: &str, encoding: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nServer: KyotoTycoon/0.9.56\r\nContent-Length: {}\r\n\
         Content-Type: text/tab-separated-values{encoding}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn read(requests: &[RequestKind], reply: &[u8]) -> Result<Vec<ServerReply>, Stop> {
    let mut reader = Reader::new(requests);
    reader.read(reply)?;
    Ok(reader.into_answers())
}

/// Returns the record of each of `names` in a reply to a get_bulk.
fn held(names: &[&[u8]], reply: &[u8]) -> Result<Vec<Held>, Stop> {
    let answers = read(&[RequestKind::Get(names.len())], reply)?;
    let [ServerReply::Records(records)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    let buffer = Bytes::copy_from_slice(reply);
    binary::matched(3, names.iter().copied(), &buffer, records.clone())
}

fn values(names: &[&[u8]], reply: &[u8]) -> Vec<Option<Vec<u8>>> {
    let held = held(names, reply).unwrap();
    held.into_iter()
        .map(|held| held.map(|(value, _)| value.to_vec()))
        .collect()
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

#[test]
fn requests_have_the_expected_bytes() {
    let mut out = Vec::new();
    binary::get_bulk(&mut out, 1, [&b"a"[..], b""].into_iter());
    assert_eq!(
        out,
        b"\xBA\0\0\0\0\0\0\0\x02\0\x01\0\0\0\x01a\0\x01\0\0\0\0"
    );
    out.clear();
    binary::remove_bulk(&mut out, 0, [&b"ab"[..]].into_iter());
    assert_eq!(out, b"\xB9\0\0\0\0\0\0\0\x01\0\0\0\0\0\x02ab");
    out.clear();
    let record = NewRecord {
        name: b"n",
        value: b"vw",
        expires: 300,
    };
    binary::set_bulk(&mut out, 0, [record].into_iter());
    assert_eq!(
        out,
        b"\xB8\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\x01\x2Cnvw"
    );
    out.clear();
    http::call(&mut out, "add", 2, &[("key", b"a"), ("value", b"\0\xFF")]);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST /rpc/add HTTP/1.1\r\nHost: kyoto\r\n\
         Content-Type: text/tab-separated-values; colenc=B\r\nContent-Length: 34\r\n\r\n\
         REI=\tMg==\na2V5\tYQ==\ndmFsdWU=\tAP8=\n"
    );
}

#[test]
fn records_are_matched_by_name() {
    let names: &[&[u8]] = &[b"a", b"b", b"c", b"d"];
    let expected = [some(b"A"), None, some(b""), some(b"D")];
    let (a, c, d) = (
        (&b"a"[..], &b"A"[..], 1),
        (&b"c"[..], &b""[..], 1),
        (&b"d"[..], &b"D"[..], 1),
    );
    for order in [[a, c, d], [d, c, a], [c, a, d], [d, a, c]] {
        assert_eq!(values(names, &got(&order)), expected);
    }
    assert_eq!(values(names, &got(&[])), [None, None, None, None]);
}

#[test]
fn repeated_name_is_answered_twice() {
    let names: &[&[u8]] = &[b"a", b"b", b"a"];
    let (a, b) = ((&b"a"[..], &b"A"[..], 1), (&b"b"[..], &b"B"[..], 1));
    for order in [[a, b, a], [b, a, a], [a, a, b]] {
        let expected = [some(b"A"), some(b"B"), some(b"A")];
        assert_eq!(values(names, &got(&order)), expected);
    }
}

#[test]
fn expiry_has_64_bits() {
    for expires in [0, -1, i64::MIN, i64::MAX, (1 << 40) - 1] {
        let held = held(&[b"a"], &got(&[(b"a", b"A", expires)])).unwrap();
        assert_eq!(held, [Some((Bytes::from_static(b"A"), expires))]);
    }
}

#[test]
fn unrequested_records_are_nonsense() {
    let nonsense = |names: &[&[u8]], reply: &[u8]| match held(names, reply) {
        Err(Stop::Nonsense(what)) => what,
        other => panic!("{other:?}"),
    };
    nonsense(&[b"a", b"b"], &got(&[(b"x", b"A", 1)]));
    nonsense(&[b"a", b"b"], &got(&[(b"a", b"A", 1), (b"a", b"A", 1)]));
    nonsense(&[b"a"], &got(&[(b"a", b"A", 1), (b"b", b"B", 1)]));
    let mut elsewhere = got(&[(b"a", b"A", 1)]);
    elsewhere[6] = 4;
    assert_eq!(
        nonsense(&[b"a"], &elsewhere),
        "a record of another database"
    );
    let behind = [got(&[(b"a", b"A", 1)]), vec![0]].concat();
    assert_eq!(nonsense(&[b"a"], &behind), "more than was asked for");
}

#[test]
fn negative_and_oversized_numbers_are_nonsense() {
    for number in [-1_i32, i32::MIN, i32::MAX, MAX_DATA as i32 + 1] {
        let whole = got(&[(b"a", b"A", 1)]);
        for place in [1, 7, 11] {
            let mut reply = whole.clone();
            reply[place..place + 4].copy_from_slice(&number.to_be_bytes());
            // Refused as soon as it is seen, not after that many bytes.
            let read = read(&[RequestKind::Get(1)], &reply[..place + 4]);
            assert!(matches!(read, Err(Stop::Nonsense(_))), "{number} {read:?}");
        }
        for (magic, request) in [(0xB8, RequestKind::Set(1)), (0xB9, RequestKind::Remove(1))] {
            let reply = [&[magic][..], &number.to_be_bytes()].concat();
            let read = read(&[request], &reply);
            assert!(matches!(read, Err(Stop::Nonsense(_))), "{number} {read:?}");
        }
    }
}

#[test]
fn refusal_is_the_last_answer() {
    let requests = [
        RequestKind::Remove(1),
        RequestKind::Get(1),
        RequestKind::Set(1),
    ];
    let answers = read(&requests, b"\xB9\0\0\0\x01\xBF").unwrap();
    assert_eq!(answers, [ServerReply::Count(1), ServerReply::Refused]);
    for request in requests {
        assert_eq!(read(&[request], b"\xBF").unwrap(), [ServerReply::Refused]);
    }
    assert!(matches!(
        read(&requests, b"\xB9\0\0\0\x01\xBF\0"),
        Err(Stop::Nonsense(_))
    ));
}

#[test]
fn columns_come_in_three_encodings() {
    for (encoding, body) in [
        ("", "_a b%\t0\nnum\t1\n"),
        ("; colenc=U", "%5Fa%20b%25\t0\nnum\t1\n"),
        ("; colenc=B", "X2EgYiU=\tMA==\nbnVt\tMQ==\n"),
    ] {
        let reply = responded("200 OK", encoding, body);
        let answers = read(&[RequestKind::Call], &reply).unwrap();
        let [ServerReply::Response(response)] = answers.as_slice() else {
            panic!("{answers:?}");
        };
        assert_eq!(response.status, http::OK);
        let columns: Vec<_> = response.columns.iter(&reply).map(Result::unwrap).collect();
        let text = |text: &'static str| std::borrow::Cow::Borrowed(text.as_bytes());
        assert_eq!(
            columns,
            [(text("_a b%"), text("0")), (text("num"), text("1"))]
        );
    }
}

#[test]
fn conflict_gives_the_reason() {
    let reply = responded(
        "450 Logical Inconsistency",
        "",
        "ERROR\tDB: 6: record duplication\n",
    );
    let answers = read(&[RequestKind::Call], &reply).unwrap();
    let [ServerReply::Response(response)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(response.status, http::CONFLICT);
    assert_eq!(response.columns.error(&reply), "DB: 6: record duplication");
}

#[test]
fn invalid_http_answers_are_nonsense() {
    for reply in [
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 268435457\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Type: text/plain; colenc=Q\r\n\r\n",
        "HTTP/1.1 200 OK\r\nfoo\r\n\r\n",
        "\u{FFFD}",
    ] {
        let read = read(&[RequestKind::Call], reply.as_bytes());
        assert!(matches!(read, Err(Stop::Nonsense(_))), "{reply} {read:?}");
    }
    let endless = ["HTTP/1.1 200 OK\r\n", &"a: b\r\n".repeat(5000)].concat();
    let read = read(&[RequestKind::Call], endless.as_bytes());
    assert!(matches!(read, Err(Stop::Nonsense(_))), "{read:?}");
}

#[test]
fn value_of_64_mib_is_a_slice_of_the_reply() {
    let value = vec![0x5A; 64 << 20];
    let reply = Bytes::from(got(&[(b"a", b"A", 1), (b"big", &value, 7)]));
    let requests = [RequestKind::Get(2)];
    let mut reader = Reader::new(&requests);
    let mut end = 0;
    // In pieces, as from a socket: the lengths say how much is missing.
    loop {
        match reader.read(&reply[..end]) {
            Ok(()) => break,
            Err(Stop::More(missing)) => end = (end + missing.min(1 << 20)).min(reply.len()),
            Err(nonsense) => panic!("{nonsense:?}"),
        }
    }
    let answers = reader.into_answers();
    let [ServerReply::Records(records)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    let names = [&b"a"[..], b"big"].into_iter();
    let held = binary::matched(3, names, &reply, records.clone()).unwrap();
    let (big, expires) = held[1].clone().unwrap();
    assert_eq!((big.len(), expires), (64 << 20, 7));
    assert_eq!(
        big.as_ptr(),
        reply[reply.len() - (64 << 20)..].as_ptr(),
        "not a copy"
    );
    assert!(big == value);
}

/// A few requests, and the reply to all of them.
fn conversation() -> (Vec<RequestKind>, Vec<u8>) {
    let requests = vec![
        RequestKind::Get(3),
        RequestKind::Set(2),
        RequestKind::Call,
        RequestKind::Remove(1),
        RequestKind::Get(1),
        RequestKind::Call,
    ];
    let reply = [
        got(&[(b"a", b"A", 1), (b"\xFF\0", b"HTTP/1.1\r\n\r\n", -1)]),
        b"\xB8\0\0\0\x02".to_vec(),
        responded("200 OK", "; colenc=B", "YQ==\tYg==\n"),
        b"\xB9\0\0\0\0".to_vec(),
        got(&[]),
        responded("450 Logical Inconsistency", "", "ERROR\tno\n"),
    ];
    (requests, reply.concat())
}

#[test]
fn reply_may_be_cut_anywhere() {
    let (requests, reply) = conversation();
    let whole = read(&requests, &reply).unwrap();
    for cut in 0..reply.len() {
        let mut reader = Reader::new(&requests);
        let Err(Stop::More(missing)) = reader.read(&reply[..cut]) else {
            panic!("complete at {cut} of {}", reply.len());
        };
        assert!(
            (1..=reply.len() - cut).contains(&missing),
            "{missing} at {cut}"
        );
        reader.read(&reply).unwrap();
        assert_eq!(reader.into_answers(), whole, "cut at {cut}");
    }
    let mut reader = Reader::new(&requests);
    for end in 0..reply.len() {
        assert!(matches!(reader.read(&reply[..end]), Err(Stop::More(_))));
    }
    reader.read(&reply).unwrap();
    assert_eq!(reader.into_answers(), whole, "byte by byte");
}

proptest! {
    #[test]
    fn base64_round_trips(bytes in vec(any::<u8>(), 0..100)) {
        let mut text = Vec::new();
        base64::encode(&mut text, &bytes);
        prop_assert_eq!(text.len(), base64::encoded_length(bytes.len()));
        prop_assert_eq!(base64::decode(&text), Some(bytes));
    }

    #[test]
    fn invalid_base64_decodes_to_none(text in "[A-Za-z0-9+/=]{0,9}") {
        if let Some(bytes) = base64::decode(text.as_bytes()) {
            prop_assert_eq!(text.len(), base64::encoded_length(bytes.len()));
        } else {
            prop_assert!(text.len() % 4 != 0 || text.contains('='));
        }
    }

    #[test]
    fn records_in_any_order_match_their_names(
        names in vec(vec(any::<u8>(), 0..3), 0..12),
        there in vec(any::<bool>(), 12),
        order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // Whether it exists depends on the name alone, so repeated names agree.
        let is_there = |name: &[u8]| there[name.iter().map(|byte| *byte as usize).sum::<usize>() % 12];
        let values: Vec<Vec<u8>> = names.iter().map(|name| [&name[..], b"!"].concat()).collect();
        let records: Vec<_> = order
            .iter()
            .filter_map(|index| Some((names.get(*index)?.as_slice(), values[*index].as_slice(), 5)))
            .filter(|(name, ..)| is_there(name))
            .collect();
        let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let answers = super::tests::values(&asked, &got(&records));
        for ((name, value), answer) in names.iter().zip(&values).zip(answers) {
            prop_assert_eq!(answer, is_there(name).then(|| value.clone()));
        }
    }

    #[test]
    fn garbage_never_yields_more_bytes_than_it_has(
        reply in vec(any::<u8>(), 0..200),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (requests, mut sound) = conversation();
        for (place, byte) in damage {
            let place = place.index(sound.len());
            sound[place] = byte;
        }
        for reply in [reply, sound] {
            let mut reader = Reader::new(&requests);
            if reader.read(&reply).is_ok() {
                let buffer = Bytes::from(reply);
                for answer in reader.into_answers() {
                    match answer {
                        ServerReply::Records(records) => {
                            let names = [&b"a"[..], b"\xFF\0", b"x"].into_iter();
                            let _ = binary::matched(3, names, &buffer, records);
                        }
                        ServerReply::Response(response) => {
                            let _ = response.columns.iter(&buffer).count();
                        }
                        ServerReply::Count(_) | ServerReply::Refused => {}
                    }
                }
            }
        }
    }
}

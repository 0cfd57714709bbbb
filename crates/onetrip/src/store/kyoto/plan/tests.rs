//! What goes out at once, and what the answers come to: what no server does on demand.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::wire::kyoto::Reader;

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// The wall clock: two seconds and a half before what was [got] expires.
const NOW: Duration = Duration::from_millis(74_500);

fn name(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn get(of: &'static str) -> Op {
    Op::Get { name: name(of) }
}

fn set(of: &'static str) -> Op {
    let entry = name("entry");
    let (name, ttl) = (name(of), HOUR);
    Op::Set { name, entry, ttl }
}

fn delete(of: &'static str) -> Op {
    Op::Delete { name: name(of) }
}

fn touch(of: &'static str) -> Op {
    let name = name(of);
    Op::Touch { name, ttl: HOUR }
}

fn incr(of: &'static str) -> Op {
    let name = name(of);
    Op::Incr { name, delta: 1 }
}

/// A get_bulk's answer: one record for each, which expires in the second 77.
fn got(records: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0xBA];
    out.extend((records.len() as u32).to_be_bytes());
    for (name, value) in records {
        out.extend([0, 0]);
        out.extend((name.len() as u32).to_be_bytes());
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(77_i64.to_be_bytes());
        out.extend([name.as_bytes(), value.as_bytes()].concat());
    }
    out
}

fn responded(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn read(questions: &[RequestKind], reply: &[u8]) -> (Vec<ServerReply>, Bytes) {
    let mut reader = Reader::new(questions);
    reader.read(reply).unwrap();
    (reader.into_answers(), Bytes::copy_from_slice(reply))
}

/// One exchange, and the one that makes its changes if there are any.
fn step(segment: &mut Segment<'_>, reply: &[u8], changed: &[u8]) -> Option<String> {
    let (batch, asked) = segment.ask();
    let (answers, buffer) = read(&batch.questions, reply);
    let changes = segment
        .answered("kt://", &asked, answers, &buffer, NOW)
        .unwrap();
    if changes.is_empty() {
        return None;
    }
    let batch = segment.change(&changes);
    let (answers, buffer) = read(&batch.questions, changed);
    segment.changed("kt://", changes, answers, &buffer).unwrap();
    Some(String::from_utf8(batch.bytes).unwrap())
}

fn told(segment: &Segment<'_>) -> Vec<String> {
    let tell = |reply: &Option<Reply>| match reply {
        Some(Reply::Failed(error)) => format!("{:?}", error.kind()),
        Some(Reply::Entry(Some(stored))) => format!("{:?}", stored.bytes),
        Some(reply) => format!("{reply:?}"),
        None => "None".into(),
    };
    segment.replies.iter().map(tell).collect()
}

#[test]
fn a_segment_ends_where_an_entry_is_changed_already() {
    let clear = || Op::Clear { prefix: name("") };
    for (ops, expected) in [
        (vec![get("a"), set("a"), delete("a"), get("a")], 4),
        (vec![set("a"), touch("a"), set("b"), touch("b")], 4),
        (vec![incr("a"), get("b"), get("a")], 2),
        (vec![touch("a"), touch("a")], 1),
        (vec![get("a"), clear(), get("a")], 1),
        (vec![clear(), clear()], 1),
    ] {
        assert_eq!(segment_of(&ops), expected, "{ops:?}");
    }
}

#[test]
fn what_follows_one_another_is_one_request() {
    let ops = [
        get("a"),
        get("b"),
        touch("c"),
        set("a"),
        set("b"),
        delete("a"),
        delete("x"),
        get("a"),
    ];
    let (batch, _) = Segment::new(0, &ops).ask();
    let (one, all) = (RequestKind::Remove(1), batch.questions);
    assert_eq!(
        all,
        [
            RequestKind::Get(3),
            RequestKind::Set(2),
            one,
            one,
            RequestKind::Get(1)
        ]
    );
}

#[test]
fn each_delete_has_its_own_answer() {
    let ops = [delete("a"), delete("x"), delete("b")];
    let mut segment = Segment::new(0, &ops);
    step(
        &mut segment,
        b"\xB9\0\0\0\x01\xB9\0\0\0\0\xB9\0\0\0\x01",
        b"",
    );
    assert_eq!(told(&segment), ["Flag(true)", "Flag(false)", "Flag(true)"]);
}

#[test]
fn what_others_changed_meanwhile_is_read_again() {
    let ops = [incr("a"), touch("b"), get("c")];
    let mut segment = Segment::new(0, &ops);
    let both = [responded(450), responded(200)].concat();
    let first = got(&[("a", "5"), ("b", "B"), ("c", "C")]);
    let sent = step(&mut segment, &first, &both).unwrap();
    assert!(
        sent.contains("eHQ=\tLTc3\n"),
        "keeps its second, -77: {sent}"
    );
    assert!(
        sent.contains("eHQ=\tMzYwMA==\n"),
        "has an hour, 3600: {sent}"
    );
    assert_eq!(told(&segment), ["None", "Flag(true)", "b\"C\""]);
    // Only what is not answered is asked again.
    let sent = step(&mut segment, &got(&[("a", "9")]), &responded(200)).unwrap();
    assert!(
        sent.contains("b3ZhbA==\tOQ==\nbnZhbA==\tMTA=\n"),
        "9, then 10: {sent}"
    );
    assert_eq!(told(&segment)[0], "Number(Some(10))");
}

#[test]
fn what_others_change_all_the_time_is_given_up() {
    let ops = [incr("a"), get("b")];
    let mut segment = Segment::new(0, &ops);
    step(&mut segment, &got(&[("a", "5")]), &responded(450));
    segment.give_up("kt://");
    assert_eq!(told(&segment), ["Refused", "Entry(None)"]);
}

#[test]
fn what_is_behind_a_refusal_is_still_to_be_asked() {
    let ops = [delete("a"), set("b"), get("c"), incr("d")];
    let mut segment = Segment::new(0, &ops);
    step(&mut segment, b"\xB9\0\0\0\x01\xBF", b"");
    assert_eq!(told(&segment), ["Flag(true)", "Refused", "None", "None"]);
    let (batch, _) = segment.ask();
    assert_eq!(batch.questions, [RequestKind::Get(2)]);
}

#[test]
fn records_that_are_left_out_are_of_no_database() {
    let ops = [set("a"), set("b")];
    let mut segment = Segment::new(7, &ops);
    step(&mut segment, b"\xB8\0\0\0\0", b"");
    assert_eq!(told(&segment), ["Refused", "Refused"]);
}

#[test]
fn what_is_too_large_is_not_sent_and_replaces_what_was_there() {
    // Never touched, so that it takes no memory.
    let entry = Bytes::from(vec![0; MAX_DATA + 1]);
    let (a, b) = (name("a"), name("b"));
    let ops = [
        Op::Set {
            name: a,
            entry: entry.clone(),
            ttl: None,
        },
        Op::Add {
            name: b,
            entry,
            ttl: None,
        },
        get("c"),
    ];
    let mut segment = Segment::new(0, &ops);
    segment.refuse_what_is_too_large();
    let (batch, _) = segment.ask();
    assert_eq!(
        batch.questions,
        [RequestKind::Remove(1), RequestKind::Get(1)]
    );
    assert!(batch.bytes.len() < 100);
    let reply = [&b"\xB9\0\0\0\x01"[..], &got(&[("c", "C")])].concat();
    step(&mut segment, &reply, b"");
    assert_eq!(told(&segment), ["TooLarge", "TooLarge", "b\"C\""]);
}

#[test]
fn seconds_are_rounded_up() {
    let span = |secs, nanos| Some(Duration::new(secs, nanos));
    assert_eq!(seconds(None), None);
    assert_eq!(seconds(span(0, 1)), Some(1));
    assert_eq!(seconds(span(1, 0)), Some(1));
    assert_eq!(seconds(span(1, 1)), Some(2));
    assert_eq!(seconds(Some(Duration::MAX)), None);
    assert_eq!(seconds(span(i64::MAX as u64, 1)), None);
}

#[test]
fn an_entry_comes_with_the_time_it_has_left() {
    let left = |expires: i64| {
        let ops = [get("a")];
        let mut segment = Segment::new(0, &ops);
        let (mut reply, name) = (got(&[("a", "A")]), "aA".len());
        let at = reply.len() - name - size_of::<i64>();
        reply[at..at + size_of::<i64>()].copy_from_slice(&expires.to_be_bytes());
        step(&mut segment, &reply, b"");
        match segment.replies.pop() {
            Some(Some(Reply::Entry(Some(stored)))) => stored.left,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(left(77), Some(Duration::from_millis(2500)));
    assert_eq!(left(74), Some(Duration::ZERO));
    assert_eq!(left(NEVER_SEEN), None);
}

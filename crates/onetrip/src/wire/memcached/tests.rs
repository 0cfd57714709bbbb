use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 60 * 60;

fn written(command: &Command<'_>) -> String {
    let mut out = Vec::new();
    write(&mut out, b"key", command, 7);
    String::from_utf8(out).unwrap()
}

#[test]
fn commands_have_the_expected_bytes() {
    let expiry = Expiry(60);
    let set = |mode| Command::Set {
        value: b"a\r\nb",
        expiry,
        mode,
    };
    for (command, expected) in [
        (Command::Get, "mg key v O7\r\n"),
        (Command::Look, "mg key v c t O7\r\n"),
        (Command::Delete, "md key O7\r\n"),
        (Command::Flush, "flush_all\r\n"),
        (Command::Touch { expiry }, "mg key T60 O7\r\n"),
        (Command::Shift { by: 5, cas: 9 }, "ma key C9 MI D5 v O7\r\n"),
        (
            Command::Shift {
                by: i64::MIN,
                cas: 9,
            },
            "ma key C9 MD D9223372036854775808 v O7\r\n",
        ),
        (set(Mode::Always), "ms key 4 T60 O7\r\na\r\nb\r\n"),
        (set(Mode::Absent), "ms key 4 T60 ME O7\r\na\r\nb\r\n"),
        (set(Mode::Unchanged(9)), "ms key 4 T60 C9 O7\r\na\r\nb\r\n"),
    ] {
        assert_eq!(written(&command), expected);
    }
    let mut out = Vec::new();
    write_end(&mut out);
    assert_eq!(out, b"mn\r\n");
}

#[test]
fn times_are_relative_seconds_or_unix_times() {
    let expiry = |ttl| Expiry::new(Some(ttl), NOW).0;
    assert_eq!(Expiry::new(None, NOW).0, 0);
    assert_eq!(expiry(Duration::from_nanos(1)), 1);
    assert_eq!(expiry(Duration::from_millis(999)), 1);
    assert_eq!(expiry(Duration::from_secs(1)), 1);
    assert_eq!(expiry(Duration::from_millis(1001)), 2);
    assert_eq!(u64::from(expiry(Duration::from_secs(30 * DAY))), 30 * DAY);
    let beyond = u64::from(expiry(Duration::from_secs(30 * DAY + 1)));
    assert_eq!(beyond, NOW + 30 * DAY + 1);
    assert_eq!(
        expiry(Duration::from_secs(100 * 365 * DAY)),
        0,
        "beyond 2038"
    );
    assert_eq!(expiry(Duration::MAX), 0);
}

/// Returns what a server would write.
fn rendered(answers: &[Response], first: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (answer, opaque) in answers.iter().zip(first..) {
        let line = match answer {
            Response::Done => format!("HD O{opaque}"),
            Response::Absent => format!("EN O{opaque}"),
            Response::NotStored => format!("NS O{opaque}"),
            Response::Changed => format!("EX O{opaque}"),
            Response::Refused(why) => format!("SERVER_ERROR {why}"),
            Response::Flushed => "OK".to_owned(),
            Response::Value { value, cas, left } => {
                let cas = cas.map(|cas| format!(" c{cas}")).unwrap_or_default();
                let left = left.map(|left| format!(" t{left}")).unwrap_or_default();
                format!("VA {}{cas}{left} O{opaque}", value.len())
            }
        };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Response::Value { value, .. } = answer {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"MN\r\n");
    out
}

fn answer() -> impl Strategy<Value = Response> {
    // Some values look like the protocol itself.
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(MN|EN O0|HD O1|\r\n|VA 3 O0){0,4}".prop_map(String::into_bytes),
    ];
    let left = prop_oneof![Just(-1), 0..i64::MAX];
    prop_oneof![
        3 => (value, any::<Option<u64>>(), prop::option::of(left)).prop_map(|(value, cas, left)| {
            Response::Value { value: value.into(), cas, left }
        }),
        1 => Just(Response::Done),
        1 => Just(Response::Absent),
        1 => Just(Response::NotStored),
        1 => Just(Response::Changed),
        1 => Just(Response::Flushed),
        1 => "[a-z ]{0,20}".prop_map(Response::Refused),
    ]
}

fn read(bytes: &[u8], first: u64, count: usize) -> Result<(Progress, Vec<Response>), Nonsense> {
    let mut answers = Responses::new(first, count);
    let progress = answers.read(bytes)?;
    let received = Bytes::copy_from_slice(bytes);
    Ok((progress, answers.into_answers(received).collect()))
}

proptest! {
    #[test]
    fn answers_may_be_cut_anywhere(
        expected in prop::collection::vec(answer(), 0..8),
        first in 0..u64::MAX / 2,
    ) {
        let bytes = rendered(&expected, first);
        for cut in 0..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let mut answers = Responses::new(first, expected.len());
            let Progress::Missing(missing) = answers.read(front).unwrap() else {
                panic!("read to the end at {cut} of {}", bytes.len());
            };
            prop_assert!(0 < missing && missing <= back.len(), "{missing} at {cut}");
            prop_assert_eq!(answers.read(&bytes).unwrap(), Progress::Done);
            let received = Bytes::copy_from_slice(&bytes);
            prop_assert_eq!(&answers.into_answers(received).collect::<Vec<_>>(), &expected);
        }
    }

    #[test]
    fn answers_to_other_commands_are_nonsense(
        answers in prop::collection::vec(answer(), 1..8),
        first in 0..u64::MAX / 2,
        off in 1..1000_u64,
    ) {
        let told = |answer: &Response| !matches!(answer, Response::Refused(_) | Response::Flushed);
        let told = answers.iter().any(told);
        prop_assume!(told);
        let bytes = rendered(&answers, first);
        prop_assert!(read(&bytes, first + off, answers.len()).is_err());
        prop_assert!(read(&bytes, first, answers.len() + 1).is_err(), "too few");
        prop_assert!(read(&bytes, first, answers.len() - 1).is_err(), "too many");
        let more = [&bytes[..], b"x"].concat();
        prop_assert!(read(&more, first, answers.len()).is_err(), "and something behind");
    }

    #[test]
    fn garbage_is_no_value(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((progress, answers)) = read(&bytes, 1 << 40, 3) {
            // An answer without our token must not pass for an answer of ours.
            let refused = |answer: &Response| matches!(answer, Response::Refused(_) | Response::Flushed);
            prop_assert!(answers.iter().all(refused));
            prop_assert!(matches!(progress, Progress::Missing(_)));
        }
    }

    #[test]
    fn damaged_line_gives_no_other_value(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let value = Response::Value { value: "value".into(), cas: None, left: None };
        let expected = vec![Response::Absent, value, Response::Done];
        let mut bytes = rendered(&expected, 10);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok((Progress::Done, answers)) = read(&bytes, 10, 3) {
            // Only the entry's seal can detect a damaged or missing value.
            let tells = |answer: &Response| match answer {
                Response::Value { value, .. } => value.len() == 5,
                _ => true,
            };
            prop_assert!(answers.iter().all(tells));
        }
    }
}

#[test]
fn protocol_violations_are_nonsense() {
    for bytes in [
        "\r\n",
        "\n",
        "HD O1\n",
        "HD\r\n",
        "HD O2\r\n",
        "HD O1 O1\r\n",
        "HD O1 s5\r\n",
        "HD O\r\n",
        "HD O+1\r\n",
        "HD O1 c-1\r\n",
        "HD O1 t-2\r\n",
        "HD O99999999999999999999999\r\n",
        "VA O1\r\n",
        "VA -1 O1\r\n",
        "VA 1073741825 O1\r\n",
        "VA 99999999999999999999999 O1\r\n",
        "VA 1 O1\r\nabc",
        "VA 1 O2\r\n",
        "ERROR\r\n",
        "STORED\r\n",
        "VALUE key 0 1\r\n",
        "MN\r\n",
        "\u{fc} O1\r\n",
    ] {
        assert!(read(bytes.as_bytes(), 1, 1).is_err(), "{bytes:?}");
    }
    assert!(read(&[b'x'; MAX_LINE], 1, 1).is_err());
    assert!(read(&[b'x'; MAX_LINE - 1], 1, 1).is_ok());
}

#[test]
fn announced_bytes_are_awaited_and_not_allocated() {
    let (progress, answers) = read(b"VA 1073741824 O1\r\nx", 1, 1).unwrap();
    assert_eq!(progress, Progress::Missing((1 << 30) + 2 - 1));
    assert!(answers.is_empty());
}

#[test]
fn values_are_slices_of_one_buffer() {
    let value = |value: &'static str| Response::Value {
        value: value.into(),
        cas: None,
        left: None,
    };
    let received = Bytes::from(rendered(&[value("one"), value("two")], 0));
    let whole = received.as_ptr() as usize..received.as_ptr() as usize + received.len();
    let mut answers = Responses::new(0, 2);
    assert_eq!(answers.read(&received), Ok(Progress::Done));
    for answer in answers.into_answers(received) {
        let Response::Value { value, .. } = answer else {
            panic!("{answer:?}");
        };
        assert!(whole.contains(&(value.as_ptr() as usize)));
    }
}

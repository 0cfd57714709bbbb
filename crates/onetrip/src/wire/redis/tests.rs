use proptest::prelude::*;

use super::*;

/// Parses a line of these digits.
fn integer(text: &[u8]) -> Option<i64> {
    let line = [text, b"\r\n"].concat();
    let (number, length) = number(&line, "").ok()??;
    assert_eq!(length, line.len());
    Some(number)
}

/// Returns what a server would send for `value`.
fn written(value: &Value) -> Vec<u8> {
    match value {
        Value::Bulk(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
        Value::Nil => b"$-1\r\n".to_vec(),
        Value::Status(text) => [b"+", &**text, b"\r\n"].concat(),
        Value::Integer(number) => format!(":{number}\r\n").into_bytes(),
        Value::Error(error) => format!("-{error}\r\n").into_bytes(),
        Value::Array(values) => {
            let head = format!("*{}\r\n", values.len()).into_bytes();
            let values = values.iter().flat_map(written);
            head.into_iter().chain(values).collect()
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let line = || "[ -~]{0,20}";
    let leaf = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|text| Value::Bulk(text.into())),
        Just(Value::Nil),
        line().prop_map(|text| Value::Status(text.into())),
        any::<i64>().prop_map(Value::Integer),
        line().prop_map(|text| Value::Error(ServerError::new(text.as_bytes()))),
    ];
    leaf.prop_recursive(3, 40, 8, |inner| {
        proptest::collection::vec(inner, 0..8).prop_map(Value::Array)
    })
}

/// Reads `bytes` in pieces of these sizes, taking complete values whenever `takes` says.
fn read(
    bytes: &[u8],
    mut sizes: impl Iterator<Item = usize>,
    mut takes: impl FnMut() -> bool,
) -> Result<Vec<Value>, Nonsense> {
    let (mut reader, mut values) = (Reader::default(), Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        reader.room(size).extend_from_slice(piece);
        let missing = reader.scan()?;
        assert!(missing >= 1, "at least one more byte can follow");
        if takes() {
            values.extend(reader.take()?);
        }
        rest = after;
    }
    assert_eq!(reader.whole(), reader.whole);
    values.extend(reader.take()?);
    assert_eq!(reader.held(), 0, "nothing is left over");
    Ok(values)
}

proptest! {
    #[test]
    fn values_may_be_cut_anywhere(
        sent in proptest::collection::vec(values(), 0..8),
        sizes in proptest::collection::vec(1_usize..100, 1..50),
        takes in proptest::collection::vec(any::<bool>(), 1..20),
    ) {
        let bytes: Vec<u8> = sent.iter().flat_map(written).collect();
        let mut takes = takes.into_iter().cycle();
        let sizes = sizes.into_iter().cycle();
        let got = read(&bytes, sizes, || takes.next().unwrap());
        prop_assert_eq!(got, Ok(sent));
    }

    #[test]
    fn values_are_read_byte_by_byte_and_at_once(sent in proptest::collection::vec(values(), 0..4)) {
        let bytes: Vec<u8> = sent.iter().flat_map(written).collect();
        for size in [1, usize::MAX] {
            prop_assert_eq!(read(&bytes, std::iter::repeat(size), || false), Ok(sent.clone()));
        }
    }

    #[test]
    fn missing_bytes_are_never_overestimated(value in values()) {
        let bytes = written(&value);
        for cut in 0..bytes.len() {
            let mut reader = Reader::default();
            reader.room(cut).extend_from_slice(&bytes[..cut]);
            let missing = reader.scan().unwrap();
            prop_assert_eq!(reader.whole(), 0);
            prop_assert!((1..=bytes.len() - cut).contains(&missing));
        }
    }

    #[test]
    fn garbage_is_refused_or_awaited(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = Reader::default();
        reader.room(0).extend_from_slice(&bytes);
        if reader.scan().is_ok() {
            reader.take().unwrap();
        }
    }

    #[test]
    fn near_protocol_bytes_are_refused_or_awaited(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b':'), Just(b'-'), Just(b'1'), Just(b'9'),
                Just(b'\r'), Just(b'\n'), Just(b'+')],
            0..100,
        ),
    ) {
        let mut reader = Reader::default();
        for byte in bytes {
            reader.room(1).push(byte);
            if reader.scan().is_err() {
                break;
            }
            let _ = reader.take();
        }
    }

    #[test]
    fn digits_equal_formatting(number in any::<u64>()) {
        let digits = Digits::of(number);
        prop_assert_eq!(digits.as_ref(), number.to_string().into_bytes());
    }

    #[test]
    fn integers_are_read_as_they_are_written(number in any::<i64>()) {
        prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
    }

    #[test]
    fn command_is_an_array_of_strings(words in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..40), 1..10,
    )) {
        let mut commands = Commands::default();
        let all: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        commands.put(&all);
        let (first, others) = all.split_at(1);
        commands.put_list(first, others.iter().copied());
        prop_assert_eq!(commands.count, 2);
        let command = Value::Array(words.into_iter().map(|word| Value::Bulk(word.into())).collect());
        let got = read(&commands.bytes, std::iter::repeat(usize::MAX), || false);
        prop_assert_eq!(got, Ok(vec![command.clone(), command]));
    }
}

#[test]
fn invalid_numbers_are_refused() {
    for text in [
        "",
        "-",
        "+1",
        "1 ",
        " 1",
        "1a",
        "9223372036854775808",
        "--1",
    ] {
        assert_eq!(integer(text.as_bytes()), None, "{text:?}");
    }
}

fn refused(bytes: &[u8]) -> &'static str {
    let mut reader = Reader::default();
    reader.room(bytes.len()).extend_from_slice(bytes);
    reader.scan().unwrap_err().0
}

#[test]
fn protocol_violations_are_refused() {
    assert_eq!(refused(b"HTTP/1.1 400\r\n"), "a value of unknown type");
    assert_eq!(refused(b"\r\n"), "a value of unknown type");
    assert_eq!(refused(b"+OK\n"), "a line that does not end with CRLF");
    assert_eq!(refused(b":five\r\n"), "an invalid number");
    assert_eq!(refused(b":5\n"), "an invalid number");
    assert_eq!(
        refused(&[b":", &[b'0'; MOST_DIGITS][..]].concat()),
        "an invalid number"
    );
    assert_eq!(refused(b"$-2\r\n"), "an invalid size");
    assert_eq!(refused(b"$9999999999999\r\n"), "an invalid size");
    assert_eq!(refused(b"*-2\r\n"), "an invalid size");
    assert_eq!(refused(b"$3\r\nabcdef"), "a string of the wrong length");
    assert_eq!(
        refused("*1\r\n".repeat(MAX_DEPTH + 1).as_bytes()),
        "arrays nested too deeply"
    );
    assert_eq!(refused(&[b'+'; MAX_LINE]), "an endless line");
}

/// A server that announces a large value gets no memory for it.
#[test]
fn announced_sizes_are_not_allocated() {
    let mut reader = Reader::default();
    reader
        .room(0)
        .extend_from_slice(b"*9223372036854775807\r\n$1073741824\r\n");
    assert_eq!(reader.scan(), Ok((1 << 30) + 2));
    assert!(reader.room(1).capacity() < 100);
}

#[test]
fn full_buffer_is_handed_out_and_sparse_one_is_copied() {
    let text = [b'x'; 1000];
    let value = written(&Value::Bulk(Bytes::copy_from_slice(&text)));
    for (room, shares) in [(value.len(), true), (value.len() * 4, false)] {
        let mut reader = Reader::default();
        let buffer = reader.room(room);
        buffer.extend_from_slice(&value);
        let place = buffer.as_ptr() as usize;
        reader.scan().unwrap();
        let Some(Value::Bulk(read)) = reader.take().unwrap().pop() else {
            unreachable!("a string was sent");
        };
        assert_eq!(read.as_ref(), text);
        assert_eq!(read.as_ptr() as usize == place + 7, shares);
    }
}

#[test]
fn buffer_is_reused_once_nobody_holds_its_values() {
    let mut reader = Reader::default();
    let mut read = |text: &[u8]| {
        let value = written(&Value::Bulk(Bytes::copy_from_slice(text)));
        let buffer = reader.room(200);
        let place = buffer.as_ptr();
        buffer.extend_from_slice(&value);
        reader.scan().unwrap();
        (place, reader.take().unwrap())
    };
    let (first, held) = read(&[b'x'; 150]);
    let (second, dropped) = read(&[b'y'; 150]);
    assert_ne!(first, second, "the first is held");
    assert_eq!(held, [Value::Bulk(Bytes::from_static(&[b'x'; 150]))]);
    drop(dropped);
    let (third, _) = read(&[b'z'; 150]);
    assert_eq!(second, third);
}

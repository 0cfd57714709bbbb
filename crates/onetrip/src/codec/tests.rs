//! What is read by serde, and what is refused: `Cache` shows only that it is a miss.

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::*;
use crate::strip_extensions::strip_extensions;

fn content(kind: Kind, payload: impl Into<Vec<u8>>) -> Content {
    Content {
        kind,
        payload: Bytes::from(payload.into()),
    }
}

fn native<T: DeserializeOwned>(payload: &[u8]) -> Result<T, BadEntry> {
    decode(&content(Kind::Native, payload))
}

/// `payload` under a tag, in the widest form of an extension.
fn tagged(tag: i8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut out = vec![0xC9];
    out.extend_from_slice(&length.to_be_bytes());
    out.push(tag.cast_unsigned());
    out.extend_from_slice(payload);
    out
}

fn nested(depth: usize, inner: &[u8]) -> Vec<u8> {
    [vec![0x91; depth], inner.to_vec()].concat()
}

#[test]
fn a_lone_scalar_leaves_its_header() {
    let encoded = |value: &Value| {
        let mut out = b"before".to_vec();
        let kind = encode(value, &mut out).unwrap();
        let payload = out.strip_prefix(b"before").unwrap().to_vec();
        (kind, payload)
    };
    let long = "x".repeat(300);
    assert_eq!(encoded(&json!("hi")), (Kind::Str, b"hi".to_vec()));
    assert_eq!(encoded(&json!("")), (Kind::Str, vec![]));
    assert_eq!(encoded(&json!(long)), (Kind::Str, long.into_bytes()));
    assert_eq!(encoded(&json!(-300)), (Kind::Integer, b"-300".to_vec()));
    assert_eq!(encoded(&json!(null)), (Kind::Native, vec![0xC0]));
    assert_eq!(encoded(&json!(true)), (Kind::Native, vec![0xC3]));
    assert_eq!(
        encoded(&json!(["hi"])),
        (Kind::Native, b"\x91\xa2hi".to_vec())
    );
    let wide = encoded(&json!(u64::MAX));
    assert_eq!(wide, (Kind::Native, [vec![0xCF], vec![0xFF; 8]].concat()));
}

#[test]
fn a_reader_that_cares_for_no_tag_reads_the_value_within() {
    let list = tagged(tag::TUPLE, b"\x92\x01\xa1a");
    assert_eq!(native(&list), Ok((1, "a".to_owned())));
    assert_eq!(native(&list), Ok(json!([1, "a"])));
    let deep = [&b"\x81\xa4when"[..], &tagged(tag::DATE, b"\xaa2026-11-22")].concat();
    assert_eq!(native(&deep), Ok(json!({"when": "2026-11-22"})));
    let twice = tagged(
        tag::TUPLE,
        &[&b"\x91"[..], &tagged(tag::SET, b"\x91\x01")].concat(),
    );
    assert_eq!(native(&twice), Ok(vec![vec![1]]));
    // A tag of the future is as good as any.
    assert_eq!(native(&tagged(99, b"\x05")), Ok(5));
    assert_eq!(native(&tagged(-1, b"\x05")), Ok(Some(5)));
}

#[test]
fn each_form_of_an_extension_is_read() {
    for held in [
        b"\x05".to_vec(),
        b"\xa1a".to_vec(),
        b"\xa3abc".to_vec(),
        b"\xa7abcdefg".to_vec(),
        b"\xafabcdefghijklmno".to_vec(),
    ] {
        let fixed = match held.len() {
            1 => 0xD4,
            2 => 0xD5,
            4 => 0xD6,
            8 => 0xD7,
            _ => 0xD8,
        };
        let plain: Value = native(&held).unwrap();
        let length = u8::try_from(held.len()).unwrap();
        let fixed = [&[fixed, 12][..], &held].concat();
        let short = [&[0xC7, length, 12][..], &held].concat();
        let middle = [&[0xC8, 0, length, 12][..], &held].concat();
        for form in [fixed, short, middle, tagged(12, &held)] {
            assert_eq!(native(&form), Ok(plain.clone()), "{form:02x?}");
        }
    }
}

#[test]
fn what_is_not_one_whole_value_is_refused() {
    for payload in [
        &b""[..],
        b"\x01\x02",
        b"\xc1",
        b"\x91",
        b"\xa2a",
        b"\xc7\x00\x01",
        b"\xc7\x02\x01\x05\x05",
        b"\xc7\x02\x01\x05",
        b"\xc7\x01\x01\x05\x05",
    ] {
        assert_eq!(
            native::<Value>(payload),
            Err(BadEntry::Undecodable),
            "{payload:02x?}"
        );
    }
}

#[test]
fn a_few_bytes_cannot_ask_for_much_memory_or_time() {
    for payload in [
        b"\xdd\xff\xff\xff\xff".to_vec(),
        b"\xdf\xff\xff\xff\xff".to_vec(),
        b"\xc6\xff\xff\xff\xff".to_vec(),
        b"\xdb\xff\xff\xff\xff".to_vec(),
        b"\xc9\xff\xff\xff\xff\x01".to_vec(),
        tagged(1, b"\xdd\xff\xff\xff\xff"),
        tagged(1, b"\xdf\xff\xff\xff\xff"),
    ] {
        assert!(native::<Value>(&payload).is_err());
        assert!(native::<Vec<u64>>(&payload).is_err());
        assert!(native::<String>(&payload).is_err());
        assert_eq!(strip_extensions(&payload), None);
    }
}

#[test]
fn nesting_has_a_bound_and_so_has_the_stack() {
    // Half of what is allowed is read by every reader, whatever a tag counts for.
    let fine = nested(MAX_DEPTH / 2, b"\x05");
    assert!(native::<Value>(&fine).is_ok());
    assert!(native::<Value>(&tagged(1, &fine)).is_ok());
    for depth in [MAX_DEPTH + 1, 100_000, 5_000_000] {
        assert!(native::<IgnoredAny>(&nested(depth, b"\x05")).is_err());
        assert_eq!(strip_extensions(&nested(depth, b"\xc7\x01\x01\x05")), None);
    }
    let tags = (0..2 * MAX_DEPTH).fold(b"\x05".to_vec(), |held, _| tagged(1, &held));
    assert_eq!(strip_extensions(&tags), None);
    assert!(native::<Value>(&tags).is_err());
}

#[test]
fn a_pickle_is_nothing_for_serde() {
    let pickle = content(Kind::Pickle, b"\x80\x05N.".as_slice());
    assert_eq!(decode::<Value>(&pickle), Err(BadEntry::Undecodable));
    assert_eq!(Presence.decode(&pickle), Ok(()));
}

#[test]
fn a_number_is_read_as_any_type_that_holds_it() {
    let number = |digits: &str| content(Kind::Integer, digits);
    assert_eq!(decode::<u8>(&number("255")), Ok(255));
    assert_eq!(decode::<u8>(&number("256")), Err(BadEntry::Undecodable));
    assert_eq!(decode::<u64>(&number("-1")), Err(BadEntry::Undecodable));
    assert_eq!(decode::<f64>(&number("3")), Ok(3.0));
    assert_eq!(decode::<i128>(&number("3")), Ok(3));
    assert_eq!(decode::<Option<i64>>(&number("3")), Ok(Some(3)));
    assert_eq!(decode::<String>(&number("3")), Err(BadEntry::Undecodable));
    assert_eq!(decode::<bool>(&number("1")), Err(BadEntry::Undecodable));
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|truth| json!(truth)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,40}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::hash_map("\\PC{0,10}", inner, 0..10)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(value in json_values()) {
        let mut out = Vec::new();
        let kind = encode(&value, &mut out).unwrap();
        prop_assert_eq!(decode(&content(kind, out)), Ok(value));
    }

    #[test]
    fn a_tag_anywhere_changes_nothing_for_serde(value in json_values(), tag: i8) {
        // Not `encode`: a lone string would lose the header that a tag must hold.
        let plain = rmp_serde::to_vec_named(&json!([value])).unwrap();
        let within = [&b"\x91"[..], &tagged(tag, &plain[1..])].concat();
        let untagged = strip_extensions(&within);
        prop_assert_eq!(untagged.as_ref(), Some(&plain));
        let around = strip_extensions(&tagged(tag, &plain));
        prop_assert_eq!(around.as_ref(), Some(&plain));
        prop_assert_eq!(native::<Value>(&within), Ok(json!([value])));
    }

    #[test]
    fn cut_short_it_is_refused(value in json_values(), at: prop::sample::Index) {
        let whole = rmp_serde::to_vec_named(&value).unwrap();
        let cut = &whole[..at.index(whole.len())];
        prop_assert!(native::<Value>(cut).is_err());
        prop_assert!(native::<Value>(&tagged(1, cut)).is_err());
    }

    #[test]
    fn anything_at_all_is_read_or_refused(
        payload in prop::collection::vec(prop_oneof![
            any::<u8>(),
            // Markers of containers and extensions more often than chance has them.
            0x80_u8..0xA0,
            0xC0_u8..0xE0,
            0_u8..4,
        ], 0..60),
    ) {
        let all = [Kind::Native, Kind::Str, Kind::Bytes, Kind::Integer, Kind::Pickle];
        for kind in all {
            let content = content(kind, payload.clone());
            let _ = decode::<Value>(&content);
            let _ = decode::<IgnoredAny>(&content);
            let _ = decode::<Vec<Option<String>>>(&content);
            let _ = decode::<(i8, Vec<u8>)>(&content);
            let _ = decode::<u128>(&content);
        }
        if let Some(plain) = strip_extensions(&payload) {
            prop_assert!(plain.len() < payload.len());
            prop_assert_eq!(strip_extensions(&plain), None, "no tag is left");
        }
    }
}

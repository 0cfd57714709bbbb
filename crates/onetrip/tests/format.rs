//! The format of entries: its test vectors, both ways, and whatever else may stand in a store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

use std::time::Duration;

use bytes::Bytes;
use onetrip::internals::MAX_EXPANDED;
use onetrip::internals::entry::{BadEntry, Content, Fields, Kind, Name, Sealer, Tag};
use onetrip::trip::{Op, Trip};
use onetrip::{Cache, Compression, blocking, store};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use twox_hash::XxHash3_64;

#[derive(Deserialize)]
struct Vectors {
    good: Vec<Good>,
    bad: Vec<Bad>,
}

#[derive(Deserialize)]
struct Good {
    title: String,
    #[serde(flatten)]
    name: VectorName,
    secret: Option<String>,
    compression: Option<String>,
    fields: Option<VectorFields>,
    /// Whether it has what a reader skips and no writer writes.
    #[serde(default)]
    skips: bool,
    kind: String,
    payload: String,
    entry: String,
    value: Value,
    /// `None` where JSON cannot hold the value; `Some(Value::Null)` where it is null.
    #[serde(default, deserialize_with = "given")]
    plain: Option<Value>,
}

#[derive(Deserialize)]
struct Bad {
    title: String,
    #[serde(flatten)]
    name: VectorName,
    secret: Option<String>,
    entry: String,
    reason: String,
    #[serde(default)]
    opens: bool,
}

/// Times are in milliseconds since 1970, the cost is in microseconds.
#[derive(Deserialize)]
struct VectorFields {
    end: Option<u64>,
    made: Option<u64>,
    fresh_until: Option<u64>,
    cost: Option<u64>,
    #[serde(default)]
    tags: Vec<(String, u64)>,
}

impl From<&VectorFields> for Fields {
    fn from(of: &VectorFields) -> Self {
        let tags = of.tags.iter().map(|(name, version)| Tag {
            name: Bytes::copy_from_slice(name.as_bytes()),
            version: *version,
        });
        let mut fields = Self::default();
        fields.end = of.end.map(Duration::from_millis);
        fields.made = of.made.map(Duration::from_millis);
        fields.fresh_until = of.fresh_until.map(Duration::from_millis);
        fields.cost = of.cost.map(Duration::from_micros);
        fields.tags = tags.collect();
        fields
    }
}

#[derive(Deserialize)]
struct VectorName {
    name: Option<String>,
    name_hex: Option<String>,
}

impl VectorName {
    fn bytes(&self) -> Vec<u8> {
        let hex = self.name_hex.as_deref().map(unhex);
        hex.unwrap_or_else(|| self.name.clone().unwrap().into_bytes())
    }
}

fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn vectors() -> Vectors {
    let text = include_str!("../../../docs/format-vectors.json");
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn named(name: &[u8]) -> Name<'_> {
    Name {
        prefix: b"",
        key: name,
    }
}

fn sealer(secret: Option<&str>, compression: Option<Compression>) -> Sealer {
    let secrets: Vec<Vec<u8>> = secret.into_iter().map(Into::into).collect();
    Sealer::new(&secrets, compression, 0)
}

fn kind(word: &str) -> Kind {
    match word {
        "bytes" => Kind::Bytes,
        "str" => Kind::Str,
        "native" => Kind::Native,
        "pickle" => Kind::Pickle,
        "integer" => Kind::Integer,
        other => panic!("{other} is no kind"),
    }
}

fn seal_telling(
    sealer: &Sealer,
    name: &[u8],
    kind: Kind,
    payload: &[u8],
    fields: &Fields,
) -> Bytes {
    let mut draft = sealer.draft(fields);
    draft.extend_from_slice(payload);
    sealer.seal(named(name), kind, draft)
}

fn seal(sealer: &Sealer, name: &[u8], kind: Kind, payload: &[u8]) -> Bytes {
    seal_telling(sealer, name, kind, payload, &Fields::default())
}

/// A cache, and the store that it reads.
struct Shelf {
    cache: blocking::Cache,
    url: String,
}

impl Shelf {
    fn new(name: &str, secret: Option<&str>) -> Self {
        let url = format!("memory://format-{name}");
        let cache = Cache::builder(&url).ttl(None).secrets(secret);
        let cache = cache.build().unwrap().blocking();
        Self { cache, url }
    }

    fn exchange(&self, op: Op) -> onetrip::trip::Reply {
        let options = store::StoreOptions {
            clock: onetrip::Clock::system(),
            connect_timeout: std::time::Duration::from_secs(1),
            trip_timeout: std::time::Duration::from_secs(1),
        };
        let store = store::open(&self.url, &options).unwrap();
        match store.exchange(&Trip::from(op)) {
            store::Exchange::Ready(mut replies) => replies.pop().unwrap(),
            _ => panic!("a local store answers at once"),
        }
    }

    fn plant(&self, name: &[u8], entry: &[u8]) {
        self.exchange(Op::Set {
            name: Bytes::copy_from_slice(name),
            entry: Bytes::copy_from_slice(entry),
            ttl: None,
        });
    }

    fn planted(&self, name: &[u8]) -> Option<Bytes> {
        let name = Bytes::copy_from_slice(name);
        match self.exchange(Op::Get { name }) {
            onetrip::trip::Reply::Entry(stored) => stored.map(|stored| stored.bytes),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn good_vectors_open() {
    for vector in vectors().good {
        let (title, entry) = (&vector.title, Bytes::from(unhex(&vector.entry)));
        let expected = Content {
            kind: kind(&vector.kind),
            payload: unhex(&vector.payload).into(),
        };
        let sealer = sealer(vector.secret.as_deref(), None).with_pickle();
        let opened = sealer.open(named(&vector.name.bytes()), &entry);
        assert_eq!(opened, Ok(expected), "{title}");
        let fields = vector.fields.as_ref().map(Fields::from);
        assert_eq!(sealer.fields(&entry), fields.unwrap_or_default(), "{title}");
    }
}

#[test]
fn good_vectors_are_what_is_sealed() {
    for vector in vectors().good {
        // Compressors may find shorter forms from one version to the next.
        if vector.compression.is_none() && !vector.skips {
            let sealer = sealer(vector.secret.as_deref(), None);
            let (kind, payload) = (kind(&vector.kind), unhex(&vector.payload));
            let name = vector.name.bytes();
            let fields = vector.fields.as_ref().map(Fields::from).unwrap_or_default();
            let sealed = seal_telling(&sealer, &name, kind, &payload, &fields);
            assert_eq!(sealed, unhex(&vector.entry), "{}", vector.title);
        }
    }
}

#[test]
fn good_vectors_are_read_by_serde() {
    for vector in vectors().good {
        let shelf = Shelf::new("read", vector.secret.as_deref());
        let name = vector.name.bytes();
        if let Some(plain) = vector.plain {
            shelf.plant(&name, &unhex(&vector.entry));
            let value: Option<Value> = shelf.cache.get(&name).unwrap();
            assert_eq!(value, Some(plain), "{}", vector.title);
        }
    }
}

#[test]
fn good_vectors_are_written_by_serde() {
    for vector in vectors().good {
        let shelf = Shelf::new("write", vector.secret.as_deref());
        // What JSON holds as it is; a tag is more than serde writes.
        let is_plain = vector.plain.as_ref() == Some(&vector.value);
        // A plain write tells no fields.
        if is_plain && vector.compression.is_none() && vector.fields.is_none() {
            let name = vector.name.bytes();
            shelf.cache.set(&name, &vector.value).unwrap();
            let written = shelf.planted(&name).unwrap();
            assert_eq!(written, unhex(&vector.entry), "{}", vector.title);
        }
    }
}

#[test]
fn bad_vectors_are_refused_for_their_reason() {
    for vector in vectors().bad {
        let sealer = sealer(vector.secret.as_deref(), None);
        let entry = Bytes::from(unhex(&vector.entry));
        let opened = sealer.open(named(&vector.name.bytes()), &entry);
        let reason = match vector.reason.as_str() {
            "foreign" => BadEntry::Foreign,
            "cut_short" => BadEntry::CutShort,
            "broken" => BadEntry::Broken,
            "unsigned" => BadEntry::Unsigned,
            "pickled" => BadEntry::Pickled,
            "inflated" => BadEntry::Inflated,
            "undecodable" => BadEntry::Undecodable,
            other => panic!("{other} is no reason"),
        };
        if vector.opens {
            assert!(opened.is_ok(), "{}", vector.title);
        } else {
            assert_eq!(opened, Err(reason), "{}", vector.title);
        }
    }
}

#[test]
fn bad_vectors_are_counted_misses() {
    for vector in vectors().bad {
        let shelf = Shelf::new("bad", vector.secret.as_deref());
        let (name, title) = (vector.name.bytes(), &vector.title);
        shelf.plant(&name, &unhex(&vector.entry));
        assert_eq!(shelf.cache.get::<Value>(&name).unwrap(), None, "{title}");
        let stats = shelf.cache.asynchronous().stats();
        assert_eq!((stats.misses, stats.bad_entries), (1, 1), "{title}");
    }
}

#[test]
fn no_field_takes_a_byte_when_it_is_missing() {
    let entry =
        |fields: &Fields| seal_telling(&sealer(None, None), b"a", Kind::Str, b"hello", fields);
    let mut fields = Fields::default();
    assert_eq!(entry(&fields).len(), 4 + 8 + 5);
    fields.end = Some(Duration::from_millis(7));
    assert_eq!(entry(&fields).len(), 4 + 8 + 1 + 10 + 5);
    fields.cost = Some(Duration::from_micros(7));
    assert_eq!(entry(&fields).len(), 4 + 8 + 1 + 20 + 5);
}

#[test]
fn raw_bytes_tell_no_fields() {
    let mut fields = Fields::default();
    fields.end = Some(Duration::from_millis(7));
    let theirs = seal_telling(&sealer(None, None), b"a", Kind::Str, b"hello", &fields);
    let raw = Sealer::bare();
    assert_eq!(raw.fields(&theirs), Fields::default());
    let ours = seal_telling(&raw, b"a", Kind::Bytes, b"hello", &fields);
    assert_eq!(ours, &b"hello"[..]);
}

#[test]
fn what_compression_makes_no_smaller_stays_plain() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = (0..2000).map(|_| noise()).collect();
    for with in [Compression::Zstd, Compression::Lz4] {
        let sealer = sealer(None, Some(with));
        for payload in [&b""[..], b"x", b"hello", &noise] {
            let entry = seal(&sealer, b"name", Kind::Bytes, payload);
            assert_eq!(entry[2] >> 4, 0, "{} bytes with {with:?}", payload.len());
            assert_eq!(entry.len(), 12 + payload.len());
        }
        let entry = seal(&sealer, b"name", Kind::Bytes, &[7; 100]);
        assert_ne!(entry[2] >> 4, 0, "{with:?}");
        assert!(entry.len() < 60, "{with:?}");
    }
}

#[test]
fn what_is_below_the_threshold_stays_plain() {
    let sealer = Sealer::new(&[], Some(Compression::Zstd), 100);
    let compressed = |length| seal(&sealer, b"name", Kind::Bytes, &vec![7; length])[2] >> 4;
    assert_eq!((compressed(99), compressed(100)), (0, 1));
}

#[test]
fn what_could_not_be_expanded_again_is_not_compressed() {
    let sealer = sealer(None, Some(Compression::Lz4));
    let payload = vec![0; MAX_EXPANDED + 1];
    let entry = seal(&sealer, b"name", Kind::Bytes, &payload);
    assert_eq!(entry[2] >> 4, 0);
    assert_eq!(
        sealer.open(named(b"name"), &entry).unwrap().payload,
        payload
    );
}

#[test]
fn what_expands_beyond_the_bound_is_refused() {
    let beyond = MAX_EXPANDED + 1;
    let zstd = zstd::bulk::compress(&vec![0; beyond], 1).unwrap();
    // A nought, a match of all but the last five at distance one, and those five.
    let more = beyond - 6 - 4 - 15;
    let match_length = [vec![255; more / 255], vec![(more % 255) as u8]].concat();
    let lz4 = [&[0x1F, 0, 1, 0][..], &match_length, &[0x50, 0, 0, 0, 0, 0]].concat();
    for (code, packed) in [(1_u8, zstd), (2, lz4)] {
        // Half a megabyte or less, and whole in every other way.
        let length = u32::try_from(beyond).unwrap().to_le_bytes();
        let payload = [&length[..], &packed].concat();
        let preamble = [0xC1, 2, code << 4, 0];
        let seed = XxHash3_64::oneshot_with_seed(u32::from_le_bytes(preamble).into(), b"name");
        let seal = XxHash3_64::oneshot_with_seed(seed, &payload);
        let entry = [&preamble[..], &seal.to_le_bytes(), &payload].concat();
        let opened = sealer(None, None).open(named(b"name"), &entry.into());
        assert_eq!(opened, Err(BadEntry::Inflated), "compression {code}");
    }
}

/// The options of a sealer, which does not show its own.
#[derive(Clone, Debug)]
struct Setup {
    secret: Option<String>,
    compression: Option<Compression>,
}

impl Setup {
    fn sealer(&self) -> Sealer {
        sealer(self.secret.as_deref(), self.compression)
    }
}

fn setups() -> impl Strategy<Value = Setup> {
    let compression = prop_oneof![
        Just(None),
        Just(Some(Compression::Zstd)),
        Just(Some(Compression::Lz4)),
    ];
    let parts = (prop::option::of("[a-z]{1,80}"), compression);
    parts.prop_map(|(secret, compression)| Setup {
        secret,
        compression,
    })
}

/// What has a header: all but integers, which are what the store adds to.
fn contents() -> impl Strategy<Value = Content> {
    // Runs, so that there is something to compress.
    let runs = prop::collection::vec((any::<u8>(), 1_usize..40), 0..12);
    let bytes = runs.prop_map(|runs| {
        let runs = runs.into_iter().map(|(byte, count)| vec![byte; count]);
        runs.collect::<Vec<_>>().concat()
    });
    let payload = prop_oneof![
        bytes.clone().prop_map(|bytes| (Kind::Bytes, bytes)),
        bytes.prop_map(|bytes| (Kind::Native, bytes)),
        "\\PC{0,60}".prop_map(|text| (Kind::Str, text.into_bytes())),
    ];
    payload.prop_map(|(kind, payload)| Content {
        kind,
        payload: payload.into(),
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    let millis = || prop::option::of(any::<u64>().prop_map(Duration::from_millis));
    let micros = prop::option::of(any::<u64>().prop_map(Duration::from_micros));
    let tag = (prop::collection::vec(any::<u8>(), 0..200), any::<u64>());
    let tags = prop::collection::vec(tag, 0..4);
    let parts = (millis(), millis(), millis(), micros, tags);
    parts.prop_map(|(end, made, fresh_until, cost, tags)| {
        let tags = tags.into_iter().map(|(name, version)| Tag {
            name: name.into(),
            version,
        });
        let mut fields = Fields::default();
        fields.end = end;
        fields.made = made;
        fields.fresh_until = fresh_until;
        fields.cost = cost;
        fields.tags = tags.collect();
        fields
    })
}

/// A list of fields as any writer might write it: ids, and lengths of values that may be wrong.
fn lists() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![0_u8..6, 125_u8..132, any::<u8>()];
    let wrong = prop_oneof![6 => Just(0_i8), 1 => -2_i8..3];
    let field = (id, prop::collection::vec(any::<u8>(), 0..12), wrong);
    let fields = prop::collection::vec(field, 0..4);
    fields.prop_map(|fields| {
        let fields = fields.into_iter().map(|(id, value, wrong)| {
            let length = (value.len() as u8).saturating_add_signed(wrong);
            [vec![id, length], value].concat()
        });
        let list = fields.collect::<Vec<_>>().concat();
        [vec![list.len() as u8], list].concat()
    })
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..20)
}

/// Ways in which bytes go bad.
#[derive(Clone, Debug)]
enum Harm {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Append(Vec<u8>),
}

fn harms() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Harm::Cut),
        (index(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Harm::Insert(at, byte)),
        index().prop_map(Harm::Remove),
        prop::collection::vec(any::<u8>(), 1..5).prop_map(Harm::Append),
    ]
}

fn harmed(entry: &[u8], harm: &Harm) -> Vec<u8> {
    let mut entry = entry.to_vec();
    match harm {
        Harm::Cut(at) => entry.truncate(at.index(entry.len())),
        Harm::Flip(at, bit) => {
            let at = at.index(entry.len());
            entry[at] ^= 1 << bit;
        }
        Harm::Insert(at, byte) => entry.insert(at.index(entry.len()), *byte),
        Harm::Remove(at) => drop(entry.remove(at.index(entry.len()))),
        Harm::Append(more) => entry.extend(more),
    }
    entry
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_opens(
        setup in setups(),
        name in names(),
        content in contents(),
        fields in fields(),
    ) {
        let sealer = setup.sealer();
        let entry = seal_telling(&sealer, &name, content.kind, &content.payload, &fields);
        prop_assert_eq!(sealer.open(named(&name), &entry), Ok(content));
        prop_assert_eq!(sealer.fields(&entry), fields);
    }

    #[test]
    fn a_number_is_its_digits(
        setup in setups(),
        name in names(),
        number in any::<i64>(),
        fields in fields(),
    ) {
        let digits = number.to_string();
        let sealer = setup.sealer();
        let entry = seal_telling(&sealer, &name, Kind::Integer, digits.as_bytes(), &fields);
        prop_assert_eq!(&entry, digits.as_bytes());
        prop_assert_eq!(sealer.fields(&entry), Fields::default());
        let content = setup.sealer().open(named(&name), &entry);
        prop_assert_eq!(content.map(|content| content.kind), Ok(Kind::Integer));
        prop_assert_eq!(onetrip::internals::entry::integer(&entry), Some(number));
    }

    #[test]
    fn only_what_a_store_writes_is_a_number(text in "[-+ ]?[0-9]{0,21}") {
        let number = onetrip::internals::entry::integer(text.as_bytes());
        let canonical = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(number, canonical);
    }

    #[test]
    fn where_the_prefix_ends_does_not_matter(
        setup in setups(),
        name in prop_oneof![names(), prop::collection::vec(any::<u8>(), 100..400)],
        split in any::<prop::sample::Index>(),
    ) {
        let sealer = setup.sealer();
        let (prefix, key) = name.split_at(split.index(name.len() + 1));
        let entry = seal(&sealer, &name, Kind::Str, b"hello");
        let opened = sealer.open(Name { prefix, key }, &entry);
        prop_assert!(opened.is_ok());
    }

    #[test]
    fn harm_is_noticed(
        setup in setups(),
        name in names(),
        content in contents(),
        fields in fields(),
        harm in harms(),
    ) {
        let sealer = setup.sealer();
        let entry = seal_telling(&sealer, &name, content.kind, &content.payload, &fields);
        let bad = harmed(&entry, &harm);
        prop_assume!(bad != entry);
        prop_assert!(setup.sealer().open(named(&name), &bad.into()).is_err());
    }

    #[test]
    fn another_name_is_noticed(setup in setups(), name in names(), harm in harms(), content in contents()) {
        let entry = seal(&setup.sealer(), &name, content.kind, &content.payload);
        let other = harmed(&name, &harm);
        prop_assume!(other != name);
        prop_assert_eq!(setup.sealer().open(named(&other), &entry), Err(BadEntry::Broken));
    }

    #[test]
    fn anything_at_all_is_opened_or_refused(
        setup in setups(),
        name in names(),
        start in prop_oneof![Just(vec![]), Just(vec![0xC1, 2]), Just(vec![0xC1, 2, 0x12, 0])],
        rest in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let entry = Bytes::from([start, rest].concat());
        if let Ok(content) = setup.sealer().open(named(&name), &entry) {
            // Bytes that nobody sealed open by chance alone, but for numbers.
            prop_assert_eq!(content.kind, Kind::Integer);
        }
    }

    /// Any list of fields, sealed by a writer of whatever version.
    #[test]
    fn any_sealed_list_is_read_or_refused(list in lists(), payload in "[a-z]{0,9}") {
        let preamble = [0xC1, 2, 1, 2];
        let body = [list.as_slice(), payload.as_bytes()].concat();
        let seed = XxHash3_64::oneshot_with_seed(u32::from_le_bytes(preamble).into(), b"a");
        let seal = XxHash3_64::oneshot_with_seed(seed, &body).to_le_bytes();
        let entry = Bytes::from([&preamble[..], &seal, &body].concat());
        let sealer = sealer(None, None);
        match sealer.open(named(b"a"), &entry) {
            Ok(content) => {
                prop_assert_eq!(content.payload, payload.as_bytes());
                let again = seal_telling(&sealer, b"a", Kind::Str, payload.as_bytes(), &sealer.fields(&entry));
                prop_assert_eq!(sealer.fields(&again), sealer.fields(&entry));
            }
            Err(bad) => prop_assert!(matches!(bad, BadEntry::CutShort | BadEntry::Foreign)),
        }
    }

    /// What a writer that is whole but hostile, or of another program, might have sealed.
    #[test]
    fn any_sealed_payload_is_read_or_refused(
        kind in prop_oneof![Just(Kind::Str), Just(Kind::Native), Just(Kind::Bytes)],
        payload in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let shelf = Shelf::new("any", None);
        shelf.plant(b"a", &seal(&sealer(None, None), b"a", kind, &payload));
        let read = shelf.cache.get::<Value>("a").unwrap();
        let bad = shelf.cache.asynchronous().stats().bad_entries;
        prop_assert_eq!(read.is_none(), bad == 1);
    }
}

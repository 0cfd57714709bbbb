//! Hostile records: anybody who can write to the store can write one.

use proptest::prelude::*;
use rmp_serde::to_vec;

use super::bounded::{Bin, List};
use super::recent::Recent;
use super::record::{MAX_WRITTEN, Parsed, merge, write};
use super::report::{Use, Visit};
use super::route::Route;
use super::{Learner, Page};

type Counts = (u16, u8, u16, u8, u8, u8, bool, bool);
type Template<'a> = (List<(u8, Bin<'a>), 4096>, bool, (f32, u16, u32, u8), Counts);
type Keys<'a> = List<(Bin<'a>, (f32, u16, u32, u8)), 4096>;

/// Counts with nothing against a key, and with numbers too large.
const COUNTS: Counts = (0, 255, 0, 255, 255, 255, false, false);

fn record(templates: Vec<Template<'_>>, pages: Vec<(u64, Keys<'_>)>) -> Vec<u8> {
    to_vec(&(4_u8, (10_u16, [1.0_f32; 7]), false, templates, pages)).unwrap()
}

fn template(pieces: Vec<(u8, &[u8])>, usage: (f32, u16, u32, u8)) -> Template<'_> {
    let pieces = pieces.into_iter().map(|(kind, text)| (kind, Bin(text)));
    (List(pieces.collect()), true, usage, COUNTS)
}

fn merged(record: &[u8]) -> (Parsed, Route) {
    let mut route = Route::default();
    let parsed = merge(&mut route, &mut Recent::default(), record);
    (parsed, route)
}

fn visit(keys: &[&str]) -> Visit {
    let used = Use {
        bytes: 10,
        piece: true,
        ..Use::default()
    };
    let uses = keys.iter().map(|key| (key.as_bytes().into(), used));
    Visit {
        uses: uses.collect(),
        ..Visit::default()
    }
}

#[test]
fn too_large_numbers_do_not_overflow() {
    let (learner, page) = (Learner::default(), Page::new("r").arg("x", 1));
    let own = template(vec![(0, b"a")], (1.0, u16::MAX, u32::MAX, 255));
    let held = Bin(b"list:18446744073709551615");
    let keys = List(vec![(held, (f32::NAN, u16::MAX, u32::MAX, 255))]);
    assert!(learner.merge(&page, &record(vec![own], vec![(page.id(), keys)])));
    let list = |from: u64| (0..6).map(move |nth| format!("list:{}", from - nth));
    for step in 0..3 {
        let keys: Vec<String> = list(u64::MAX - 2 + step).chain(["list:1".into()]).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).chain(["a"]).collect();
        learner.learn(&page, &visit(&keys));
        learner.learn(&page, &visit(&keys[..6]));
        drop(learner.predict(&page));
    }
}

#[test]
fn visits_from_a_record_fade() {
    let (learner, page) = (Learner::default(), Page::new("r"));
    let lie = template(vec![(0, b"unused")], (1.0, u16::MAX, 10, 1));
    assert!(learner.merge(&page, &record(vec![lie], vec![])));
    assert!(!learner.predict(&page).is_empty());
    for _ in 0..80 {
        learner.learn(&page, &visit(&["a"]));
    }
    let keys = learner
        .predict(&page)
        .into_iter()
        .map(|predicted| predicted.key);
    assert_eq!(keys.collect::<Vec<_>>(), [b"a"]);
}

#[test]
fn too_long_lists_are_refused() {
    let usage = (1.0, 5, 10, 1);
    let few = || template(vec![(0, b"a")], usage);
    assert_eq!(
        merged(&record((0..512).map(|_| few()).collect(), vec![])).0,
        Parsed::Record
    );
    assert_eq!(
        merged(&record((0..513).map(|_| few()).collect(), vec![])).0,
        Parsed::Junk
    );
    let keys = |count| List((0..count).map(|_| (Bin(b"k"), usage)).collect());
    assert_eq!(
        merged(&record(vec![], vec![(1, keys(2048))])).0,
        Parsed::Record
    );
    assert_eq!(
        merged(&record(vec![], vec![(1, keys(2049))])).0,
        Parsed::Junk
    );
    let pages = |count| (0..count).map(|id| (id, keys(1))).collect();
    assert_eq!(merged(&record(vec![], pages(16))).0, Parsed::Record);
    assert_eq!(merged(&record(vec![], pages(17))).0, Parsed::Junk);
    let pieces = template(vec![(1, b"x"); 1025], usage);
    assert_eq!(merged(&record(vec![pieces], vec![])).0, Parsed::Junk);
}

#[test]
fn too_long_keys_and_templates_are_ignored() {
    let (long, usage) = (vec![b'x'; 513], (1.0, 5, 10, 1));
    let (_, route) = merged(&record(
        vec![
            template(vec![(0, &long)], usage),
            template(vec![(0, &long[..300]), (1, b"x"), (0, &long[..300])], usage),
            template(vec![(1, &long[..201])], usage),
            template(vec![(1, b"\xff")], usage),
            template(vec![(0, &long[1..]), (1, b"x")], usage),
        ],
        vec![(1, List(vec![(Bin(&long), usage), (Bin(&long[1..]), usage)]))],
    ));
    assert_eq!(route.templates.len(), 1);
    assert_eq!(route.pages[&1].keys.len(), 1);
}

#[test]
fn record_holds_the_most_used_in_64_kib() {
    let (learner, page) = (Learner::default(), Page::new("r"));
    let keys: Vec<String> = (0..600)
        .map(|nth| format!("{nth}:{}", "x".repeat(400)))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for _ in 0..4 {
        learner.learn(&page, &visit(&keys));
        learner.learn(&page, &visit(&keys[..20]));
    }
    let bytes = learner.with(&page, |known| write(&known.route, &Recent::default()));
    assert!(bytes.len() <= MAX_WRITTEN, "{} bytes", bytes.len());
    assert!(bytes.len() > MAX_WRITTEN / 2, "{} bytes", bytes.len());
    let (parsed, route) = merged(&bytes);
    assert_eq!(parsed, Parsed::Record);
    let shares: Vec<f32> = route.templates().map(|(_, usage)| usage.share).collect();
    assert!(shares.iter().filter(|share| **share > 0.9).count() >= 20);
}

#[test]
fn keys_of_one_visit_are_not_shared() {
    let (learner, page) = (Learner::default(), Page::new("home"));
    learner.learn(&page, &visit(&["session:5", "menu"]));
    learner.learn(&page, &visit(&["session:6", "menu"]));
    let bytes = learner.with(&page, |known| write(&known.route, &Recent::default()));
    let (_, route) = merged(&bytes);
    let names: Vec<String> = route.templates.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["menu"]);
}

#[test]
fn other_versions_are_ignored_and_junk_is_reported() {
    let mut other = record(vec![], vec![]);
    other[1] = 7;
    assert_eq!(merged(&other).0, Parsed::Other);
    for junk in [
        &b""[..],
        b"12",
        b"\xdd\xff\xff\xff\xff\x00",
        b"\x95\x04\xc0",
        b"text",
    ] {
        assert_eq!(merged(junk).0, Parsed::Junk, "{junk:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        if head {
            bytes.splice(0..0, [0x95, 4]);
        }
        let learner = Learner::default();
        let page = Page::new("r").arg("id", 1);
        learner.merge(&page, &bytes);
        learner.learn(&page, &visit(&["a:1"]));
        drop(learner.predict(&page));
    }
}

//! Tests of the learner as a whole and of its parts.

use proptest::prelude::*;

use super::budget::Candidate;
use super::exchange::REST;
use super::series::Series;
use super::template::Template;
use super::*;

fn page(args: &[(&str, &str)]) -> Page {
    args.iter().fold(Page::new("route"), |page, (name, value)| {
        page.arg(*name, *value)
    })
}

fn template(key: &str, args: &[(&str, &str)]) -> String {
    Template::plain(key.as_bytes(), &page(args)).to_string()
}

#[test]
fn template_replaces_whole_values_only() {
    let five = [("id", "5")];
    for (key, expected) in [
        ("note_markup:5", "note_markup:{id}"),
        ("note:5:tags", "note:{id}:tags"),
        ("5", "{id}"),
        ("5:5", "{id}:{id}"),
        ("note_5", "note_{id}"),
        ("note:55", "note:55"),
        ("note:15:5", "note:15:{id}"),
        ("note5", "note5"),
        ("v5:note", "v5:note"),
        ("5é", "5é"),
        ("menu", "menu"),
        ("", ""),
    ] {
        assert_eq!(template(key, &five), expected, "{key}");
    }
}

#[test]
fn template_prefers_the_longest_value_then_the_first_name() {
    let args = [("a", "x"), ("b", "x-y"), ("c", "x-y")];
    assert_eq!(template("k:x-y:x", &args), "k:{b}:{a}");
    assert_eq!(template("k:x-yz", &args), "k:{a}-yz");
    assert_eq!(template("k:", &[("a", "")]), "k:");
}

#[test]
fn order_of_arguments_does_not_matter() {
    let one = Page::new("r").arg("a", 1).arg("b", 2);
    let other = Page::new("r").arg("b", 2).arg("a", 0).arg("a", 1);
    assert_eq!(one, other);
    assert_eq!(one.id(), other.id());
    assert_ne!(one.id(), Page::new("r").arg("a", 12).id());
    assert_ne!(
        Page::new("r").arg("a", "1\u{0}").id(),
        Page::new("r").arg("a", "1").id()
    );
}

proptest! {
    #[test]
    fn template_gives_back_its_key(
        key in proptest::collection::vec(any::<u8>(), 0..30),
        text in "[a-c5é:_-]{0,12}",
        values in proptest::collection::vec("[a-c5é-]{0,3}", 0..4),
    ) {
        let page = values.iter().enumerate().fold(Page::new("r"), |page, (nth, value)| {
            page.arg(nth.to_string(), value)
        });
        for key in [key.as_slice(), text.as_bytes()] {
            prop_assert_eq!(Template::of(key, &page, &mut 64).key(&page), Some(key.to_vec()));
        }
    }

    #[test]
    fn invalid_records_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let learner = Learner::default();
        let page = Page::new("r").arg("a", 1);
        learner.merge(&page, &bytes);
        learner.learn(&page, &visit(&[("a:1", 10)]));
        let _ = learner.predict(&page);
    }

    #[test]
    fn chosen_keys_stay_within_the_budget(
        all in proptest::collection::vec((0.0..=1.0_f32, 0_u32..5_000), 0..200),
        keys in 0_usize..100,
        bytes in 0_usize..100_000,
    ) {
        let budget = Budget { keys, bytes, ..Budget::default() };
        let candidates = all.iter().enumerate().map(|(nth, (chance, bytes))| {
            candidate(&nth.to_string(), *chance, *bytes)
        });
        let chosen = budget.choose(candidates.collect());
        prop_assert!(chosen.len() <= keys);
        prop_assert!(chosen.iter().map(|key| key.bytes as usize).sum::<usize>() <= bytes);
    }
}

fn candidate(key: &str, chance: f32, bytes: u32) -> Candidate {
    let key = Predicted {
        key: key.into(),
        bytes,
        piece: true,
        state: false,
        lasting: false,
        again: false,
    };
    Candidate { chance, key }
}

#[test]
fn budget_cuts_the_least_used_per_byte() {
    let all = vec![
        candidate("large", 1.0, 10_000),
        candidate("small", 1.0, 100),
        candidate("other", 1.0, 200),
        candidate("never", 0.01, 1),
    ];
    let choose = |keys, bytes| {
        let budget = Budget {
            keys,
            bytes,
            ..Budget::default()
        };
        let chosen = budget.choose(all.clone()).into_iter();
        let mut chosen: Vec<_> = chosen
            .map(|predicted| String::from_utf8(predicted.key).unwrap())
            .collect();
        chosen.sort();
        chosen.join(" ")
    };
    assert_eq!(choose(512, 1 << 20), "large other small");
    assert_eq!(choose(2, 1 << 20), "other small");
    assert_eq!(choose(512, 1_000), "other small");
    assert_eq!(choose(512, 150), "small");
}

#[test]
fn seldom_used_keys_are_left_out_if_mostly_waste() {
    let seldom = candidate("seldom", 0.1, 1_000);
    let budget = Budget::default();
    let alone = budget.choose(vec![seldom.clone(), candidate("sure", 1.0, 1_000)]);
    assert_eq!(alone.len(), 1);
    let among_many = budget.choose(vec![seldom, candidate("sure", 1.0, 20_000)]);
    assert_eq!(among_many.len(), 2);
}

#[test]
fn series_moves_by_its_last_step() {
    let list = |from: u64| (from..from + 10).map(|number| format!("item:{number}:x"));
    let mut series = Series::default();
    let mut next = |from: u64| {
        let keys: Vec<String> = list(from).chain(["menu".into(), "v2".into()]).collect();
        series.note(keys.iter().map(String::as_bytes));
        let mut next = Vec::new();
        series.next(|key| next.push(String::from_utf8(key).unwrap()));
        (next, series.leaves(format!("item:{from}:x").as_bytes()))
    };
    assert_eq!(next(100), (vec![], false));
    assert_eq!(next(101), (vec!["item:111:x".into()], true));
    assert_eq!(next(101), (vec![], false));
    assert_eq!(
        next(103),
        (vec!["item:113:x".into(), "item:114:x".into()], true)
    );
    assert_eq!(next(50), (vec![], false));
}

fn visit(read: &[(&str, u32)]) -> Visit {
    let uses = read.iter().map(|(key, bytes)| {
        let used = Use {
            bytes: *bytes,
            piece: true,
            ..Use::default()
        };
        (key.as_bytes().into(), used)
    });
    Visit {
        uses: uses.collect(),
        ..Visit::default()
    }
}

fn predicted(learner: &Learner, page: &Page) -> Vec<String> {
    let keys = learner.predict(page).into_iter();
    let mut keys: Vec<_> = keys
        .map(|predicted| String::from_utf8(predicted.key).unwrap())
        .collect();
    keys.sort();
    keys
}

#[test]
fn coincidence_makes_no_template() {
    let learner = Learner::default();
    for id in 1..20 {
        let page = Page::new("r").arg("id", id);
        learner.learn(
            &page,
            &visit(&[
                (&format!("note:{id}"), 10),
                (&format!("author:{}", 900 + id), 10),
            ]),
        );
    }
    assert_eq!(
        predicted(&learner, &Page::new("r").arg("id", 50)),
        ["note:50"]
    );
}

#[test]
fn unread_keys_are_forgotten() {
    let learner = Learner::default();
    let page = Page::new("r");
    for _ in 0..10 {
        learner.learn(&page, &visit(&[("a", 10), ("b", 10)]));
    }
    assert_eq!(predicted(&learner, &page), ["a", "b"]);
    for _ in 0..10 {
        learner.learn(&page, &visit(&[("a", 10)]));
    }
    assert_eq!(predicted(&learner, &page), ["a"]);
}

#[test]
fn one_odd_visit_changes_little() {
    let learner = Learner::default();
    let page = |id: u32| Page::new("r").arg("id", id);
    for id in 0..20 {
        learner.learn(&page(id), &visit(&[(&format!("a:{id}"), 10), ("b", 10)]));
    }
    learner.learn(&page(20), &visit(&[("odd", 10)]));
    assert_eq!(predicted(&learner, &page(21)), ["a:21", "b"]);
}

#[test]
fn record_tells_another_worker_all_that_is_known() {
    let (one, other) = (Learner::default(), Learner::default());
    let page = |id: u32| Page::new("r").arg("id", id);
    for id in 0..5 {
        learn_page(&one, &page(id), id);
    }
    let moment = crate::clock::Clock::manual().now();
    assert!(one.exchange(&page(1), moment).load);
    let record = one.exchange(&page(1), moment).save.unwrap();
    assert!(one.exchange(&page(1), moment).save.is_none());
    assert!(predicted(&other, &page(9)).is_empty());
    other.merge(&page(9), &record);
    assert_eq!(predicted(&other, &page(9)), ["a:9", "b"]);
    assert_eq!(predicted(&other, &page(3)), ["a:3", "b", "besides:77"]);
    // Merging it again changes nothing.
    other.merge(&page(9), &record);
    assert_eq!(predicted(&other, &page(9)), ["a:9", "b"]);
}

/// A visit that read `reads` keys in `trips` trips; the first `ahead` keys were preloaded.
fn counted(reads: usize, trips: u32, ahead: usize) -> Visit {
    let keys: Vec<String> = (0..reads.max(ahead)).map(|nth| format!("k{nth}")).collect();
    let bytes: Vec<_> = keys.iter().map(|key| (key.as_str(), 10)).collect();
    let first = |count| bytes.get(..count).unwrap_or_default();
    let ahead = first(ahead).iter();
    Visit {
        uses: visit(first(reads)).uses,
        ahead: ahead
            .map(|(key, bytes)| (key.as_bytes().into(), *bytes))
            .collect(),
        trips,
    }
}

#[test]
fn record_reports_recent_visits() {
    let (clock, page) = (crate::clock::Clock::manual(), Page::new("r"));
    let learner = Learner::default();
    assert!(learner.exchange(&page, clock.now()).load_index);
    learner.learn(&page, &counted(4, 4, 0));
    assert!(learner.exchange(&page, clock.now()).save.is_none());
    learner.learn(&page, &counted(4, 1, 5));
    assert!(learner.exchange(&page, clock.now()).save.is_some());
    for _ in 0..2 {
        learner.learn(&page, &counted(4, 1, 5));
    }
    clock.advance(EXCHANGE);
    assert!(learner.exchange(&page, clock.now()).load);
    let record = learner.exchange(&page, clock.now()).save.unwrap();
    let shared = read_record("r".into(), &record).unwrap();
    assert_eq!((shared.visits, shared.reads, shared.trips), (4, 16, 7));
    assert_eq!((shared.preloaded, shared.used), (15, 12));
    assert_eq!((shared.bytes, shared.unused_bytes), (150, 30));
    assert_eq!(shared.templates.len(), 4);
    assert!(read_record("r".into(), b"junk").is_none());
    // Merging its own record again changes nothing.
    learner.merge(&page, &record);
    let sums = learner.with(&page, |known| known.totals.recent.sums());
    assert_eq!(sums, [16, 0, 7, 15, 12, 150, 30]);
}

#[test]
fn seldom_visited_route_is_shared() {
    let (clock, page) = (crate::clock::Clock::manual(), Page::new("r"));
    let learner = Learner::default();
    let mut saved = 0;
    for _ in 0..6 {
        let exchange = learner.exchange(&page, clock.now());
        assert!(exchange.load);
        saved += usize::from(exchange.save.is_some());
        learner.learn(&page, &visit(&[("a", 1)]));
        clock.advance(EXCHANGE);
    }
    assert!(saved >= 4, "{saved} of 6");
}

#[test]
fn often_visited_route_loads_before_it_saves() {
    let (clock, page) = (crate::clock::Clock::manual(), Page::new("r"));
    let learner = Learner::default();
    for _ in 0..3 {
        let first = learner.exchange(&page, clock.now());
        assert!(first.load && first.save.is_none());
        learner.learn(&page, &visit(&[("a", 1)]));
        learner.learn(&page, &visit(&[("a", 1)]));
        let second = learner.exchange(&page, clock.now());
        assert!(!second.load && second.save.is_some());
        clock.advance(EXCHANGE);
    }
}

#[test]
fn refusing_store_is_left_alone_for_a_while() {
    let (clock, page) = (crate::clock::Clock::manual(), Page::new("r"));
    let learner = Learner::default();
    let ask = || {
        learner.learn(&page, &visit(&[("a", 1)]));
        learner.learn(&page, &visit(&[("a", 1)]));
        let exchange = learner.exchange(&page, clock.now());
        clock.advance(EXCHANGE);
        (exchange.load, exchange.save.is_some())
    };
    learner.refused(true, clock.now());
    assert_eq!((ask(), ask()), ((false, false), (false, false)));
    clock.advance(REST);
    assert_eq!((ask(), ask()), ((true, false), (true, true)));
    learner.refused(false, clock.now());
    assert_eq!((ask(), ask()), ((true, false), (true, false)));
}

#[test]
fn index_loses_no_route_of_another_worker() {
    let clock = crate::clock::Clock::manual();
    // The store's index, and what a worker does on two trips of a page.
    let mut store: Option<Vec<u8>> = None;
    let mut visit_page = |learner: &Learner, name: &str| {
        let page = Page::new(name);
        for _ in 0..2 {
            let exchange = learner.exchange(&page, clock.now());
            if exchange.load_index {
                learner.merge_index(store.as_deref());
            }
            store = exchange.save_index.or(store.take());
            learner.learn(&page, &visit(&[("a", 1)]));
            learner.learn(&page, &visit(&[("a", 1)]));
        }
        store.as_deref().map(read_index).unwrap_or_default()
    };
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| Arc::from(*name))
            .collect::<Vec<_>>()
    };
    let (one, other) = (Learner::default(), Learner::default());
    assert_eq!(visit_page(&one, "b"), names(&["b"]));
    assert_eq!(visit_page(&other, "a"), names(&["a", "b"]));
    // The first does not know the second's name yet, and overwrites it; a minute later it is back.
    assert_eq!(visit_page(&one, "c"), names(&["b", "c"]));
    clock.advance(EXCHANGE);
    assert_eq!(visit_page(&other, "a"), names(&["a", "b", "c"]));
    clock.advance(EXCHANGE);
    assert_eq!(visit_page(&one, "b"), names(&["a", "b", "c"]));
    assert!(read_index(b"junk").is_empty());
}

#[test]
fn index_is_bounded_and_keeps_its_own_routes() {
    let now = crate::clock::Clock::manual().now();
    let theirs: Vec<String> = (0..MAX_ROUTES).map(|nth| format!("x{nth}")).collect();
    let mut index = Index::default();
    let listed = rmp_serde::to_vec(&(1_u8, &theirs)).unwrap();
    index.replace(Some(&listed));
    let written = read_index(&index.save("own", now).unwrap());
    assert_eq!(written.len(), MAX_ROUTES);
    assert!(written.contains(&"own".into()));
    for nth in 0..2 * MAX_ROUTES {
        index.save(&format!("own{nth}"), now);
    }
    assert!(index.names().count() <= 2 * MAX_ROUTES);
}

fn learn_page(learner: &Learner, page: &Page, id: u32) {
    let key = format!("a:{id}");
    let mut read = vec![(key.as_str(), 10), ("b", 10)];
    if id == 3 {
        read.push(("besides:77", 10));
    }
    learner.learn(page, &visit(&read));
}

#[test]
fn memory_of_a_route_is_bounded_in_bytes() {
    // The worst that an application can do: keys of the greatest length and longer, all new at each
    // visit to a new page.
    let learner = Learner::default();
    for number in 0..300_u32 {
        let page = Page::new("r").arg("id", number);
        let keys: Vec<String> = (0..100)
            .map(|nth| format!("{:x}:{}", number * 7919 + 1_000_003, "x".repeat(400 + nth)))
            .collect();
        let read: Vec<_> = keys.iter().map(|key| (key.as_str(), 10)).collect();
        learner.learn(&page, &visit(&read));
    }
    let bytes = learner.memory();
    assert!(bytes <= 3 << 20, "{bytes} bytes");
    assert!(
        bytes > 100 * MAX_KEY,
        "{bytes} bytes are too few to be true"
    );
}

#[test]
fn too_long_key_is_not_learned() {
    let (learner, page) = (Learner::default(), Page::new("r"));
    let long = "x".repeat(MAX_KEY + 1);
    learner.learn(&page, &visit(&[("a", 10), (&long, 10), (&long[1..], 10)]));
    assert_eq!(predicted(&learner, &page), ["a", &long[1..]]);
}

#[test]
fn number_of_routes_is_bounded() {
    let learner = Learner::default();
    for number in 0..3_000_u32 {
        let page = Page::new("r").arg("id", number);
        let keys: Vec<String> = (0..20)
            .map(|nth| {
                format!(
                    "k:{}",
                    number.wrapping_mul(7919).wrapping_add(nth * 104_729)
                )
            })
            .collect();
        let read: Vec<_> = keys.iter().map(|key| (key.as_str(), 10)).collect();
        learner.learn(&page, &visit(&read));
    }
    learner.with(&Page::new("r"), |known| {
        assert!(known.route.templates.len() <= route::MAX_TEMPLATES);
        let held: usize = known.route.pages.values().map(|page| page.keys.len()).sum();
        assert!(held <= route::MAX_PAGE_KEYS);
    });
    for number in 0..MAX_ROUTES + 100 {
        learner.learn(&Page::new(format!("route {number}")), &visit(&[("a", 1)]));
    }
    assert!(learner.report().len() <= MAX_ROUTES);
    assert!(!predicted(&learner, &Page::new(format!("route {MAX_ROUTES}"))).is_empty());
}

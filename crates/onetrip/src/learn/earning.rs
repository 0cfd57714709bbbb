//! Tests of `earn`: its table, and each part of the rule.

use super::*;

/// A plain read that found the key.
const READ: Use = Use {
    compared: false,
    bytes: 10,
    piece: false,
    reads: 1,
    found: true,
    absent: false,
    wrote: false,
    changed: false,
    exact: false,
};

/// A plain read that found nothing.
const ABSENT: Use = Use {
    bytes: 0,
    found: false,
    absent: true,
    ..READ
};

/// A read that found nothing, and a write.
const FILL: Use = Use {
    wrote: true,
    ..ABSENT
};

/// A read that found the key, and a write or a delete.
const CHANGE: Use = Use {
    wrote: true,
    changed: true,
    ..READ
};

/// A write without a read.
const WRITE: Use = Use {
    reads: 0,
    found: false,
    wrote: true,
    ..READ
};

/// A delete without a read.
const DELETE: Use = Use {
    changed: true,
    ..WRITE
};

/// Two reads with the same answer, and with different ones.
const AGAIN: Use = Use {
    reads: 2,
    compared: true,
    ..READ
};
const DIFFERENT: Use = Use {
    changed: true,
    ..AGAIN
};

/// An operation that must reach the store: `add`, `incr`, `lock`.
const EXACT: Use = Use {
    reads: 0,
    found: false,
    exact: true,
    ..READ
};

fn visit(key: &str, used: Use) -> Visit {
    Visit {
        uses: [(key.as_bytes().into(), used)].into_iter().collect(),
        ..Visit::default()
    }
}

/// A site with one page on which a test reads keys.
#[derive(Default)]
struct Site(Learner);

impl Site {
    fn page() -> Page {
        Page::new("show").arg("id", 5)
    }

    /// Visits the page `times` times under GET.
    fn get(&self, key: &str, used: Use, times: usize) -> &Self {
        for _ in 0..times {
            self.0.learn(&Self::page(), &visit(key, used));
        }
        self
    }

    /// Visits the page under GET, with all these keys.
    fn get_all(&self, uses: &[(&str, Use)]) {
        let uses = uses
            .iter()
            .map(|(key, used)| (key.as_bytes().into(), *used));
        let visit = Visit {
            uses: uses.collect(),
            ..Visit::default()
        };
        self.0.learn(&Self::page(), &visit);
    }

    /// Visits another page under POST.
    fn post(&self, key: &str, used: Use, times: usize) -> &Self {
        for _ in 0..times {
            self.0.note(None, &visit(key, used));
        }
        self
    }

    fn predicted(&self, key: &str) -> Option<Predicted> {
        let mut keys = self.0.predict(&Self::page()).into_iter();
        keys.find(|predicted| predicted.key == key.as_bytes())
    }

    fn earns(&self, key: &str) -> bool {
        self.predicted(key).is_some_and(|predicted| predicted.state)
    }
}

#[test]
fn menu_cached_by_hand_earns() {
    let site = Site::default();
    site.get("menu", FILL, 1).get("menu", READ, 2);
    assert!(site.earns("menu"));
    // It expires now and then, and is filled again.
    for _ in 0..20 {
        site.get("menu", FILL, 1).get("menu", READ, 5);
        assert!(site.earns("menu"));
    }
}

#[test]
fn cachalot_table_stamp_earns() {
    let (site, table) = (
        Site::default(),
        ":1:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    );
    site.get(table, FILL, 1).get(table, READ, 2);
    site.post(table, WRITE, 5);
    assert!(site.earns(table));
    // Each page reads it several times; now and then another page stamps it meanwhile.
    for _ in 0..5 {
        site.get(table, AGAIN, 15).get(table, DIFFERENT, 1);
    }
    assert!(site.earns(table));
}

#[test]
fn settings_deleted_unread_earn() {
    let site = Site::default();
    for _ in 0..10 {
        site.get("settings", FILL, 1).get("settings", READ, 4);
        site.post("settings", DELETE, 1);
    }
    assert!(site.earns("settings"));
}

#[test]
fn throttle_does_not_earn_at_its_limit() {
    let (site, key) = (Site::default(), "throttle:10.0.0.7");
    site.get(key, FILL, 1)
        .get(key, CHANGE, 4)
        .get(key, READ, 1000);
    assert!(!site.earns(key));
    site.get(key, AGAIN, 1000);
    assert!(!site.earns(key), "by reading twice");
    // Nor does another address, known only at its limit.
    site.get("throttle:10.0.0.8", READ, 100);
    assert!(!site.earns("throttle:10.0.0.8"));
}

#[test]
fn cart_changed_by_post_does_not_earn() {
    let site = Site::default();
    site.get("cart:7", READ, 10);
    assert!(site.earns("cart:7"), "nothing is known against it");
    site.post("cart:7", CHANGE, 1);
    site.get("cart:7", READ, 100);
    assert!(!site.earns("cart:7"));
}

#[test]
fn hand_over_does_not_earn() {
    let site = Site::default();
    site.get("job", ABSENT, 20).get("job", CHANGE, 1);
    site.get("job", ABSENT, 20);
    assert!(!site.earns("job"));
}

#[test]
fn locks_counters_and_keys_of_their_shape_never_earn() {
    for (name, used) in [
        ("lock", EXACT),
        ("count", Use { reads: 1, ..EXACT }),
        (
            "once",
            Use {
                exact: true,
                ..FILL
            },
        ),
    ] {
        let (key, other) = (format!("{name}:1"), format!("{name}:2"));
        let site = Site::default();
        let fill = || (0..20).for_each(|_| site.get_all(&[(&key, FILL), (&other, FILL)]));
        fill();
        assert!(site.earns(&key) && site.earns(&other));
        site.post(&key, used, 1);
        fill();
        assert!(!site.earns(&key) && !site.earns(&other), "{used:?}");
    }
    // Outside of any scope.
    let site = Site::default();
    site.get("hits:1", READ, 10);
    site.0.mark_exact(b"hits:17");
    assert!(!site.earns("hits:1"));
}

#[test]
fn sessions_and_tokens_never_earn() {
    let site = Site::default();
    for key in [
        "django.contrib.sessions.cacheabc",
        ":1:SESSION:5",
        "auth:9f86d081884c7d659a2feaa0c55ad015",
        "auth:550e8400-e29b-41d4-a716-446655440000",
    ] {
        site.get(key, READ, 20);
        assert!(!site.earns(key), "{key}");
    }
}

#[test]
fn random_argument_is_no_token() {
    let learner = Learner::default();
    let page =
        |nth: u64| Page::new("r").arg("id", format!("550e8400-e29b-41d4-a716-{:012x}", nth * 7919));
    for nth in 1..5 {
        let id = page(nth).args().next().unwrap().1.to_owned();
        learner.learn(&page(nth), &visit(&format!("note:{id}"), READ));
    }
    assert_eq!(learner.predict(&page(9)).len(), 1);
}

#[test]
fn earning_needs_three_reads_of_safe_pages() {
    let site = Site::default();
    site.get("a", READ, 2).post("a", READ, 10);
    assert!(!site.earns("a"));
    site.get("a", READ, 1);
    assert!(site.earns("a"));
}

#[test]
fn earning_allows_one_change_in_eight() {
    let site = Site::default();
    site.get("a", FILL, 6).get("a", CHANGE, 1);
    assert!(!site.earns("a"), "one in seven");
    site.get("a", FILL, 1);
    assert!(site.earns("a"), "one in eight");
    for _ in 0..20 {
        site.get("a", FILL, 7).get("a", CHANGE, 1);
        assert!(site.earns("a"), "one in eight, for long");
    }
    for _ in 0..20 {
        site.get("a", FILL, 4).get("a", CHANGE, 1);
    }
    assert!(!site.earns("a"), "one in five");
}

#[test]
fn key_that_differs_on_second_read_does_not_earn() {
    let site = Site::default();
    for _ in 0..10 {
        site.get("status", AGAIN, 2).get("status", DIFFERENT, 1);
    }
    assert!(!site.earns("status"));
    site.get("status", READ, 20);
    assert!(!site.earns("status"), "by reading it once");
    site.get("status", AGAIN, 40);
    assert!(site.earns("status"));
}

#[test]
fn place_is_lost_and_regained() {
    let site = Site::default();
    site.get("a", FILL, 50);
    assert!(site.earns("a"));
    site.post("a", CHANGE, 5);
    assert!(!site.earns("a"));
    site.get("a", FILL, 40);
    assert!(site.earns("a"));
}

#[test]
fn unvisited_key_earns_by_its_template() {
    let learner = Learner::default();
    let page = |id: &str| Page::new("note").arg("slug", id);
    for slug in ["one", "two", "three", "four"] {
        learner.learn(&page(slug), &visit(&format!("note:{slug}"), FILL));
    }
    let keys = learner.predict(&page("never"));
    assert!(keys.len() == 1 && keys[0].state && !keys[0].piece);
    // POST visits to the same view count for it.
    for slug in ["five", "six"] {
        learner.note(Some(&page(slug)), &visit(&format!("note:{slug}"), CHANGE));
    }
    assert!(learner.predict(&page("never")).is_empty());
}

#[test]
fn throttle_of_a_new_address_is_judged_by_its_template() {
    // Most addresses come once, and only fill it.
    let learner = Learner::default();
    let page = |user: String| Page::new("login").arg("user", user);
    let name = |nth: u32| {
        char::from(b'a' + nth as u8 % 26)
            .to_string()
            .repeat(1 + nth as usize / 26)
    };
    for nth in 0..200 {
        let user = name(nth);
        let key = format!("throttle:{user}");
        learner.learn(&page(user.clone()), &visit(&key, FILL));
        if nth % 20 == 0 {
            learner.learn(&page(user), &visit(&key, CHANGE));
        }
    }
    assert!(learner.predict(&page("new".into())).is_empty());
}

#[test]
fn absence_lasts_after_eight_visits_without_a_write() {
    let site = Site::default();
    let lasts = |key: &str| {
        site.predicted(key)
            .is_some_and(|predicted| predicted.lasting)
    };
    site.get("flag", ABSENT, 7);
    assert!(site.earns("flag") && !lasts("flag"));
    site.get("flag", ABSENT, 1);
    assert!(lasts("flag"));
    site.get("flag", READ, 1).get("flag", ABSENT, 7);
    assert!(!lasts("flag"), "it was found seven visits ago");
    site.get("flag", ABSENT, 1);
    assert!(lasts("flag"));
    site.post("flag", WRITE, 1).get("flag", ABSENT, 20);
    assert!(site.earns("flag") && !lasts("flag"), "a page sets it");
    site.get("mark:1", ABSENT, 10);
    assert!(lasts("mark:1"));
    site.post("mark:2", WRITE, 1);
    assert!(!lasts("mark:1"), "a page sets another of its shape");
}

#[test]
fn pieces_and_state_are_distinguished() {
    let site = Site::default();
    let piece = Use {
        piece: true,
        reads: 0,
        ..READ
    };
    site.get("piece", piece, 1);
    let predicted = site.predicted("piece").unwrap();
    assert!(predicted.piece && !predicted.state && !predicted.again);
    site.get("both", Use { reads: 2, ..piece }, 3);
    let predicted = site.predicted("both").unwrap();
    assert!(predicted.piece && predicted.state && predicted.again);
    site.get("state", READ, 3);
    let predicted = site.predicted("state").unwrap();
    assert!(!predicted.piece && predicted.state && !predicted.again);
    // A piece may be a secret or added elsewhere: that only bars it from snapshots.
    site.get("session:piece", Use { reads: 1, ..piece }, 5);
    let predicted = site.predicted("session:piece").unwrap();
    assert!(predicted.piece && !predicted.state);
}

#[test]
fn exact_reads_do_not_lower_recall() {
    let site = Site::default();
    for _ in 0..4 {
        let mut visit = visit("session:5", READ);
        visit.uses.insert(b"menu"[..].into(), READ);
        visit.uses.insert(b"unread"[..].into(), WRITE);
        for predicted in site.0.predict(&Site::page()) {
            visit.ahead.insert(predicted.key.into(), predicted.bytes);
        }
        visit.trips = 2;
        site.0.learn(&Site::page(), &visit);
    }
    let report = &site.0.report()[0];
    assert_eq!((report.reads, report.used, report.preloaded), (8, 1, 1));
    // The session four times, and the menu twice: it earns its place at its third read.
    assert_eq!(report.exact, 6);
    assert!((report.recall() - 0.5).abs() < 1e-9);
}

#[test]
fn counts_travel_with_the_route_record() {
    let (one, other) = (Site::default(), Site::default());
    for _ in 0..8 {
        one.get_all(&[("menu", READ), ("visits", CHANGE)]);
    }
    let bytes = one.0.with(&Site::page(), |known| {
        for learned in known.route.templates.values_mut() {
            learned.establish();
        }
        record::write(&known.route, &Recent::default())
    });
    assert!(other.0.merge(&Site::page(), &bytes));
    assert!(other.earns("menu"));
    for _ in 0..5 {
        other.get_all(&[("menu", READ), ("visits", READ)]);
    }
    assert!(other.earns("menu") && !other.earns("visits"));
}

#[test]
fn change_outlives_many_other_keys() {
    let site = Site::default();
    site.post("cart", CHANGE, 1).post("lock", EXACT, 1);
    for nth in 0..60_000 {
        site.post(
            &"x".repeat(1 + nth % 300).replace("xxx", &nth.to_string()),
            READ,
            1,
        );
    }
    site.get("cart", READ, 3).get("lock", READ, 3);
    assert!(!site.earns("cart") && !site.earns("lock"));
    assert!(site.0.memory() < 1 << 20, "{} bytes", site.0.memory());
}

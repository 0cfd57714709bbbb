//! Visits as sites have them.

use md5::{Digest, Md5};
use onetrip::internals::learn::Page;

/// One visit to a page.
pub struct Visit {
    pub page: Page,
    /// Keys, with the bytes of their entries.
    pub reads: Vec<(Vec<u8>, u32)>,
}

pub struct Workload {
    pub name: &'static str,
    pub visits: Vec<Visit>,
    /// Whether a visit counts: not those before there was anything to learn from.
    pub counts: fn(usize) -> bool,
}

/// SplitMix64: the same visits in every run.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A rank from 1 to `most`, by Zipf's law with exponent 1 (continuous inverse).
    fn zipf(&mut self, most: f64) -> u64 {
        (most.powf(self.unit())) as u64
    }
}

fn read(key: impl Into<String>, bytes: u32) -> (Vec<u8>, u32) {
    (key.into().into_bytes(), bytes)
}

/// A note: its parts, the parts of its first comments, and what every page shows.
fn note(id: u64) -> Vec<(Vec<u8>, u32)> {
    let mut reads = vec![
        read(format!("note_markup:{id}"), 1500),
        read(format!("note_comments:{id}"), 900),
        read(format!("note:{id}:tags"), 200),
        read(format!("note:{id}:related"), 700),
        read("site_menu", 2000),
        read("site_footer", 600),
        read("settings", 300),
    ];
    reads.extend((0..id % 13).map(|nth| read(format!("comment:{}", id * 1000 + nth * 7), 400)));
    reads
}

fn note_page(id: u64) -> Page {
    Page::new("note_detail").arg("note_id", id)
}

pub fn all() -> Vec<Workload> {
    vec![
        stable(),
        unvisited(),
        shifting("list that shifts", |id| 5_000 + id),
        // Numbers that tell nothing of the next one.
        shifting("list that shifts, any numbers", |id| {
            Random(id).next() % 1_000_000
        }),
        seldom(),
        per_user(),
        redesign_window(),
        redesign_after(),
        zipf(),
        routes(),
        lists(),
        fragments(),
    ]
}

fn stable() -> Workload {
    let visits = (0..5_000).map(|number| {
        let id = 1 + number % 50;
        Visit {
            page: note_page(id),
            reads: note(id),
        }
    });
    Workload {
        name: "stable pages",
        visits: visits.collect(),
        counts: |number| number >= 50,
    }
}

/// Arguments that no visit had before; what is not a function of them cannot be known.
fn unvisited() -> Workload {
    let visits = (0..5_000).map(|id| {
        let mut reads = note(id);
        reads.truncate(7);
        Visit {
            page: note_page(id),
            reads,
        }
    });
    Workload {
        name: "arguments never seen",
        visits: visits.collect(),
        counts: |number| number >= 3,
    }
}

/// A list of 20 teasers, of which the first goes and a new one comes at each visit. `teaser` is the
/// number of each.
fn shifting(name: &'static str, teaser: fn(u64) -> u64) -> Workload {
    let visits = (0..3_000).map(|number| {
        let mut reads: Vec<_> = (number..number + 20)
            .map(|id| read(format!("note_teaser:{}", teaser(id)), 800))
            .collect();
        reads.extend([read("site_menu", 2000), read("site_footer", 600)]);
        Visit {
            page: Page::new("note_list").arg("page", 1),
            reads,
        }
    });
    Workload {
        name,
        visits: visits.collect(),
        counts: |number| number >= 5,
    }
}

fn seldom() -> Workload {
    let mut random = Random(5);
    let visits = (0..5_000).map(|number| {
        let id = 1 + number % 20;
        let mut reads = note(id);
        if random.below(10) == 0 {
            reads.push(read(format!("note_history:{id}"), 700));
        }
        Visit {
            page: note_page(id),
            reads,
        }
    });
    Workload {
        name: "a part that one in ten reads",
        visits: visits.collect(),
        counts: |number| number >= 50,
    }
}

fn per_user() -> Workload {
    let mut random = Random(6);
    let visits = (0..5_000).map(|_| {
        let (id, user) = (1 + random.below(200), random.below(1_000));
        let mut reads = note(id);
        reads.truncate(7);
        reads.extend([
            read(format!("user:{user}:menu"), 700),
            read(format!("unread:{user}"), 50),
            read(format!("user:{user}:note:{id}:seen"), 20),
        ]);
        Visit {
            page: note_page(id).arg("user", user),
            reads,
        }
    });
    Workload {
        name: "per-user parts",
        visits: visits.collect(),
        counts: |number| number >= 5,
    }
}

fn redesigned() -> Vec<Visit> {
    (0..4_000)
        .map(|number| {
            let id = 1 + (number * 7) % 100;
            let mut reads = note(id);
            reads.truncate(7);
            if number >= 2_000 {
                for (key, _) in &mut reads {
                    key.splice(0..0, *b"v2:");
                }
            }
            Visit {
                page: note_page(id),
                reads,
            }
        })
        .collect()
}

fn redesign_window() -> Workload {
    Workload {
        name: "redesign: the next 20 visits",
        visits: redesigned(),
        counts: |number| (2_000..2_020).contains(&number),
    }
}

fn redesign_after() -> Workload {
    Workload {
        name: "redesign: before and after",
        visits: redesigned(),
        counts: |number| number >= 5 && !(2_000..2_020).contains(&number),
    }
}

fn zipf() -> Workload {
    let mut random = Random(9);
    let visits = (0..100_000).map(|_| {
        let id = random.zipf(1e6);
        let mut reads = note(id);
        reads.truncate(7);
        Visit {
            page: note_page(id),
            reads,
        }
    });
    Workload {
        name: "Zipf over a million pages",
        visits: visits.collect(),
        counts: |number| number >= 5,
    }
}

fn routes() -> Workload {
    let mut random = Random(11);
    let visits = (0..50_000).map(|_| {
        let (route, id) = (random.below(200), random.below(10_000));
        let mut reads: Vec<_> = (0..5 + route % 20)
            .map(|part| read(format!("r{route}:part{part}:{id}"), 300 + 50 * part as u32))
            .collect();
        reads.push(read("site_menu", 2000));
        Visit {
            page: Page::new(format!("route_{route}")).arg("pk", id),
            reads,
        }
    });
    Workload {
        name: "200 routes",
        visits: visits.collect(),
        counts: |number| number >= 2_000,
    }
}

/// Two hundred pages, each with 20 keys that no argument explains, visited in turn: more than a
/// process remembers.
fn lists() -> Workload {
    let visits = (0..4_000).map(|number| {
        let id = number % 200;
        let comment = |nth| Random(id * 20 + nth).next() % 10_000_000;
        let reads = (0..20).map(|nth| read(format!("comment:{}", comment(nth)), 400));
        Visit {
            page: note_page(id),
            reads: reads.collect(),
        }
    });
    Workload {
        name: "200 pages with lists of their own",
        visits: visits.collect(),
        counts: |number| number >= 200,
    }
}

/// Fragments of Django, named by digests of the arguments, on pages that no visit had before.
fn fragments() -> Workload {
    let visits = (10..3_000_u64).map(|id| {
        let digest = |text: String| {
            let digest = Md5::digest(text);
            digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let name = |name, vary| format!(":1:template.cache.{name}.{}", digest(vary));
        Visit {
            page: note_page(id).arg("lang", "de"),
            reads: vec![
                read(name("note", format!("{id}:")), 1500),
                read(name("tags", format!("{id}:de:")), 200),
                read(name("more", format!("de:{id}:")), 700),
                read(name("menu", String::new()), 2000),
            ],
        }
    });
    Workload {
        name: "fragments named by digests",
        visits: visits.collect(),
        counts: |number| number >= 3,
    }
}

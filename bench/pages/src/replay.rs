//! Ways of preloading, and what each comes to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onetrip::Clock;
use onetrip::internals::learn::{Budget, Learner, Page, Use, Visit};

use crate::workloads::Workload;

/// What was counted in the visits that count.
#[derive(Default)]
pub struct Outcome {
    visits: usize,
    trips: usize,
    read: usize,
    asked: usize,
    hit: usize,
    bytes_asked: usize,
    bytes_unused: usize,
    took: Duration,
    /// Bytes that hold what was learned, at the end.
    pub memory: usize,
}

impl Outcome {
    /// Trips of a visit: the preload, and one for each key that it did not bring.
    pub fn trips(&self) -> f64 {
        self.trips as f64 / self.visits as f64
    }

    /// Keys that were preloaded, of those read.
    pub fn recall(&self) -> f64 {
        self.hit as f64 / self.read.max(1) as f64
    }

    /// Keys that were read, of those preloaded.
    pub fn precision(&self) -> f64 {
        self.hit as f64 / self.asked.max(1) as f64
    }

    /// Bytes that were not read, of those preloaded.
    pub fn unused(&self) -> f64 {
        self.bytes_unused as f64 / self.bytes_asked.max(1) as f64
    }

    pub fn micros_per_visit(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / self.visits as f64
    }

    pub fn nanos_per_read(&self) -> f64 {
        self.took.as_secs_f64() * 1e9 / self.read.max(1) as f64
    }

    fn note(
        &mut self,
        asked: &HashSet<&[u8]>,
        reads: &[(Vec<u8>, u32)],
        late: usize,
        size: impl Fn(&[u8]) -> u32,
    ) {
        let read: HashSet<&[u8]> = reads.iter().map(|(key, _)| key.as_slice()).collect();
        let hit = read.intersection(asked).count();
        self.visits += 1;
        self.trips += usize::from(!asked.is_empty()) + late + read.len() - hit;
        self.read += read.len();
        self.asked += asked.len();
        self.hit += hit;
        for key in asked {
            let bytes = size(key) as usize;
            self.bytes_asked += bytes;
            if !read.contains(key) {
                self.bytes_unused += bytes;
            }
        }
    }
}

/// What a way of preloading asks for: keys, and how many trips they take beyond the first.
type Asked = (Vec<Vec<u8>>, usize);

/// Replays `workload`, asking `predict` before each visit and telling `learn` after it. Keys that
/// were never read anywhere are absent, and have no bytes.
fn replay<S>(
    workload: &Workload,
    state: &mut S,
    predict: impl Fn(&mut S, &Page, &[(Vec<u8>, u32)]) -> Asked,
    learn: impl Fn(&mut S, &Page, &[(Vec<u8>, u32)]),
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sizes: HashMap<Vec<u8>, u32> = HashMap::new();
    for (number, visit) in workload.visits.iter().enumerate() {
        let began = Instant::now();
        let (asked, late) = predict(state, &visit.page, &visit.reads);
        let mut took = began.elapsed();
        for (key, bytes) in &visit.reads {
            sizes.insert(key.clone(), *bytes);
        }
        if (workload.counts)(number) {
            let asked: HashSet<&[u8]> = asked.iter().map(Vec::as_slice).collect();
            outcome.note(&asked, &visit.reads, late, |key| {
                sizes.get(key).copied().unwrap_or(0)
            });
        }
        let began = Instant::now();
        learn(state, &visit.page, &visit.reads);
        took += began.elapsed();
        if (workload.counts)(number) {
            outcome.took += took;
        }
    }
    outcome
}

pub fn none(workload: &Workload) -> Outcome {
    replay(
        workload,
        &mut (),
        |(), _, _| Asked::default(),
        |(), _, _| (),
    )
}

/// What a programmer who knows it all would preload.
pub fn exact(workload: &Workload) -> Outcome {
    let all = |reads: &[(Vec<u8>, u32)]| reads.iter().map(|(key, _)| key.clone()).collect();
    replay(
        workload,
        &mut (),
        |(), _, reads| (all(reads), 0),
        |(), _, _| (),
    )
}

/// What the plug-ins of content systems do: what the page read when it was last visited.
pub fn last_visit(workload: &Workload) -> Outcome {
    let mut pages: HashMap<Page, Vec<Vec<u8>>> = HashMap::new();
    replay(
        workload,
        &mut pages,
        |pages, page, _| (pages.get(page).cloned().unwrap_or_default(), 0),
        |pages, page, reads| {
            let keys = reads.iter().map(|(key, _)| key.clone()).collect();
            pages.insert(page.clone(), keys);
        },
    )
}

/// A visit that fetches pieces.
fn visit(reads: &[(Vec<u8>, u32)]) -> Visit {
    let uses = reads.iter().map(|(key, bytes)| {
        let used = Use {
            bytes: *bytes,
            piece: true,
            ..Use::default()
        };
        (key.as_slice().into(), used)
    });
    Visit {
        uses: uses.collect(),
        ..Visit::default()
    }
}

/// A process, and what it leaves in the store beside the keys, by route and page.
struct Worker {
    learner: Learner,
    clock: Clock,
    lists: HashMap<(Arc<str>, u64), Vec<u8>>,
}

impl Worker {
    /// What the first trip asks for, and what the second does where the first brought the page's list.
    fn ask(&mut self, page: &Page) -> Asked {
        let predict = || self.learner.predict(page).into_iter();
        let first: Vec<_> = predict().map(|predicted| predicted.key).collect();
        let exchange = self.learner.exchange(page, self.clock.now());
        for list in exchange.save_lists {
            self.lists.insert((list.route, list.page), list.bytes);
        }
        let list = exchange.load_list.then(|| {
            let list = self.lists.get(&(page.route().into(), page.id()));
            self.learner.merge_list(page, list.map(Vec::as_slice))
        });
        if list.flatten() != Some(true) {
            return (first, 0);
        }
        let second: Vec<_> = predict().map(|predicted| predicted.key).collect();
        let late = usize::from(second.len() > first.len());
        (second, late)
    }
}

pub fn learned(workload: &Workload) -> Outcome {
    let mut worker = Worker {
        learner: Learner::new(Budget::default()),
        clock: Clock::manual(),
        lists: HashMap::new(),
    };
    let mut outcome = replay(
        workload,
        &mut worker,
        |worker, page, _| worker.ask(page),
        |worker, page, reads| worker.learner.learn(page, &visit(reads)),
    );
    outcome.memory = worker.learner.memory();
    outcome
}

//! Competitors that take turns, and the median of what they took; as `bench/measure.py` does.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long to look.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    rounds: usize,
    round: Duration,
}

impl Pace {
    pub(crate) fn of(quick: bool) -> Self {
        if quick {
            Self {
                rounds: 11,
                round: Duration::from_millis(2),
            }
        } else {
            Self {
                rounds: 75,
                round: Duration::from_millis(4),
            }
        }
    }
}

/// One competitor: its name, and its work, which is to end in a panic if it goes wrong.
pub(crate) struct Work<'a> {
    name: &'static str,
    call: Box<dyn FnMut() + 'a>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(name: &'static str, call: impl FnMut() + 'a) -> Self {
        Self {
            name,
            call: Box::new(call),
        }
    }
}

/// What one call took.
#[derive(Clone, Copy)]
struct Spent {
    wall: f64,
    processor: f64,
}

fn round(work: &mut Work<'_>, calls: u32) -> Spent {
    let (busy, began) = (processor(), Instant::now());
    for _ in 0..calls {
        (work.call)();
    }
    let wall = began.elapsed();
    let processor = processor().saturating_sub(busy);
    Spent {
        wall: wall.as_secs_f64() / f64::from(calls),
        processor: processor.as_secs_f64() / f64::from(calls),
    }
}

/// The processor time of this process, with all its threads.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn calls_in_a_round(work: &mut Work<'_>, pace: Pace) -> u32 {
    let mut calls = 1;
    loop {
        // The quickest of some: another program may have been let in between.
        let quickest = (0..3).fold(f64::MAX, |best, _| round(work, calls).wall.min(best));
        let took = Duration::from_secs_f64(quickest * f64::from(calls));
        if took > pace.round / 4 {
            let wanted = f64::from(calls) * pace.round.as_secs_f64() / took.as_secs_f64();
            return (wanted as u32).max(1);
        }
        calls *= 4;
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures competitors in turns, in another order each round, and tells what they took.
pub(crate) fn compare(title: &str, pace: Pace, mut works: Vec<Work<'_>>) {
    let calls: Vec<u32> = works
        .iter_mut()
        .map(|work| calls_in_a_round(work, pace))
        .collect();
    let mut spent: Vec<Vec<Spent>> = works.iter().map(|_| Vec::new()).collect();
    let count = works.len();
    for number in 0..pace.rounds {
        for turn in 0..count {
            let which = (number + turn) % count;
            // What the one before has driven out of the processor's caches is fetched again.
            round(&mut works[which], 1);
            spent[which].push(round(&mut works[which], calls[which]));
        }
    }
    for (work, spent) in works.iter().zip(spent) {
        let line = serde_json::json!({
            "title": title,
            "name": work.name,
            "wall": median(spent.iter().map(|one| one.wall).collect()),
            "processor": median(spent.iter().map(|one| one.processor).collect()),
        });
        println!("{line}");
    }
}

//! Collects log lines, for tests that count them.

use std::sync::{Mutex, Once};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Kept(Mutex<Vec<(Level, String)>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl Log for Kept {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// Starts collecting log lines.
pub(crate) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&KEPT).unwrap();
        log::set_max_level(LevelFilter::Warn);
    });
}

/// Returns the lines that name `label` and contain `text`.
pub(crate) fn lines(label: &str, text: &str) -> Vec<String> {
    let kept = KEPT.0.lock().unwrap();
    let lines = kept.iter().map(|(_, line)| line.clone());
    lines
        .filter(|line| line.contains(label) && line.contains(text))
        .collect()
}

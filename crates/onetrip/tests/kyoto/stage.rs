//! Runs a scenario against a real server that is recorded, or against its recording.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, OnError};

use crate::recorder::Recorder;
use crate::recording::Recording;
use crate::replayer::Replayer;

/// Long enough for a machine that is busy building.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server of a scenario.
pub(crate) struct Stage {
    port: u16,
    clock: Clock,
}

impl Stage {
    pub(crate) fn at(port: u16) -> Self {
        Self {
            port,
            clock: Clock::manual(),
        }
    }

    /// Returns a cache in the first database that raises errors.
    pub(crate) fn cache(&self) -> Cache {
        self.open(self.builder(0).prefix("kt"))
    }

    pub(crate) fn open(&self, builder: Builder) -> Cache {
        builder.build().unwrap().blocking()
    }

    pub(crate) fn builder(&self, database: u16) -> Builder {
        onetrip::Cache::builder(format!("kt://127.0.0.1:{}/{database}", self.port))
            .clock(self.clock.clone())
            .connect_timeout(PATIENCE)
            .trip_timeout(PATIENCE)
            .on_error(OnError::Raise)
    }
}

/// Runs a scenario against an empty server, or its recording.
pub(crate) fn play(name: &str, scenario: fn(&Stage)) {
    play_over("KT_URL", name, scenario);
}

/// Runs a scenario against the server that `variable` names, or its recording.
pub(crate) fn play_over(variable: &str, name: &str, scenario: fn(&Stage)) {
    if env::var_os("KT_RECORD").is_some() {
        record(variable, name, scenario);
    }
    let replayer = Replayer::of(recording(name));
    let stage = Stage::at(replayer.port());
    let played = catch_unwind(AssertUnwindSafe(|| scenario(&stage)));
    // Report a difference first: it makes the scenario fail.
    if let Err(difference) = replayer.finish() {
        panic!("{name} differs from its recording:\n{difference}");
    }
    played.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Returns the recording of a scenario.
pub(crate) fn recording(name: &str) -> Recording {
    let text = std::fs::read_to_string(file(name)).expect("the scenario was recorded");
    Recording::parse(&text)
}

fn file(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kyoto/recorded");
    PathBuf::from(folder).join(format!("{name}.txt"))
}

fn record(variable: &str, name: &str, scenario: fn(&Stage)) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A scenario that fails leaves its entries to the next one, which removes them.
    let _alone = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|failed| failed.into_inner());
    let url = env::var(variable).unwrap_or_else(|_| panic!("{variable} names the server"));
    let address = url
        .strip_prefix("kt://")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let (_, port) = address.rsplit_once(':').unwrap();
    let server = Stage::at(port.parse().unwrap());
    for database in [0, 1] {
        // A read-only server has nothing to remove.
        let _ = server.open(server.builder(database)).clear();
    }
    let recorder = Recorder::of(address.to_owned());
    scenario(&Stage::at(recorder.port()));
    std::fs::write(file(name), recorder.recording().to_string()).unwrap();
}

//! A folder, as this process uses it: opened once, whoever asks, and once more after a fork.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::environment::{Environment, News, Plan, Refusal};
use crate::error::{Error, ErrorKind, Result};

/// How often a trip is begun again, each time for another reason.
const ATTEMPTS: usize = 4;

/// A folder that caches of this process use, or have used.
///
/// It is never dropped: threads of a parent process may have been in the midst of a trip when
/// this one was forked, and what they used must not be closed here.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    size: AtomicU64,
    users: AtomicUsize,
    home: Home,
}

/// What one process has opened.
#[derive(Debug)]
struct Home {
    pid: u32,
    door: RwLock<Door>,
    /// That of a child. A child has copies of the locks of its parent, which perhaps nobody will
    /// ever give free, and touches none of them.
    child: OnceLock<Box<Home>>,
}

#[derive(Debug, Default)]
struct Door {
    state: State,
    /// How often it was opened.
    times: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open(Box<Environment>),
    /// It could not be opened, at this second of the wall clock.
    Failed(Error, u64),
}

/// Why a trip could not be made.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Not with the file as it is open now.
    Reopen,
    /// The file contradicts itself.
    Damaged,
    /// Not at all.
    Failed(Error),
}

static PLACES: LazyLock<Mutex<HashMap<PathBuf, Arc<Folder>>>> = LazyLock::new(Mutex::default);

impl Folder {
    /// The place of `path`, for one more user. All have the same `size`; one that gives none
    /// takes the others', or `default`.
    pub(super) fn enter(path: &Path, size: Option<u64>, default: u64) -> Result<Arc<Self>> {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(path.to_owned()).or_insert_with(|| {
            Arc::new(Self {
                path: path.to_owned(),
                size: AtomicU64::new(default),
                users: AtomicUsize::new(0),
                home: Home::new(),
            })
        });
        let present = place.size.load(Ordering::Relaxed);
        if place.users.load(Ordering::Relaxed) == 0 {
            place.size.store(size.unwrap_or(default), Ordering::Relaxed);
        } else if size.is_some_and(|size| size != present) {
            return Err(Error::configuration(format!(
                "disk://{} is open already with size={present}; give all its caches the same size, or give it to one alone",
                path.display()
            )));
        }
        place.users.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(place))
    }

    /// One user less. The last one closes the file.
    pub(super) fn leave(&self) {
        let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let was_last = self.users.fetch_sub(1, Ordering::Relaxed) == 1;
        drop(places);
        if let Some(home) = self.home.own().filter(|_| was_last) {
            let mut door = home.door.write().unwrap_or_else(PoisonError::into_inner);
            if self.users.load(Ordering::Relaxed) == 0 {
                door.state = State::Closed;
            }
        }
    }

    /// Does `work` with the open file, opening it first if need be.
    ///
    /// `second` is the wall clock's: a file that cannot be opened is tried again in the next one.
    pub(super) fn work<T>(
        &self,
        second: u64,
        patience: Duration,
        mut work: impl FnMut(&Environment) -> Result<T, Trouble>,
    ) -> Result<T> {
        let (home, forked) = self.home.here();
        for _ in 0..ATTEMPTS {
            let (damaged, times) = {
                let door = home.door.read().unwrap_or_else(PoisonError::into_inner);
                let trouble = match &door.state {
                    State::Open(environment) if environment.is_replaced(second) => Trouble::Reopen,
                    State::Open(environment) => match work(environment) {
                        Ok(done) => return Ok(done),
                        Err(trouble) => trouble,
                    },
                    State::Failed(error, at) if *at == second => return Err(error.clone()),
                    State::Failed(..) | State::Closed => Trouble::Reopen,
                };
                let damaged = match (&door.state, trouble) {
                    (_, Trouble::Failed(error)) => return Err(error),
                    (State::Open(file), Trouble::Damaged) => Some(file.identity()),
                    _ => None,
                };
                (damaged, door.times)
            };
            let mut door = home.door.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have been faster.
            if door.times != times {
                continue;
            }
            door.times += 1;
            // Closed before it is opened again: a process must never have it open twice.
            door.state = State::Closed;
            let mut news = News::new();
            let opened = usize::try_from(self.size.load(Ordering::Relaxed))
                .map_err(|_| Refusal::Damaged("it is too large for this machine".to_owned()))
                .and_then(|size| {
                    let plan = Plan {
                        folder: &self.path,
                        size,
                        forked,
                        damaged,
                        patience,
                    };
                    Environment::open(plan, &mut news)
                });
            let failed = match opened {
                Ok(environment) => {
                    door.state = State::Open(Box::new(environment));
                    None
                }
                Err(refusal) => {
                    let error = self.explain(refusal);
                    door.state = State::Failed(error.clone(), second);
                    Some(error)
                }
            };
            drop(door);
            for (level, what) in news {
                log::log!(level, "{what}");
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Err(self.explain(Refusal::Damaged("it fails again and again".to_owned())))
    }

    /// The error that `refusal` is to the caller.
    pub(super) fn explain(&self, refusal: Refusal) -> Error {
        let path = self.path.display();
        match refusal {
            Refusal::Io(what, error) => {
                let (kind, advice) = advise(&error);
                Error::with_source(
                    kind,
                    format!("disk://{path} {what}: {error}{advice}"),
                    error,
                )
            }
            Refusal::Damaged(why) => Error::new(
                ErrorKind::Unavailable,
                format!("disk://{path} cannot be used: {why}"),
            ),
            Refusal::Taken => Error::configuration(format!(
                "disk://{path} is open in this process already, by something other than onetrip or under another name; give the cache a folder of its own"
            )),
        }
    }
}

fn advise(error: &std::io::Error) -> (ErrorKind, &'static str) {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull, WouldBlock};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => (
            ErrorKind::Refused,
            "; the folder must be one that this user may write in",
        ),
        StorageFull => (
            ErrorKind::Unavailable,
            "; the disk must have room for size= and a quarter more",
        ),
        WouldBlock => (
            ErrorKind::Unavailable,
            "; another process is opening it and does not end",
        ),
        _ => (ErrorKind::Unavailable, ""),
    }
}

impl Home {
    fn new() -> Self {
        Self {
            pid: std::process::id(),
            door: RwLock::default(),
            child: OnceLock::new(),
        }
    }

    /// That of this process, and whether it was forked from one that has one too.
    fn here(&self) -> (&Self, bool) {
        let pid = std::process::id();
        let (mut home, mut forked) = (self, false);
        while home.pid != pid {
            home = home.child.get_or_init(|| Box::new(Self::new()));
            forked = true;
        }
        (home, forked)
    }

    /// That of this process, if there is one yet.
    fn own(&self) -> Option<&Self> {
        let pid = std::process::id();
        let mut home = self;
        while home.pid != pid {
            home = home.child.get()?;
        }
        Some(home)
    }
}

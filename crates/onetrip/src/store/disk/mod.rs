//! Entries in a folder that the processes of one machine share, and that outlives them.
//!
//! The file is LMDB's: readers never wait, not even for a writer; writers take turns, across all
//! processes, and a lock whose holder was killed passes to the next. All operations of a trip are
//! one transaction, unless they carry so much that they are several.
//!
//! An exchange is answered on the spot. A write may wait there for that of another process, which
//! takes microseconds and needs nothing that a waiting caller may hold; handing it to a thread
//! would cost each more than that.

#[cfg_attr(target_os = "linux", path = "boot/linux.rs")]
#[cfg_attr(target_vendor = "apple", path = "boot/apple.rs")]
#[cfg_attr(
    not(any(target_os = "linux", target_vendor = "apple")),
    path = "boot/unknown.rs"
)]
mod boot;
mod damage;
mod entries;
mod environment;
mod evict;
mod folder;
mod row;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heed::MdbError;

use self::entries::Entries;
use self::environment::{Environment, refusal};
use self::evict::Room;
use self::folder::{Folder, Trouble};
use super::{Exchange, Store, StoreOptions};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Replies, Reply, Trip};
use crate::url::{self, StoreUrl};

/// Bytes that a disk store holds unless its URL says `size`.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The least that makes sense: a few hundred pages.
const LEAST_SIZE: u64 = 1 << 20;

const OPTIONS: &[&str] = &["size"];

/// How often more room is made for a write before it fails.
const ATTEMPTS: u32 = 8;

/// How long to wait, doubled with each attempt, where eviction alone makes no room: readers keep
/// freed pages from being used. That takes microseconds, or on a busy machine as long as a reader
/// waits for its turn.
const WAIT: Duration = Duration::from_millis(1);

/// A bounded store in a folder.
///
/// An entry expires by the wall clock, since processes and restarts share it. It is never answered
/// from then on; its row goes when room is needed, before any other.
#[derive(Debug)]
struct Disk {
    place: Arc<Folder>,
    clock: Clock,
    patience: Duration,
    label: Arc<str>,
}

/// Opens the store that a `disk:` URL names. Caches of this process that name the same folder
/// share it.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let mut url = url.clone();
    let size = url.take_as("size", size)?;
    url.finish(OPTIONS)?;
    let path = folder(&url)?;
    let place = Folder::enter(&path, size, DEFAULT_SIZE)?;
    Ok(Arc::new(Disk {
        place,
        clock: options.clock.clone(),
        patience: options.connect_timeout,
        label: format!("disk://{}", path.display()).into(),
    }))
}

fn size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a size such as 64MB, 256MiB or 1GiB, of 1MiB or more";
    let fits = |size: &u64| {
        *size >= LEAST_SIZE && isize::try_from(*size).is_ok_and(|size| size <= isize::MAX / 2)
    };
    url::size(text).ok().filter(fits).ok_or(EXPECTED)
}

/// The folder that the URL names, by its own name: through whatever links lead there.
fn folder(url: &StoreUrl) -> Result<PathBuf> {
    let path = PathBuf::from(url.path());
    if url.host().is_some() || !path.is_absolute() || path.parent().is_none() {
        return Err(Error::configuration(format!(
            "{} names no folder; write its whole path behind three slashes, as in disk:///var/cache/app",
            url.label()
        )));
    }
    let mut missing = Vec::new();
    let mut present: &Path = &path;
    while let Err(error) = present.symlink_metadata()
        && error.kind() == std::io::ErrorKind::NotFound
        && let (Some(parent), Some(name)) = (present.parent(), present.file_name())
    {
        missing.push(name);
        present = parent;
    }
    if present.metadata().is_ok_and(|metadata| !metadata.is_dir())
        || path
            .metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotADirectory)
    {
        return Err(Error::configuration(format!(
            "{} is no folder; a file is in its way",
            url.label()
        )));
    }
    let mut folder = present
        .canonicalize()
        .unwrap_or_else(|_| present.to_owned());
    folder.extend(missing.iter().rev());
    Ok(folder)
}

impl Disk {
    fn answer(&self, file: &Environment, now: u64, trip: &Trip) -> Result<Replies, Trouble> {
        let entries = Entries {
            tree: file.tree,
            room: &file.room,
            now,
            label: &self.label,
        };
        if trip.ops().iter().all(|op| matches!(op, Op::Get { .. })) {
            return self.read(file, &entries, trip);
        }
        let mut replies = Replies::new();
        for part in parts(trip.ops(), &file.room) {
            match self.write(file, &entries, part) {
                Ok(answers) => replies.extend(answers),
                // What is done is done.
                Err(Trouble::Failed(error)) if !replies.is_empty() => {
                    let left = trip.len() - replies.len();
                    replies.extend((0..left).map(|_| Reply::Failed(error.clone())));
                    break;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(replies)
    }

    fn read(
        &self,
        file: &Environment,
        entries: &Entries<'_>,
        trip: &Trip,
    ) -> Result<Replies, Trouble> {
        let read = || {
            let txn = file.env.read_txn()?;
            let ops = trip.ops().iter();
            ops.map(|op| entries.get(&txn, op.name()).map(Reply::Entry))
                .collect()
        };
        match read() {
            Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
                // Processes that were killed do not leave.
                file.env
                    .clear_stale_readers()
                    .map_err(|error| self.trouble(error))?;
                read()
            }
            replies => replies,
        }
        .map_err(|error| self.trouble(error))
    }

    /// Carries out `ops` in one transaction, making room until it fits.
    fn write(
        &self,
        file: &Environment,
        entries: &Entries<'_>,
        ops: &[Op],
    ) -> Result<Replies, Trouble> {
        let write = || {
            let mut txn = file.env.write_txn()?;
            let replies = ops.iter().map(|op| entries.answer(&mut txn, op));
            let replies = replies.collect::<heed::Result<Replies>>()?;
            txn.commit()?;
            file.reach_end()?;
            Ok(replies)
        };
        let bytes = ops.iter().map(|op| file.room.weigh(op)).sum();
        // In small transactions, since each needs free pages itself.
        let make_room = |attempt| {
            file.env.clear_stale_readers()?;
            loop {
                let mut txn = file.env.write_txn()?;
                let room = &file.room;
                let more = room.make_more(file.tree, &mut txn, bytes, attempt, entries.now)?;
                txn.commit()?;
                if !more {
                    return Ok(());
                }
            }
        };
        for attempt in 0..ATTEMPTS {
            match write() {
                Err(heed::Error::Mdb(MdbError::MapFull)) => {}
                done => return done.map_err(|error| self.trouble(error)),
            }
            let is_stuck = match make_room(attempt) {
                Err(heed::Error::Mdb(MdbError::MapFull)) => true,
                done => done
                    .map(|()| attempt > 1)
                    .map_err(|error| self.trouble(error))?,
            };
            if is_stuck {
                std::thread::sleep(WAIT * (1 << attempt));
            }
        }
        write().map_err(|error| self.trouble(error))
    }

    fn trouble(&self, error: heed::Error) -> Trouble {
        match error {
            heed::Error::Mdb(error) if damage::is_damage(error) => Trouble::Damaged,
            // It grew in another process that has a larger size, or a write failed half-way.
            heed::Error::Mdb(MdbError::MapResized | MdbError::Panic) => Trouble::Reopen,
            heed::Error::Mdb(MdbError::MapFull) => Trouble::Failed(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{} has no room: a process that stands still in the middle of a read keeps what was freed",
                    self.label
                ),
            )),
            error => Trouble::Failed(self.place.explain(refusal(error))),
        }
    }
}

/// Operations in parts that one transaction each has room for.
fn parts<'t>(ops: &'t [Op], room: &Room) -> impl Iterator<Item = &'t [Op]> {
    let mut carried = ops.first().map_or(0, |op| room.weigh(op));
    ops.chunk_by(move |_, next| {
        carried += room.weigh(next);
        let fits = carried <= room.largest();
        if !fits {
            carried = room.weigh(next);
        }
        fits
    })
}

impl Store for Disk {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        let now = self.clock.wall();
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX - 1);
        let replies = self.place.work(now.as_secs(), self.patience, |file| {
            self.answer(file, micros, trip)
        });
        Exchange::Ready(replies.unwrap_or_else(|error| trip.failed(&error)))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.place.leave();
    }
}

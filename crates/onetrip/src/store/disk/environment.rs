//! Opening the file of a folder, whatever state it is in.
//!
//! ```text
//! onetrip        what the folder is, the version of its rows, and the boot of the machine
//! data.mdb       the entries (LMDB)
//! lock.mdb       the lock of writers and the table of readers (LMDB)
//! data.mdb.damaged-1 …
//! ```
//!
//! Nothing is synchronized to the disk: a process that is killed has handed its pages to the
//! system, and what is here can be computed again. If the system itself goes down, pages may be
//! missing from the middle of the file, and old ones stand in their place. That cannot be seen, so
//! a file from before the last boot is begun anew.
//!
//! On a system that does not tell its boots apart, each write is synchronized instead.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions};
use rustix::fs::{FlockOperation, flock};

use super::boot;
use super::damage;
use super::evict::Room;

/// The rows of a file.
pub(super) type Tree = heed::Database<'static, Bytes, Bytes>;

const MARK: &str = "onetrip";
const DRAFT: &str = "onetrip.new";
const DATA: &str = "data.mdb";
const LOCK: &str = "lock.mdb";
const FORK: &str = "fork-";
const DAMAGED: &str = "data.mdb.damaged-";

/// The version of the rows. A file of another one is set aside.
const VERSION: &str = "onetrip disk store, version 1";

/// How many damaged files are kept, for somebody to look at.
const KEPT: usize = 2;

/// Threads that may have read, of all processes: LMDB keeps a place for each until it ends.
const READERS: u32 = 4096;

/// What there is to log of an opening. It is logged when no lock is held any more: a logger may
/// wait for something that a thread has that waits for the lock (Python's, for one).
pub(super) type News = Vec<(log::Level, String)>;

/// What to open, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'p> {
    pub(super) folder: &'p Path,
    /// Bytes of pages that may hold entries.
    pub(super) size: usize,
    /// Whether this process was forked from one that had the file open.
    pub(super) forked: bool,
    /// The identity of the file that turned out to be damaged.
    pub(super) damaged: Option<(u64, u64)>,
    /// The longest to wait while another process opens the file.
    pub(super) patience: Duration,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) env: Env,
    pub(super) tree: Tree,
    pub(super) room: Room,
    data: PathBuf,
    /// Its device and number: a file that is put in its place has others.
    identity: (u64, u64),
    /// The second of the wall clock at which its place was last looked at.
    looked: AtomicU64,
    /// The last page that the file is known to reach.
    reaches: AtomicUsize,
}

/// Why a file cannot be opened.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The system refuses.
    Io(&'static str, io::Error),
    /// The file is not what it should be.
    Damaged(String),
    /// Something else in this process has it open, with LMDB.
    Taken,
}

impl Environment {
    /// Opens the file, beginning it where there is none and setting it aside where it is damaged.
    pub(super) fn open(plan: Plan<'_>, news: &mut News) -> Result<Self, Refusal> {
        let folder = plan.folder;
        create(folder).map_err(|error| Refusal::Io("cannot create its folder", error))?;
        // One process at a time opens, and none sees a file half begun or half set aside.
        let _lock = Lock::take(folder, plan.patience)
            .map_err(|error| Refusal::Io("cannot lock its folder", error))?;
        let io = |error| Refusal::Io("cannot write in its folder", error);
        tidy(folder).map_err(io)?;
        check_mark(folder, news).map_err(io)?;
        let data = folder.join(DATA);
        if plan.damaged.is_some() && identity(&data).ok() == plan.damaged {
            set_aside(folder, "its pages contradict one another", news).map_err(io)?;
        }
        match Self::open_sound(plan, &data) {
            Err(Refusal::Damaged(why)) => {
                set_aside(folder, &why, news).map_err(io)?;
                Self::open_sound(plan, &data)
            }
            opened => opened,
        }
    }

    fn open_sound(plan: Plan<'_>, data: &Path) -> Result<Self, Refusal> {
        let looked =
            damage::look(data).map_err(|error| Refusal::Io("cannot read its file", error))?;
        if let Some(why) = looked {
            return Err(Refusal::Damaged(why.to_owned()));
        }
        let env = if plan.forked {
            let links = Links::new(plan.folder)
                .map_err(|error| Refusal::Io("cannot link its files for this process", error))?;
            let env = map(&links.0, plan.size)?;
            links
                .give_back(plan.folder)
                .map_err(|error| Refusal::Io("cannot link its files for this process", error))?;
            env
        } else {
            map(plan.folder, plan.size)?
        };
        env.clear_stale_readers().map_err(refusal)?;
        let txn = env.read_txn().map_err(refusal)?;
        let tree = env
            .open_databases_and_commit(txn, |opener, txn| {
                let tree = opener.open_database::<Bytes, Bytes>(txn, None)?;
                Ok(CommitOrAbort::<_, ()>::Commit(tree))
            })
            .map_err(refusal)?
            .commit()
            .flatten()
            .ok_or_else(|| Refusal::Damaged("it has no tree".to_owned()))?;
        let page = env.unnamed_database_stat().page_size as usize;
        let last_page = env.info().last_page_number;
        Ok(Self {
            tree,
            room: Room::new(plan.size, page),
            data: data.to_owned(),
            identity: identity(data).map_err(|error| Refusal::Io("cannot read its file", error))?,
            looked: AtomicU64::new(0),
            reaches: AtomicUsize::new(last_page),
            env,
        })
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether another file has taken the place of this one, or none. Looks once a second.
    pub(super) fn is_replaced(&self, second: u64) -> bool {
        if self.looked.load(Ordering::Relaxed) == second {
            return false;
        }
        self.looked.store(second, Ordering::Relaxed);
        identity(&self.data).ok() != Some(self.identity)
    }

    /// Lets the file reach as far as it says it does.
    ///
    /// LMDB does not write a page at the end that was taken and given back within a transaction.
    /// The file is then as short as one that was cut, which must be told apart.
    pub(super) fn reach_end(&self) -> heed::Result<()> {
        let last = self.env.info().last_page_number;
        if last <= self.reaches.load(Ordering::Relaxed) {
            return Ok(());
        }
        let file = self.env.try_clone_inner_file()?;
        let page = self.env.unnamed_database_stat().page_size as usize;
        if (file.metadata()?.len() as usize) < (last + 1) * page {
            // Others write to the file while they hold this transaction alone.
            let _alone = self.env.write_txn()?;
            let end = ((self.env.info().last_page_number + 1) * page) as u64;
            if file.metadata()?.len() < end {
                file.set_len(end)?;
            }
        }
        self.reaches.fetch_max(last, Ordering::Relaxed);
        Ok(())
    }
}

/// Maps the files of `folder` into memory.
#[expect(
    unsafe_code,
    reason = "LMDB gives out slices of a mapped file, which are sound as long as nobody changes the file but LMDB, under its locks. Every entry is copied out within its transaction. The file lies in a folder for us alone, is looked at before it is mapped, and is opened once in each process: see Folder. A forked child never uses what it inherited. NO_SYNC is unsafe only against a failing system, after which the file is begun anew"
)]
fn map(folder: &Path, size: usize) -> Result<Env, Refusal> {
    let mut options = EnvOpenOptions::new();
    options.map_size(Room::space(size)).max_readers(READERS);
    // Not WRITE_MAP: a full disk would end the process instead of failing the write.
    let flags = match boot::id() {
        Some(_) => EnvFlags::NO_SYNC,
        // Nobody could tell that the system went down, so that must break nothing.
        None => EnvFlags::empty(),
    };
    unsafe { options.flags(flags).open(folder) }.map_err(refusal)
}

pub(super) fn refusal(error: heed::Error) -> Refusal {
    match error {
        heed::Error::Io(error) => Refusal::Io("cannot open its file", error),
        heed::Error::Mdb(error) if damage::is_damage(error) => Refusal::Damaged(error.to_string()),
        heed::Error::EnvAlreadyOpened => Refusal::Taken,
        error => Refusal::Io("cannot open its file", io::Error::other(error.to_string())),
    }
}

/// Creates the folder, for this user alone: pages in it may be private.
fn create(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)
}

/// A lock of the folder against others that open its file. A process that dies gives it free.
struct Lock(File);

impl Lock {
    fn take(folder: &Path, patience: Duration) -> io::Result<Self> {
        let handle = File::open(folder)?;
        let until = Instant::now() + patience;
        loop {
            match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(handle)),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not by closing it alone: a child that was forked meanwhile holds the same lock.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Removes what killed processes left behind while they opened the file.
fn tidy(folder: &Path) -> io::Result<()> {
    for name in names(folder)? {
        if name.starts_with(FORK) {
            fs::remove_dir_all(folder.join(name))?;
        }
    }
    Ok(())
}

/// Checks that the folder is ours, of this version and of this boot of the machine.
fn check_mark(folder: &Path, news: &mut News) -> io::Result<()> {
    let path = folder.join(MARK);
    let boot = boot::id().unwrap_or_default();
    let wanted = format!("{VERSION}\nboot {boot}\n");
    let mark = match fs::read(&path) {
        Ok(mark) => Some(mark),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if mark.as_deref() == Some(wanted.as_bytes()) {
        return Ok(());
    }
    if folder.join(DATA).symlink_metadata().is_ok() {
        let first = mark
            .as_deref()
            .and_then(|mark| mark.split(|byte| *byte == b'\n').next());
        if first == Some(VERSION.as_bytes()) {
            let what = "was written before the system started and is begun anew";
            news.push((log::Level::Info, format!("{} {what}", folder.display())));
            remove(&folder.join(DATA))?;
            remove(&folder.join(LOCK))?;
        } else {
            set_aside(folder, "it is not of this version", news)?;
        }
    }
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    // Whole or not at all, should this process be killed here.
    let draft = folder.join(DRAFT);
    io::Write::write_all(&mut options.open(&draft)?, wanted.as_bytes())?;
    fs::rename(draft, path)
}

/// Renames the file, so that it is begun anew and somebody can look at what it was.
fn set_aside(folder: &Path, why: &str, news: &mut News) -> io::Result<()> {
    let mut numbers: Vec<u64> = names(folder)?
        .iter()
        .filter_map(|name| name.strip_prefix(DAMAGED)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let aside = folder.join(format!("{DAMAGED}{next}"));
    fs::rename(folder.join(DATA), &aside)?;
    // Those that still use the old pair keep it until they see that its place was taken.
    remove(&folder.join(LOCK))?;
    let (data, aside) = (folder.join(DATA), aside.display().to_string());
    let what = format!(
        "{} is damaged: {why}. It is set aside as {aside} and begun anew",
        data.display()
    );
    news.push((log::Level::Warn, what));
    let outdated = numbers.len().saturating_sub(KEPT - 1);
    for number in numbers.iter().take(outdated) {
        remove(&folder.join(format!("{DAMAGED}{number}")))?;
    }
    Ok(())
}

/// Removes what is at `path`, if anything.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The files under other names, for a forked process.
///
/// heed lets a process open a path once, and a child inherits its parent's note of that. The
/// inherited environment can be neither used nor closed: other threads of the parent were
/// perhaps in the midst of it. Locks belong to files, not to names, so that under another name
/// the child opens the same store, as any other process does.
struct Links(PathBuf);

impl Links {
    fn new(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let links = Self(folder.join(format!("{FORK}{}-{number}", std::process::id())));
        create(&links.0)?;
        for name in [DATA, LOCK] {
            link(&folder.join(name), &links.0.join(name))?;
        }
        Ok(links)
    }

    /// Puts files that were begun under the other names into their place.
    fn give_back(self, folder: &Path) -> io::Result<()> {
        for name in [DATA, LOCK] {
            if folder.join(name).symlink_metadata().is_err() {
                link(&self.0.join(name), &folder.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // What stays is removed by the next process that opens the folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Links a file that may not be there.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        linked => linked,
    }
}

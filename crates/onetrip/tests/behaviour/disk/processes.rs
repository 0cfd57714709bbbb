//! Several processes use one folder at once; some are killed, some fork.
//!
//! The other processes are this test program, started for the test [`part`], with their task in the
//! environment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onetrip::Ttl;
use onetrip::blocking::Cache;

use super::open;
use crate::support::{Blob, Folder};

const PART: &str = "ONETRIP_TEST_PART";
const URL: &str = "ONETRIP_TEST_URL";
const SEED: &str = "ONETRIP_TEST_SEED";

const KEYS: u64 = 200;

/// Runs the task of another process. Does nothing in the test program's own run.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let cache = open(&std::env::var(URL).unwrap());
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    match part.as_str() {
        "work" => work(&cache, seed, 2000),
        "write" => {
            println!("ready");
            work(&cache, seed, 1_000_000);
        }
        "count" => {
            for key in 0..500 {
                cache.incr("n", 1).unwrap();
                if cache.add(format!("once:{key}"), &1, Ttl::Never).unwrap() {
                    cache.incr("added", 1).unwrap();
                }
            }
        }
        "fork" => fork(&cache),
        "early" => {
            wait_for(in_a_child(|| cache.set("a", &1).unwrap()));
            assert_eq!(cache.get("a").unwrap(), Some(1));
            wait_for(in_a_child(|| {
                assert_eq!(cache.incr("a", 1).unwrap(), Some(2))
            }));
            assert_eq!(cache.get("a").unwrap(), Some(2));
        }
        "full" => full(&cache),
        other => panic!("no part is called {other}"),
    }
}

fn command(part: &str, url: &str, seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "disk::processes::part"])
        .env(PART, part)
        .env(URL, url)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn start(part: &str, url: &str, seed: u64) -> Child {
    command(part, url, seed).spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", output.status);
}

/// Returns a value from which `assert_whole` can tell its key, and whether it is complete.
fn value(key: u64, seed: u64) -> Blob {
    let length = (seed * 37 % 97) * (seed % 7) * (seed % 11) + 16;
    let words = (0..length).flat_map(|word| (key ^ seed ^ word).to_le_bytes());
    let head = key.to_le_bytes().into_iter().chain(seed.to_le_bytes());
    Blob(head.chain(words).collect())
}

fn assert_whole(key: u64, found: &Blob) {
    let seed = u64::from_le_bytes(found.0[8..16].try_into().unwrap());
    assert!(*found == value(key, seed), "another value at {key}");
}

/// Writes, reads and deletes, and checks all values found.
fn work(cache: &Cache, seed: u64, rounds: u64) {
    for round in 0..rounds {
        let seed = seed + round * 1009;
        let key = seed * 31 % KEYS;
        match seed % 8 {
            0 => drop(cache.delete(key.to_string()).unwrap()),
            1..4 => {
                let span = Duration::from_millis(seed % 100 + 1);
                cache
                    .set_for(key.to_string(), &value(key, seed), span)
                    .unwrap();
            }
            _ => cache
                .set_for(key.to_string(), &value(key, seed), Ttl::Never)
                .unwrap(),
        }
        check(cache, [(key + 1) % KEYS, (key + 7) % KEYS]);
    }
    assert_eq!(cache.asynchronous().stats().bad_entries, 0);
}

fn check(cache: &Cache, keys: impl IntoIterator<Item = u64>) {
    let keys: Vec<u64> = keys.into_iter().collect();
    let names: Vec<String> = keys.iter().map(u64::to_string).collect();
    let values: Vec<Option<Blob>> = cache.get_many(&names).unwrap();
    for (key, value) in keys.iter().zip(values) {
        if let Some(value) = value {
            assert_whole(*key, &value);
        }
    }
}

/// Checks all values, that the store works, and that no file was set aside.
fn assert_sound(folder: &Folder, cache: &Cache) {
    check(cache, 0..KEYS);
    assert_eq!(cache.asynchronous().stats().bad_entries, 0);
    cache.set("last", &1).unwrap();
    assert!(cache.delete("last").unwrap());
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            ["data.mdb", "lock.mdb", "onetrip"].contains(&name.as_str()),
            "{name}"
        );
    }
    cache.clear().unwrap();
    assert_eq!(cache.clear().unwrap(), 0);
}

#[test]
fn processes_read_and_write_at_once() {
    let folder = Folder::new();
    let url = format!("{}?size=2MiB", folder.url());
    let children = [1, 2, 3].map(|seed| start("work", &url, seed));
    let cache = open(&url);
    work(&cache, 4, 2000);
    children.into_iter().for_each(finish);
    assert_sound(&folder, &cache);
}

#[test]
fn processes_count_together() {
    let folder = Folder::new();
    let cache = open(&folder.url());
    cache
        .set_many([("n", 0), ("added", 0)], Ttl::Never)
        .unwrap();
    let children = [1, 2, 3].map(|seed| start("count", &folder.url(), seed));
    children.into_iter().for_each(finish);
    assert_eq!(cache.get("n").unwrap(), Some(1500));
    assert_eq!(cache.get("added").unwrap(), Some(500));
}

#[test]
fn processes_open_a_damaged_file_at_once() {
    for _ in 0..5 {
        let folder = Folder::new();
        std::fs::write(folder.path().join("data.mdb"), "garbage").unwrap();
        let cache = open(&folder.url());
        let children = [1, 2, 3, 4].map(|seed| start("count", &folder.url(), seed));
        children.into_iter().for_each(finish);
        let once: Vec<Option<i64>> = cache.get_many(&["once:0", "once:499"]).unwrap();
        assert_eq!(once, [Some(1), Some(1)], "all use the same file");
    }
}

#[test]
fn killed_writers_leave_the_store_intact() {
    let folder = Folder::new();
    let url = format!("{}?size=2MiB", folder.url());
    let cache = open(&url);
    let steady = start("work", &url, 5);
    for round in 0..40 {
        let mut child = start("write", &url, round);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready")));
        // Kill at any moment: the work in between takes longer each time.
        work(&cache, round, round % 20 * 5);
        child.kill().unwrap();
        child.wait().unwrap();
        work(&cache, round, 20);
    }
    finish(steady);
    assert_sound(&folder, &cache);
}

#[test]
fn forking_process_leaves_the_store_intact() {
    let folder = Folder::new();
    let url = format!("{}?size=2MiB", folder.url());
    let cache = open(&url);
    let child = start("fork", &url, 1);
    work(&cache, 2, 1000);
    finish(child);
    assert_sound(&folder, &cache);
}

#[test]
fn forked_child_may_open_the_store_first() {
    let folder = Folder::new();
    finish(start("early", &folder.url(), 1));
    assert_eq!(open(&folder.url()).get("a").unwrap(), Some(2));
}

/// Forks repeatedly while threads read and write; each child reads and writes too.
fn fork(cache: &Cache) {
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..3 {
            let done = &done;
            threads.spawn(move || {
                let mut seed = thread;
                while !done.load(Ordering::Relaxed) {
                    work(cache, seed, 10);
                    seed += 1;
                }
            });
        }
        let _stop = Stop(&done);
        for round in 0..40 {
            let child = in_a_child(|| {
                work(cache, round, 30);
                let grandchild = in_a_child(|| work(cache, round, 10));
                work(cache, round, 10);
                wait_for(grandchild);
            });
            work(cache, round, 10);
            wait_for(child);
        }
    });
}

/// Does `work` in a forked child, which skips the test program's own exit code.
fn in_a_child(work: impl FnOnce()) -> libc::pid_t {
    let child = fork_once();
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        leave(i32::from(done.is_err()));
    }
    child
}

#[expect(
    unsafe_code,
    reason = "no safe function forks; the child only does what is tested"
)]
fn fork_once() -> libc::pid_t {
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    pid
}

#[expect(
    unsafe_code,
    reason = "a plain call of the system, with memory of our own"
)]
fn wait_for(child: libc::pid_t) {
    let mut status = -1;
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child failed");
}

#[expect(unsafe_code, reason = "a plain call of the system")]
fn leave(status: i32) -> ! {
    unsafe { libc::_exit(status) }
}

#[test]
fn full_disk_fails_only_writes() {
    let folder = Folder::new();
    // File sizes are limited, as if the disk were full.
    let limited = "trap '' XFSZ; ulimit -f 1000; exec \"$@\"";
    let direct = command("full", &folder.url(), 1);
    let child = Command::new("sh")
        .args(["-c", limited, "limited"])
        .arg(direct.get_program())
        .args(direct.get_args())
        .envs(
            direct
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    finish(child);
    // Once there is room again, writes work.
    let cache = open(&folder.url());
    work(&cache, 1, 300);
    assert_sound(&folder, &cache);
}

fn full(cache: &Cache) {
    cache.set_for("first", &1, Ttl::Never).unwrap();
    let mut failed = 0;
    for key in 0..2000 {
        if let Err(error) = cache.set_for(key.to_string(), &value(key, 5), Ttl::Never) {
            assert!(error.kind().is_store_failure(), "{error:?}");
            failed += 1;
        }
    }
    assert!(failed > 0, "the limit was never reached");
    assert_eq!(cache.get("first").unwrap(), Some(1));
    check(cache, 0..KEYS);
    assert!(cache.delete("first").unwrap());
    assert_eq!(cache.get::<i64>("first").unwrap(), None);
}

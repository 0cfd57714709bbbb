//! Specifics of the disk store: it outlives its processes, and its files are bounded.

mod damage;
mod processes;
mod room;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use onetrip::blocking::Cache;
use onetrip::{Builder, Clock, ErrorKind, OnError, Ttl};

use crate::support::{Blob, Folder};

fn build(builder: Builder) -> Cache {
    builder.on_error(OnError::Raise).build().unwrap().blocking()
}

fn open(url: &str) -> Cache {
    build(onetrip::Cache::builder(url))
}

fn refused(url: &str) -> String {
    let error = onetrip::Cache::open(url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    error.to_string()
}

#[test]
fn entries_outlive_the_cache() {
    let folder = Folder::new();
    for round in 0..3 {
        let cache = open(&folder.url());
        assert_eq!(cache.incr("n", 1).unwrap().unwrap_or(0), round);
        if round == 0 {
            cache.set_for("n", &0, Ttl::Never).unwrap();
        }
    }
}

#[test]
fn caches_of_one_folder_share_it() {
    let folder = Folder::new();
    let link = folder.path().with_extension("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let one = open(&folder.url());
    let others = [
        open(&format!("{}/", folder.url())),
        open(&format!("disk://{}", link.display())),
    ];
    std::fs::remove_file(link).unwrap();
    one.set("a", &1).unwrap();
    for other in others {
        assert_eq!(other.get("a").unwrap(), Some(1));
    }
}

#[test]
fn folder_has_one_size_at_a_time() {
    let folder = Folder::new();
    let sized = |size: &str| format!("{}?size={size}", folder.url());
    let first = open(&sized("2MiB"));
    first.set("a", &1).unwrap();
    open(&sized("2048KiB"));
    open(&folder.url());
    assert!(refused(&sized("3MiB")).contains("size=2097152"));
    drop(first);
    for size in ["3MiB", "1MiB", "64MiB"] {
        assert_eq!(open(&sized(size)).get("a").unwrap(), Some(1), "{size}");
    }
}

#[test]
fn url_without_a_folder_is_refused() {
    for url in ["disk://", "disk:", "disk:///", "disk://var/cache"] {
        assert!(refused(url).contains("disk:///var/cache/app"), "{url}");
    }
    assert!(refused("disk:cache").contains("\"//\" must follow"));
    for size in ["1", "1023KiB", "x", "99999999999GiB"] {
        assert!(refused(&format!("disk:///tmp/x?size={size}")).contains("1MiB"));
    }
    assert!(refused("disk:///tmp/x?sise=1MiB").contains("size"));
    let folder = Folder::new();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below"), file.join("far/below")] {
        let message = refused(&format!("disk://{}", path.display()));
        assert!(message.contains("a file is in its way"), "{message}");
    }
}

#[test]
fn impossible_folder_fails_at_the_first_trip() {
    let url = "disk:///proc/no/such/folder";
    let error = open(url).set("a", &1).unwrap_err();
    assert!(error.kind().is_store_failure(), "{error:?}");
    assert!(error.to_string().contains(url), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    let lenient = onetrip::Cache::open(url).unwrap().blocking();
    assert_eq!(lenient.get::<i64>("a").unwrap(), None);
    lenient.set("a", &1).unwrap();
    assert_eq!(lenient.asynchronous().stats().errors, 2);
}

#[test]
fn folder_is_created_at_the_first_trip_for_this_user_only() {
    let folder = Folder::new();
    let path = folder.path().join("deep/er");
    let cache = open(&format!("disk://{}", path.display()));
    assert!(!path.exists());
    cache.set("a", &1).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn expired_entry_counts_as_absent() {
    let folder = Folder::new();
    let clock = Clock::manual();
    let cache = build(onetrip::Cache::builder(folder.url()).clock(clock.clone()));
    let second = Duration::from_secs(1);
    for key in ["get", "add", "incr", "touch", "delete", "clear"] {
        cache.set_for(key, &1, second).unwrap();
    }
    clock.advance(second);
    assert_eq!(cache.get::<i64>("get").unwrap(), None);
    assert!(cache.add("add", &2, Ttl::Never).unwrap());
    assert_eq!(cache.get("add").unwrap(), Some(2));
    assert_eq!(cache.incr("incr", 1).unwrap(), None);
    assert!(!cache.touch("touch", second).unwrap());
    assert!(!cache.delete("delete").unwrap());
    assert_eq!(cache.clear().unwrap(), 1, "only the added entry is alive");
}

#[test]
fn clear_includes_long_names() {
    let folder = Folder::new();
    let keys: Vec<Vec<u8>> = [0, 1, 300, 470, 478, 479, 505, 509, 510, 511, 512, 700, 2000]
        .iter()
        .flat_map(|length| {
            ["", "x", "yz"].map(|end| [&vec![b'k'; *length], end.as_bytes()].concat())
        })
        .collect();
    let all = open(&folder.url());
    let prefixes = [1, 4, 477, 478, 479, 509, 510, 511, 699, 1999, 3000];
    for prefix in prefixes.map(|length| "k".repeat(length)) {
        let values = keys.iter().map(|key| (key, 1));
        all.set_many(values, Ttl::Never).unwrap();
        let name = format!("{prefix}:");
        let within = |end: &str| format!("{name}{end}");
        let longer = within(&"k".repeat(600));
        for key in [within("a"), within(""), longer.clone(), longer + "2"] {
            all.set(key, &2).unwrap();
        }
        let cache = build(onetrip::Cache::builder(folder.url()).prefix(&prefix));
        assert_eq!(cache.clear().unwrap(), 4, "{}", prefix.len());
        assert_eq!(cache.clear().unwrap(), 0);
        let left: Vec<Option<i64>> = all.get_many(&keys).unwrap();
        assert!(
            left.iter().all(|value| *value == Some(1)),
            "{}",
            prefix.len()
        );
    }
    assert_eq!(all.clear().unwrap(), distinct(&keys));
}

fn distinct(keys: &[Vec<u8>]) -> u64 {
    keys.iter().collect::<std::collections::HashSet<_>>().len() as u64
}

#[test]
fn removed_folder_is_created_again() {
    let folder = Folder::new();
    let clock = Clock::manual();
    let cache = build(onetrip::Cache::builder(folder.url()).clock(clock.clone()));
    cache.set_for("a", &1, Ttl::Never).unwrap();
    std::fs::remove_dir_all(folder.path()).unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.get::<i64>("a").unwrap(), None);
    cache.set_for("a", &2, Ttl::Never).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(2));
    assert!(folder.path().join("data.mdb").exists());
}

#[test]
fn threads_add_once_and_lose_no_increment() {
    let folder = Folder::new();
    let cache = open(&folder.url());
    cache.set("n", &0).unwrap();
    let added = std::thread::scope(|threads| {
        let all: Vec<_> = (0..8)
            .map(|thread| {
                let cache = &cache;
                threads.spawn(move || {
                    (0..300)
                        .filter(|key: &usize| {
                            cache.incr("n", 1).unwrap();
                            cache.add(key.to_string(), &thread, Ttl::Never).unwrap()
                        })
                        .count()
                })
            })
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(added, 300);
    assert_eq!(cache.get("n").unwrap(), Some(2400));
}

#[test]
fn too_large_entry_is_refused_and_removes_the_old_one() {
    let folder = Folder::new();
    let cache = open(&format!("{}?size=1MiB", folder.url()));
    cache.set("a", "old").unwrap();
    let large = Blob(vec![1; 1 << 20]);
    let error = cache.set("a", &large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("size="), "{error}");
    assert!(!cache.contains("a").unwrap(), "the old entry is outdated");
    let error = cache.add("a", &large, Ttl::Default).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let largest = Blob(vec![1; 130_000]);
    cache.set("a", &largest).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(largest));
}

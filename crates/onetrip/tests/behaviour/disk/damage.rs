//! A damaged file is set aside with a warning, and a new one begun.

use std::fs;
use std::path::PathBuf;

use onetrip::Ttl;

use super::open;
use crate::support::{Blob, Folder};

/// Returns a folder with a closed store, and the store's file.
fn filled() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let cache = open(&folder.url());
    for key in 0..50 {
        let value = Blob(vec![key; 1500]);
        cache.set_for(key.to_string(), &value, Ttl::Never).unwrap();
    }
    let data = folder.path().join("data.mdb");
    (folder, data)
}

fn set_aside(folder: &Folder) -> usize {
    let names = fs::read_dir(folder.path()).unwrap();
    names
        .filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains("damaged")
        })
        .count()
}

/// Checks that the store works and returns nothing wrong.
fn assert_works(folder: &Folder) {
    let cache = open(&folder.url());
    for key in 0..50 {
        let answer: Option<Blob> = cache.get(key.to_string()).unwrap();
        assert!(answer.is_none_or(|value| value == Blob(vec![key; 1500])));
    }
    cache.set("new", &1).unwrap();
    assert_eq!(cache.get("new").unwrap(), Some(1));
}

#[test]
fn intact_file_is_not_set_aside() {
    let (folder, _) = filled();
    assert_works(&folder);
    assert_eq!(set_aside(&folder), 0);
    let cache = open(&folder.url());
    assert_eq!(cache.clear().unwrap(), 51);
}

#[test]
fn garbage_file_is_set_aside() {
    for length in [1, 16, 100, 4096, 10_000, 300_000] {
        for byte in [0, 1, 0xFF] {
            let (folder, data) = filled();
            fs::write(&data, vec![byte; length]).unwrap();
            assert_works(&folder);
            assert_eq!(set_aside(&folder), 1, "{length} times {byte}");
        }
    }
}

#[test]
fn truncated_file_is_set_aside() {
    let length = filled().1.metadata().unwrap_or_else(|_| {
        let (_folder, data) = filled();
        data.metadata().unwrap()
    });
    let length = length.len();
    for twentieth in 1..20 {
        for less in [0, 1] {
            let (folder, data) = filled();
            let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
            file.set_len(length * twentieth / 20 - less).unwrap();
            assert_works(&folder);
            assert_eq!(set_aside(&folder), 1, "{twentieth}/20 of {length} bytes");
        }
    }
    let (folder, data) = filled();
    fs::write(&data, "").unwrap();
    assert_works(&folder);
}

#[test]
fn file_with_wrong_header_is_set_aside() {
    for page in [0, 1] {
        for (at, bytes) in [
            (0, &[0; 4096][..]),
            (8, &[0; 8]),
            (16, &[0; 4]),
            (20, &[9; 4]),
            (40, &[0; 4]),
            (40, &[0, 0, 2, 0]),
            (128, &[0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0]),
            (128, &[0; 8]),
            (136, &[0xFF; 8]),
        ] {
            let (folder, data) = filled();
            let mut all = fs::read(&data).unwrap();
            let at = page * 4096 + at;
            all[at..at + bytes.len()].copy_from_slice(bytes);
            fs::write(&data, all).unwrap();
            assert_works(&folder);
            assert_eq!(set_aside(&folder), 1, "{bytes:?} at {at}");
        }
    }
}

#[test]
fn file_with_inconsistent_pages_is_set_aside() {
    let (folder, data) = filled();
    let mut all = fs::read(&data).unwrap();
    // The file's header is intact, but the pages it describes are missing.
    all[2 * 4096..].fill(0);
    fs::write(&data, all).unwrap();
    let cache = open(&folder.url());
    assert!(!cache.contains("1").unwrap());
    drop(cache);
    assert_works(&folder);
    assert_eq!(set_aside(&folder), 1);
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let (folder, data) = filled();
    let left = folder.path().join("fork-1-0");
    fs::create_dir(&left).unwrap();
    fs::hard_link(&data, left.join("data.mdb")).unwrap();
    assert!(open(&folder.url()).contains("1").unwrap());
    assert!(!left.exists());
}

#[test]
fn foreign_files_in_the_way_are_replaced() {
    let (folder, data) = filled();
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    assert_works(&folder);
    assert_eq!(set_aside(&folder), 1);

    let (folder, _) = filled();
    fs::write(folder.path().join("lock.mdb"), vec![7; 300_000]).unwrap();
    assert_works(&folder);
    assert_eq!(set_aside(&folder), 0, "an unused lock file is replaced");
}

#[test]
fn other_version_or_boot_begins_a_new_file() {
    for (mark, kept) in [("", 1), ("another program", 1)] {
        let (folder, _) = filled();
        fs::write(folder.path().join("onetrip"), mark).unwrap();
        assert_works(&folder);
        assert_eq!(set_aside(&folder), kept);
    }
    let (folder, _) = filled();
    fs::remove_file(folder.path().join("onetrip")).unwrap();
    assert_works(&folder);
    assert_eq!(set_aside(&folder), 1);

    let (folder, _) = filled();
    let mark = folder.path().join("onetrip");
    let text = fs::read_to_string(&mark).unwrap();
    let version = text.lines().next().unwrap();
    fs::write(&mark, format!("{version}\nboot of another time\n")).unwrap();
    let cache = open(&folder.url());
    assert!(
        !cache.contains("1").unwrap(),
        "a crashed system may have left anything"
    );
    assert_eq!(set_aside(&folder), 0);
}

#[test]
fn few_damaged_files_are_kept() {
    let folder = Folder::new();
    for round in 0..5 {
        fs::write(folder.path().join("data.mdb"), "garbage").unwrap();
        assert_works(&folder);
        assert_eq!(set_aside(&folder), (round + 1).min(2));
    }
}

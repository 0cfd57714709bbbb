//! A folder for one test, removed at its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder that no other test uses.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onetrip-folder-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the URL of a disk store in it.
    pub(crate) fn url(&self) -> String {
        format!("disk://{}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Files that a failed test leaves open do not matter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

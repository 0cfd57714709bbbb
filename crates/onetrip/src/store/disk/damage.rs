//! Telling a file that can be opened from one that cannot.
//!
//! LMDB believes what the first two pages of its file say about all others. What it would only
//! notice by reading beyond the end of the file is looked at here, before it is mapped.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use heed::MdbError;

/// Where things are in a page that describes the file, on a machine of 64 bits.
const FLAGS: usize = 10;
const META: u16 = 0x08;
const MAGIC: (usize, u32) = (16, 0xBEEF_C0DE);
const PAGE_SIZE: usize = 40;
const ROOTS: [usize; 2] = [80, 128];
const LAST_PAGE: usize = 136;
const DESCRIPTION: usize = 152;

/// The root of a tree without pages.
const NO_PAGE: u64 = u64::MAX;

/// What is wrong with the file at `path`, if it can be told from outside; nothing if there is no
/// file, or an empty one.
pub(super) fn look(path: &Path) -> io::Result<Option<&'static str>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Some("it is no file"));
    }
    if metadata.len() == 0 || !cfg!(target_pointer_width = "64") {
        return Ok(None);
    }
    // The largest page that LMDB has, twice.
    let mut head = Vec::new();
    file.by_ref().take(2 << 16).read_to_end(&mut head)?;
    // Asked again: another process may have made the file longer.
    let length = file.metadata()?.len();
    Ok(judge(&head, length))
}

fn judge(head: &[u8], length: u64) -> Option<&'static str> {
    let Some(page) = number::<4>(head, PAGE_SIZE).map(u32::from_le_bytes) else {
        return Some("it is cut short");
    };
    if !page.is_power_of_two() || !(512..=1 << 16).contains(&page) {
        return Some("its first page is no description");
    }
    let page = u64::from(page);
    for start in [0, page] {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let Some(description) = head.get(start..).filter(|rest| rest.len() >= DESCRIPTION) else {
            return Some("it is cut short");
        };
        let flags = number::<2>(description, FLAGS).map(u16::from_le_bytes)?;
        let magic = number::<4>(description, MAGIC.0).map(u32::from_le_bytes)?;
        let own_page = number::<4>(description, PAGE_SIZE).map(u32::from_le_bytes)?;
        let last = number::<8>(description, LAST_PAGE).map(u64::from_le_bytes)?;
        if flags & META == 0 || magic != MAGIC.1 || u64::from(own_page) != page {
            return Some("its first pages are no description");
        }
        if last >= length / page {
            return Some("it is cut short");
        }
        for root in ROOTS {
            let root = number::<8>(description, root).map(u64::from_le_bytes)?;
            if root != NO_PAGE && !(2..=last).contains(&root) {
                return Some("its tree is not in it");
            }
        }
    }
    None
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Whether LMDB's `error` tells that the file is not what it should be.
pub(super) fn is_damage(error: MdbError) -> bool {
    matches!(
        error,
        MdbError::Invalid
            | MdbError::VersionMismatch
            | MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Problem
            | MdbError::CursorFull
            | MdbError::PageFull
            | MdbError::Incompatible
    )
}

//! Comments, kept in a file with one line of JSON each. A real application would use a database.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comment {
    note_id: String,
    author: String,
    text: String,
    at: String,
}

/// All comments: in a file, or only in this process.
pub(crate) enum Comments {
    File(PathBuf),
    Here(Mutex<String>),
}

impl Comments {
    pub(crate) fn open(data: Option<PathBuf>) -> Self {
        match data {
            Some(folder) => Self::File(folder.join("comments.jsonl")),
            None => Self::Here(Mutex::default()),
        }
    }

    /// Returns the comments on a note, oldest first.
    pub(crate) fn of(&self, note_id: &str) -> Vec<Comment> {
        let lines = match self {
            Self::File(file) => fs::read_to_string(file).unwrap_or_default(),
            Self::Here(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let comments = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        comments
            .filter(|comment: &Comment| comment.note_id == note_id)
            .collect()
    }

    /// Adds a comment with the current time.
    pub(crate) fn add(&self, note_id: &str, author: &str, text: &str) -> std::io::Result<()> {
        let comment = Comment {
            note_id: note_id.to_owned(),
            author: author.to_owned(),
            text: text.to_owned(),
            at: minute(SystemTime::now()),
        };
        let line = serde_json::to_string(&comment)? + "\n";
        match self {
            Self::File(file) => {
                let mut file = OpenOptions::new().create(true).append(true).open(file)?;
                file.write_all(line.as_bytes())
            }
            Self::Here(lines) => {
                *lines.lock().unwrap_or_else(PoisonError::into_inner) += &line;
                Ok(())
            }
        }
    }
}

/// Formats a time, as in `2026-11-22 12:30 UTC`.
pub(crate) fn minute(moment: SystemTime) -> String {
    const DAY: u64 = 24 * 60;
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let minutes = since.as_secs() / 60;
    // Days are counted from 1 March of the year 0: then leap days end their years, and every 400
    // years are alike.
    let days = minutes / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (
        400 * era + year + u64::from(month >= 10),
        if month < 10 { month + 3 } else { month - 9 },
    );
    let (hour, minute) = (minutes % DAY / 60, minutes % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

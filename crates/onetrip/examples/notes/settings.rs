//! Settings from the environment. An invalid setting ends the program with a one-line error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

/// An embedded store as slow as a server in the same data centre, so that trips show.
const STORE: &str = "memory://?latency=500us";

/// Without `NOTES`, this project's own documents are shown.
const DOCUMENTS: [&str; 3] = ["", "docs", "examples"];

const PORTS: [u16; 5] = [8000, 8001, 8002, 8080, 0];

pub(crate) struct Settings {
    pub(crate) store: String,
    /// Markdown files by note id: their path within the folder.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// The folder for comments. Without it, comments last until the program ends.
    pub(crate) data: Option<PathBuf>,
    ports: Vec<u16>,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        let setting = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let ports = match setting("PORT") {
            None => PORTS.to_vec(),
            Some(port) => vec![
                port.parse()
                    .map_err(|_| format!("PORT={port} is no port."))?,
            ],
        };
        Ok(Self {
            store: setting("STORE").unwrap_or_else(|| STORE.to_owned()),
            files: markdown_files(setting("NOTES").as_deref())?,
            data: setting("DATA").map(data_folder).transpose()?,
            ports,
        })
    }

    /// Returns settings for a test: this project's documents, and a store of its own.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            store: STORE.to_owned(),
            files: markdown_files(None).expect("this project has documents"),
            data: None,
            ports: Vec::new(),
        }
    }

    /// Listens on the first free port.
    pub(crate) async fn listen(&self) -> Result<TcpListener, String> {
        for port in &self.ports {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", *port)).await {
                return Ok(listener);
            }
        }
        Err("no port of 127.0.0.1 can be listened on".to_owned())
    }
}

/// Returns the root of this project.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn markdown_files(folder: Option<&str>) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut files = BTreeMap::new();
    match folder {
        None => {
            for part in DOCUMENTS {
                collect(&project(), Path::new(part), false, &mut files)?;
            }
        }
        Some(folder) if Path::new(folder).is_dir() => {
            collect(Path::new(folder), Path::new(""), true, &mut files)?;
        }
        Some(folder) => {
            return Err(format!(
                "NOTES={folder} is no folder; name one that holds Markdown files."
            ));
        }
    }
    if files.is_empty() {
        return Err(format!(
            "NOTES={} holds no Markdown file (*.md); name a folder that does.",
            folder.unwrap_or_default()
        ));
    }
    Ok(files)
}

/// Adds the Markdown files in `part` of `root`. Skips hidden folders.
fn collect(
    root: &Path,
    part: &Path,
    deeply: bool,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), String> {
    let folder = root.join(part);
    let unreadable = |error| format!("{} cannot be read: {error}.", folder.display());
    for entry in folder.read_dir().map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let (path, within) = (folder.join(&name), part.join(&name));
        let Some(name) = within.to_str().map(str::to_owned) else {
            continue;
        };
        let is_hidden = within
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if path.is_dir() && deeply {
            collect(root, &within, deeply, files)?;
        } else if path.is_file() && name.ends_with(".md") {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn data_folder(folder: String) -> Result<PathBuf, String> {
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("DATA={folder} cannot keep comments: {error}."))?;
    Ok(PathBuf::from(folder))
}

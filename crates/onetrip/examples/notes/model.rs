//! The notes, and which parts of them are cached under which keys.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use onetrip::{Cache, Markup, fragment_key};
use pulldown_cmark::{Options, Parser, html};

use crate::comments::{Comment, Comments};
use crate::settings::Settings;

const PREFIX: &str = "notes";

/// All notes, the cache and the comments.
#[derive(Clone)]
pub(crate) struct Notes {
    pub(crate) cache: Cache,
    by_id: Arc<BTreeMap<String, Arc<Note>>>,
}

pub(crate) struct Note {
    pub(crate) id: String,
    pub(crate) title: String,
    content: String,
    cache: Cache,
    comments: Arc<Comments>,
}

impl Note {
    /// Returns the note as HTML. This is slow, and runs at most once a minute for each note.
    #[onetrip::cached(cache = self.cache, timeout = "60s", key = "note_markup:{self.id}")]
    pub(crate) fn note_markup(&self) -> Markup {
        let extensions = Options::ENABLE_TABLES | Options::ENABLE_HEADING_ATTRIBUTES;
        let mut markup = String::new();
        html::push_html(&mut markup, Parser::new_ext(&self.content, extensions));
        // The files belong to whoever runs this, so their HTML is trusted; comments are escaped.
        Markup::new(markup)
    }

    pub(crate) fn comments(&self) -> Vec<Comment> {
        self.comments.of(&self.id)
    }

    pub(crate) async fn add_comment(&self, author: &str, text: &str) -> std::io::Result<()> {
        self.comments.add(&self.id, author, text)?;
        // The fragment that shows the comments is out of date now.
        let busted = self.cache.delete(self.comments_key()).await;
        busted.map(drop).map_err(std::io::Error::other)
    }

    /// Returns the key of the fragment in `templates/comments.html`.
    fn comments_key(&self) -> String {
        fragment_key("note_comments", [&self.id])
    }

    /// Returns all keys that a page about this note reads.
    pub(crate) fn cache_keys(&self) -> [String; 2] {
        [self.note_markup_key(), self.comments_key()]
    }
}

impl Notes {
    /// Reads the notes at the start of the program. A real application would query a database for
    /// each request.
    pub(crate) fn open(settings: &Settings) -> Result<Self, String> {
        let store = &settings.store;
        let cache = Cache::builder(store)
            .prefix(PREFIX)
            .build()
            .map_err(|error| format!("STORE={store} cannot be used: {error}"))?;
        let comments = Arc::new(Comments::open(settings.data.clone()));
        let mut by_id = BTreeMap::new();
        for (id, path) in &settings.files {
            let content = fs::read(path)
                .map_err(|error| format!("{} cannot be read: {error}.", path.display()))?;
            let content = String::from_utf8_lossy(&content).into_owned();
            let heading = content.lines().find_map(|line| line.strip_prefix("# "));
            let heading = heading.map(str::trim).filter(|title| !title.is_empty());
            let note = Note {
                id: id.clone(),
                title: heading.unwrap_or(id).to_owned(),
                content,
                cache: cache.clone(),
                comments: Arc::clone(&comments),
            };
            by_id.insert(id.clone(), Arc::new(note));
        }
        Ok(Self {
            cache,
            by_id: Arc::new(by_id),
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Note>> {
        self.by_id.values()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Note>> {
        self.by_id.get(id)
    }
}

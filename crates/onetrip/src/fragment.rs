//! The keys of template fragments.

use std::fmt::Display;

/// Returns the key of a fragment: its name and the values that it varies on, joined by colons.
///
/// Within each of them `:` is written as `%3A` and `%` as `%25`, so that no two fragments share a
/// key. The first example is the key of `{% call cache(60, "note_comments", note.id) %}` in
/// minijinja and of `{% cache 60, "note_comments", note.id %}` in Jinja:
///
/// ```
/// use onetrip::fragment_key;
///
/// assert_eq!(fragment_key("note_comments", [5]), "note_comments:5");
/// assert_eq!(fragment_key("menu", ["de", "10:30"]), "menu:de:10%3A30");
/// assert_eq!(fragment_key::<&str>("footer", []), "footer");
/// ```
#[must_use]
pub fn fragment_key<T: Display>(name: &str, vary_on: impl IntoIterator<Item = T>) -> String {
    let mut key = String::new();
    append_escaped(name, &mut key);
    for part in vary_on {
        key.push(':');
        append_escaped(&part.to_string(), &mut key);
    }
    key
}

fn append_escaped(part: &str, key: &mut String) {
    for character in part.chars() {
        match character {
            '%' => key.push_str("%25"),
            ':' => key.push_str("%3A"),
            other => key.push(other),
        }
    }
}

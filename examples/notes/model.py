"""The notes: what of them is cached, and under which keys."""

from __future__ import annotations

from dataclasses import dataclass

from markdown import markdown
from markupsafe import Markup

import comments
from caching import cache
from onetrip.jinja import fragment_key
from settings import FILES


@dataclass(frozen=True)
class Note:
    id: str
    title: str
    content: str

    @cache.cached(timeout=60, key_fn=lambda args, _kwargs: args[0].id)
    def note_markup(self) -> Markup:
        """The note as HTML. This is the slow part, done at most once a minute for each note."""
        extensions = ["fenced_code", "sane_lists", "tables", "toc"]
        # The files are the reader's own, so their HTML is trusted; comments are escaped.
        return Markup(markdown(self.content, extensions=extensions))  # noqa: S704

    def comments(self) -> list[comments.Comment]:
        return comments.of(self.id)

    def add_comment(self, author: str, text: str) -> None:
        comments.add(self.id, author, text)
        # The fragment that shows them is out of date from here on.
        cache.delete(self.comments_key())

    def comments_key(self) -> str:
        """The key of the fragment in `templates/comments.html`."""
        return fragment_key("note_comments", self.id)

    def cache_keys(self) -> list[str]:
        """Everything that a page about this note reads from the cache."""
        return [self.note_markup.key(), self.comments_key()]


def _read() -> list[Note]:
    notes = []
    for name, path in FILES.items():
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SystemExit(f"{path} cannot be read: {error.strerror}.") from error
        heading = next((line for line in content.splitlines() if line.startswith("# ")), "")
        notes.append(Note(name, heading.removeprefix("# ").strip() or name, content))
    return notes


# Read when the program starts; others ask a database for each request.
NOTES = _read()
BY_ID = {note.id: note for note in NOTES}

"""Comments, kept in a file, one line of JSON each, as others keep them in a database."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from settings import DATA

FILE = DATA / "comments.jsonl"


@dataclass(frozen=True)
class Comment:
    note_id: str
    author: str
    text: str
    at: str


def of(note_id: str) -> list[Comment]:
    """The comments on a note, oldest first."""
    if not FILE.exists():
        return []
    lines = FILE.read_text(encoding="utf-8").splitlines()
    comments = (Comment(**json.loads(line)) for line in lines)
    return [comment for comment in comments if comment.note_id == note_id]


def add(note_id: str, author: str, text: str) -> None:
    """Keep a comment, made now."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    with FILE.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(Comment(note_id, author, text, now))) + "\n")

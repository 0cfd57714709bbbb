"""What the environment sets. A setting that cannot work ends the program with one clear line."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# As slow as a server in the same data centre, so that trips show; embedded all the same.
DEFAULT_STORE = "memory://?latency=500us"

# This project's own documents, when no folder is given.
DOCUMENTS = ["*.md", "docs/*.md", "examples/*.md"]
EVERYTHING = ["**/*.md"]


def _setting(name: str) -> str | None:
    # `make demo STORE=` means the same as `make demo`.
    return os.environ.get(name) or None


def _folder(name: str) -> Path | None:
    text = _setting(name)
    if text is None:
        return None
    return Path(text).expanduser().resolve()


def _markdown_files() -> dict[str, Path]:
    """Markdown files by the name of their note: their path within the folder."""
    folder = _folder("NOTES")
    patterns = EVERYTHING
    if folder is None:
        folder, patterns = PROJECT, DOCUMENTS
    elif not folder.is_dir():
        raise SystemExit(f"NOTES={folder} is no folder; name one that holds Markdown files.")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    names = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    # Hidden folders belong to tools.
    files = {name: path for name, path in names.items() if "/." not in f"/{name}"}
    if not files:
        raise SystemExit(f"NOTES={folder} holds no Markdown file (*.md); name a folder that does.")
    return files


def _data_folder() -> Path:
    """Where comments are kept. Without a folder of their own they go when the program ends."""
    folder = _folder("DATA") or Path(_FORGOTTEN.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"DATA={folder} cannot keep comments: {error.strerror}.") from error
    return folder


_FORGOTTEN = tempfile.TemporaryDirectory(prefix="onetrip-notes-")

STORE = _setting("STORE") or DEFAULT_STORE
FILES = _markdown_files()
DATA = _data_folder()

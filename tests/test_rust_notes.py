"""The notes application in Flask and in axum: what one renders the other reads."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[1]

# A colon and a percent sign are escaped in the key of a fragment.
NOTES = {
    "first.md": "# Über alles\n\nThe *first* note, of <b>two</b> & more.\n",
    "sub/a second.md": "No heading.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "100% at 10:30.md": "# Half past ten\n\n`code`\n",
}

FLASK = """
from app import app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"The pages are at http://127.0.0.1:{server.port}/", flush=True)
server.serve_forever()
"""


class Site:
    """One of the two applications."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, path: str = "", form: dict[str, str] | None = None) -> str:
        """A page; that which a form leads to, if one is given."""
        data = urlencode(form).encode() if form else None
        with urlopen(self._url + quote(path, safe="/?="), data) as response:  # noqa: S310 - our own server
            text: str = response.read().decode()
        return text


@contextmanager
def serving(command: Sequence[str | Path], **settings: str) -> Iterator[Site]:
    with subprocess.Popen(
        command,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        try:
            assert run.stdout is not None
            urls = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in run.stdout)
            yield Site(next(found[0] for found in urls if found))
        finally:
            run.terminate()


@pytest.fixture(scope="module")
def program() -> Path:
    """The example as it is built."""
    command = ["cargo", "build", "--locked", "--quiet", "--message-format=json"]
    built = subprocess.run(
        [*command, "--package", "onetrip", "--example", "notes"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in built.stdout.splitlines()]
    return next(
        Path(message["executable"])
        for message in told
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "notes"
    )


@pytest.fixture(scope="module")
def sites(
    program: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Site]]:
    """Both applications, over the same notes, comments and store, each with its connections."""
    notes, data = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("data")
    (notes / "sub").mkdir()
    for name, content in NOTES.items():
        (notes / name).write_text(content, encoding="utf-8")
    modules = [str(ROOT / "examples/notes"), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"STORE": redis_server.url, "NOTES": str(notes), "DATA": str(data), "PORT": "0"}
    python = {"PYTHONPATH": os.pathsep.join(modules), **settings}
    with (
        serving([sys.executable, "-c", FLASK], **python) as flask,
        serving([program], **settings) as axum,
    ):
        for site in (flask, axum):
            site.read()
        yield {"flask": flask, "axum": axum}


def entries(url: str) -> dict[bytes, bytes | None]:
    """Everything that is stored, as it is, but what workers tell each other of pages."""
    with redis.Redis.from_url(url) as client:
        names = sorted(name for name in client.scan_iter() if b"@onetrip:" not in name)
        return dict(zip(names, client.mget(names), strict=True))


def part(page: str, begin: str, end: str) -> str:
    return page.partition(begin)[2].partition(end)[0]


def trips(page: str) -> str:
    return part(page, "<footer>", "</strong>").rpartition(">")[2]


@pytest.fixture(params=[("flask", "axum"), ("axum", "flask")], ids=" then ".join)
def pair(
    request: pytest.FixtureRequest,
    sites: dict[str, Site],
    redis_server: RedisServer,
    redis_url: str,
) -> tuple[Site, Site]:
    """Who renders first, and who reads it: both connected, with nothing stored."""
    assert redis_url == redis_server.url
    for site in sites.values():
        site.read()
    redis_server.flush()
    first, second = request.param
    return sites[first], sites[second]


def test_pages_rendered_by_one_program_are_one_trip_in_the_other(
    pair: tuple[Site, Site], redis_server: RedisServer, redis_url: str
) -> None:
    writer, reader = pair
    # One in. What was missing is posted.
    index = writer.read()
    assert trips(index) == "1 trip"
    written = entries(redis_url)
    assert set(written) == {
        b"notes:note_markup:first.md",
        b"notes:note_comments:first.md",
        b"notes:note_markup:sub/a second.md",
        b"notes:note_comments:sub/a second.md",
        b"notes:note_markup:100% at 10:30.md",
        b"notes:note_comments:100%25 at 10%3A30.md",
    }
    redis_server.reset_stats()
    index = reader.read()
    # What it tells other workers may come along.
    assert redis_server.commandstats()["mget"] == 1
    assert redis_server.reads() == 1
    assert trips(index) == "1 trip"
    assert entries(redis_url) == written


@pytest.mark.parametrize("note", NOTES)
def test_both_programs_render_the_same_note(
    pair: tuple[Site, Site], redis_server: RedisServer, redis_url: str, note: str
) -> None:
    writer, reader = pair
    assert entries(redis_url) == {}
    made = writer.read(f"notes/{note}")
    redis_server.reset_stats()
    read = reader.read(f"notes/{note}")
    assert redis_server.reads() == 1
    for begin, end in [
        ('<article class="text">', "</article>"),
        ('<ul class="comments">', "</ul>"),
    ]:
        text = part(made, begin, end)
        assert text.strip()
        assert part(read, begin, end) == text
    # Markup is not escaped again, whoever made it.
    assert "&lt;" not in part(read, '<article class="text">', "</article>")


def test_axum_program_learns_its_pages(
    program: Path, redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    notes, data = tmp_path / "notes", tmp_path / "data"
    for folder in (notes, data):
        folder.mkdir()
    for name in "abcd":
        (notes / f"{name}.md").write_text(f"# {name}\n", encoding="utf-8")
    settings = {"STORE": redis_url, "NOTES": str(notes), "DATA": str(data), "PORT": "0"}
    with serving([program], **settings) as site:
        # All pieces are there, but no page of a note was ever made.
        site.read()
        assert trips(site.read("notes/a.md?preload=learned")) == "2 trips"
        site.read("notes/b.md?preload=learned")
        for name in "abcd":
            redis_server.reset_stats()
            page = site.read(f"notes/{name}.md?preload=learned")
            assert redis_server.commandstats()["mget"] == 1
            assert redis_server.reads() == 1
            assert trips(page) == "1 trip"


def test_comment_made_in_one_program_shows_in_the_other(
    pair: tuple[Site, Site], redis_url: str
) -> None:
    writer, reader = pair
    for site in pair:
        site.read("notes/first.md")
    text = f"Said to <{os.urandom(4).hex()}>."
    page = writer.read("notes/first.md", {"author": "Ada", "text": text})
    assert html.escape(text) in page
    assert html.escape(text) in reader.read("notes/first.md")
    assert html.escape(text) in reader.read()
    assert len(entries(redis_url)) == 2 * len(NOTES)

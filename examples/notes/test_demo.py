"""`make demo`, as it is run: its table, its pages and what it says of bad settings."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(__file__).with_name("demo.py")
NUMBER = r"\s+([\d.,]+)"
ROW = re.compile(rf"^(cold|warm), (without|with) preload{NUMBER * 5}$", re.MULTILINE)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of three notes, and what must not become one."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "first.md").write_text("# Über alles\n\nThe *first* note.\n", encoding="utf-8")
    (tmp_path / "sub" / "a second.md").write_text("No heading, see [first](../first.md).\n")
    (tmp_path / "latin.md").write_bytes(b"# Caf\xe9\n")
    (tmp_path / ".hidden" / "third.md").write_text("# Hidden\n")
    (tmp_path / "other.txt").write_text("# Other\n")
    return tmp_path


def environment(**settings: str) -> dict[str, str]:
    unset = {"STORE", "NOTES", "DATA", "ONCE"}
    return {name: value for name, value in os.environ.items() if name not in unset} | settings


def demo(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO],
        env=environment(ONCE="1", **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def table(**settings: str) -> tuple[str, dict[tuple[str, str], tuple[int, ...]]]:
    """The line above the table, and its rows: trips, posts, bytes read and bytes written."""
    run = demo(**settings)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""

    def number(text: str) -> int:
        return int(text.replace(",", ""))

    rows = {
        (state, preload): tuple(map(number, (trips, posts, read, written)))
        for state, preload, trips, posts, _, read, written in ROW.findall(run.stdout)
    }
    return run.stdout.splitlines()[0], rows


def check(rows: dict[tuple[str, str], tuple[int, ...]], notes: int, *, posts: bool = True) -> None:
    costs = {row: cost[:2] for row, cost in rows.items()}
    pieces = 2 * notes
    assert costs == {
        ("cold", "without"): (2 * pieces, 0),
        # Memory of this process takes each piece at once: that is a trip of no time.
        ("cold", "with"): (1, pieces) if posts else (1 + pieces, 0),
        ("warm", "without"): (pieces, 0),
        ("warm", "with"): (1, 0),
    }
    written = rows["cold", "with"][3]
    assert written > 0
    # What a cold page writes is what a warm one reads, whichever way.
    for preload in ("without", "with"):
        assert rows["cold", preload][2:] == (0, written)
        assert rows["warm", preload][2:] == (written, 0)


def test_table_of_this_projects_documents() -> None:
    told, rows = table()
    found = re.search(r"The index of (\d+) notes, (\d+) cached pieces", told)
    assert found is not None
    count = int(found[1])
    assert count >= 4
    assert int(found[2]) == 2 * count
    assert "latency of 500µs simulated" in told
    check(rows, count)


def test_the_table_of_a_folder(notes: Path) -> None:
    told, rows = table(NOTES=str(notes), STORE="memory://")
    assert "3 notes, 6 cached pieces" in told
    assert "simulated" not in told
    check(rows, 3, posts=False)


def test_the_table_on_redis(notes: Path, redis_server: RedisServer) -> None:
    redis_server.flush()
    redis_server.admin.set("another's", "entry")
    told, rows = table(NOTES=str(notes), STORE=redis_server.url)
    assert f"over {redis_server.url}" in told
    check(rows, 3)
    own = ("notes:", "notes@onetrip:")
    kept = {name for name in redis_server.admin.scan_iter() if not name.startswith(own)}
    assert kept == {"another's"}


@contextmanager
def serving(**settings: str) -> Iterator[str]:
    """The demo with its pages served; gives their address, and checks that it ends in order."""
    with subprocess.Popen(
        [sys.executable, DEMO],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        try:
            assert run.stdout is not None
            urls = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in run.stdout)
            yield next(found[0] for found in urls if found)
        finally:
            run.terminate()
        assert run.wait(10) == 0


def read(url: str) -> str:
    with urlopen(url) as response:  # noqa: S310 - an address that the demo printed
        text: str = response.read().decode()
    return text


def test_the_pages_are_served(notes: Path, redis_server: RedisServer) -> None:
    redis_server.flush()
    with serving(NOTES=str(notes), STORE=redis_server.url) as url:
        # The table left the index warm, and the server counts what a visit asks of it.
        redis_server.reset_stats()
        index = read(url)
        assert redis_server.commandstats() == {"mget": 1}
        assert redis_server.reads() == 1
        assert "<strong>1 trip</strong>" in index
        assert "Über alles" in index
        assert "/notes/sub/a%20second.md" in index
        assert "Caf\N{REPLACEMENT CHARACTER}" in index
        assert 'href="../first.md"' in read(f"{url}notes/sub/a%20second.md")


def test_the_pages_outlive_the_store(notes: Path) -> None:
    with RedisServer() as server, serving(NOTES=str(notes), STORE=server.url) as url:
        server.stop()
        index = read(url)
        assert "Über alles" in index
        assert "operations failed" in index


def test_another_port_is_used_if_the_usual_one_is_taken(notes: Path) -> None:
    try:
        occupied = socket.create_server(("127.0.0.1", 8000))
    except OSError:
        occupied = socket.socket()  # somebody else's is as good
    with occupied, serving(NOTES=str(notes), STORE="memory://") as url:
        assert not url.endswith(":8000/")
        assert "Über alles" in read(url)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NOTES": "/no/such/folder"}, "NOTES=/no/such/folder is no folder"),
        ({"NOTES": str(DEMO)}, "is no folder; name one that holds Markdown files"),
        ({"NOTES": str(DEMO.parent / "static")}, "holds no Markdown file"),
        ({"DATA": str(DEMO)}, "cannot keep comments: File exists"),
        ({"STORE": "nosuch://"}, "no store is named nosuch://; onetrip has memory://"),
        ({"STORE": "memory://?latncy=1ms"}, 'has no option "latncy"'),
        ({"STORE": "redis://127.0.0.1:1"}, "redis://127.0.0.1:1 cannot be reached"),
    ],
)
def test_bad_settings_end_with_one_clear_line(settings: dict[str, str], said: str) -> None:
    run = demo(**settings)
    assert run.returncode == 1
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""

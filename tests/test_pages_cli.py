"""`onetrip pages` shows what workers shared through the store."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from onetrip import Cache
from onetrip.__main__ import main
from tests.conftest import PREFIX

if TYPE_CHECKING:
    from tests.conftest import OpenCache, Raw


def visit(cache: Cache, number: int, *extra: str) -> None:
    with cache.page("note_detail", note_id=number):
        for key in ("menu", f"note:{number}", *extra):
            cache._piece_get(key)


class Run(Protocol):
    """The fixture `run`."""

    def __call__(self, *arguments: str) -> list[str]:
        """Run the command on each store in turn; the lines that it prints."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], store_url: str) -> Run:
    def run(*arguments: str) -> list[str]:
        assert main(["pages", store_url, "--prefix", PREFIX, *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


# As the third visit tells it, which knows of two: what came ahead of the second was "menu".
HEAD = "note_detail: 2.0 trips before, 1.5 now; recall 50%, precision 100%, waste 0%"
NOTE = [HEAD, "  100%  menu", "  100%  note:{note_id}"]
UNKNOWN = "list: nothing is shared of it"


def test_shows_what_all_workers_learned(cache: Cache, run: Run) -> None:
    for number in range(3):
        visit(cache, number)
    assert run("note_detail") == NOTE


def test_shows_each_route_once(cache: Cache, run: Run) -> None:
    for number in range(3):
        visit(cache, number)
    assert run("list", "note_detail", "list") == [UNKNOWN, *NOTE]


def test_shows_all_routes_by_default(open_cache: OpenCache, run: Run) -> None:
    assert run() == ["nothing is shared under this prefix"]
    # Each of two workers tells of what it saw, and neither loses what the other told.
    for route in ("tags", "home"):
        worker = open_cache()
        for number in range(3):
            visit(worker, number)
            with worker.page(route):
                worker._piece_get("menu")
    heads = [line.partition(":")[0] for line in run() if not line.startswith(" ")]
    assert heads == ["home", "note_detail", "tags"]
    assert {route.name for route in open_cache().shared_pages()} == set(heads)


def test_shows_trips_before_and_waste(open_cache: OpenCache, run: Run) -> None:
    open_cache().set_many({"menu": "m", **{f"note:{number}": "n" for number in range(9)}})
    for first in (0, 3, 6):
        worker = open_cache()
        for number in range(first, first + 3):
            visit(worker, number)
    [head] = [line for line in run() if line.startswith("note_detail")]
    # Each worker tells of its first visits, which the first record of another made the faster.
    assert head.startswith("note_detail: 2.0 trips before, ")
    assert head.endswith("waste 0%")


def test_shows_shares_of_visits(open_cache: OpenCache, run: Run) -> None:
    # A worker takes the record along at its first visit, and leaves its own at its third.
    for first, extra in ((1, ["often"]), (4, [])):
        worker = open_cache()
        for number in range(first, first + 3):
            visit(worker, number, *extra)
    [share] = [line for line in run("note_detail") if line.endswith("  often")]
    assert 0 < int(share.split("%")[0]) < 100


def test_does_not_change_the_store(cache: Cache, run: Run, raw: Raw) -> None:
    for number in range(3):
        visit(cache, number)
    names = [f"{PREFIX}@onetrip:page:note_detail", f"{PREFIX}@onetrip:pages"]
    before = [raw[name] for name in names]
    for _ in range(2):
        assert run("note_detail", "list") == [*NOTE, UNKNOWN]
    assert [raw[name] for name in names] == before
    with pytest.raises(KeyError):
        raw[f"{PREFIX}@onetrip:page:list"]


def test_missing_or_wrong_secret_is_an_error(
    open_cache: OpenCache,
    run: Run,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = open_cache(secret="of the site", serializer="pickle")
    for number in range(3):
        visit(cache, number)
    for wrong in ("", "of another"):
        monkeypatch.setenv("ONETRIP_SECRET", wrong)
        for names in ([], ["note_detail"]):
            assert main(["pages", store_url, "--prefix", PREFIX, *names]) == 1
            out, error = capsys.readouterr()
            assert out == ""
            assert "check that ONETRIP_SECRET is the cache's secret" in error
    monkeypatch.setenv("ONETRIP_SECRET", "of the site")
    assert run("note_detail") == NOTE


@pytest.mark.parametrize(
    ("url", "told"),
    [("redis://127.0.0.1:1/0", "onetrip: "), ("nonsense://", "onetrip: ")],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], url: str, told: str) -> None:
    assert main(["pages", url, "note_detail"]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(told)
    assert len(error.splitlines()) == 1


def test_runs_as_a_program(disk_url: str) -> None:
    cache = Cache(disk_url)
    for number in range(3):
        visit(cache, number)
    command = [sys.executable, "-m", "onetrip", "pages", disk_url, "note_detail"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env={**os.environ})
    assert done.stdout.splitlines() == NOTE
    assert done.stderr == ""


def test_control_characters_are_escaped(cache: Cache, run: Run) -> None:
    for number in range(3):
        with cache.page("a\x1b[31m\nb", **{"c\x1b\n": number}):
            cache._piece_get(f"d\x1b:{number}")
    told = run()
    assert [line for line in told if not line.isprintable()] == []
    assert told[0].startswith("a\\x1b[31m\\nb: ")
    assert len(told) == 2


def test_shows_routes_of_raw_caches(open_cache: OpenCache, run: Run) -> None:
    cache = open_cache(serializer="raw")
    for number in range(3):
        visit(cache, number)
    assert run("note_detail")[1:] == NOTE[1:]

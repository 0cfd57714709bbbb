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
            cache.get(key)


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


NOTE = ["note_detail", "  100%  menu", "  100%  note:{note_id}"]


def test_shows_what_workers_learned(cache: Cache, run: Run) -> None:
    for number in range(3):
        visit(cache, number)
    assert run("note_detail") == NOTE


def test_shows_each_route_once(cache: Cache, run: Run) -> None:
    for number in range(3):
        visit(cache, number)
    unknown = ["list", "        nothing is shared of it"]
    assert run("list", "note_detail", "list") == [*unknown, *NOTE]


def test_shows_shares(open_cache: OpenCache, run: Run) -> None:
    # A worker takes the record along at its first visit, and leaves its own at its second.
    for number, extra in ((1, ["often"]), (3, [])):
        worker = open_cache()
        visit(worker, number, *extra)
        visit(worker, number + 1, *extra)
    [share] = [line for line in run("note_detail") if line.endswith("  often")]
    assert 0 < int(share.split("%")[0]) < 100


def test_leaves_the_store_as_it_is(cache: Cache, run: Run, raw: Raw) -> None:
    for number in range(3):
        visit(cache, number)
    name = f"{PREFIX}:onetrip:page:note_detail"
    before = raw[name]
    for _ in range(2):
        assert run("note_detail", "list") == [*NOTE, "list", "        nothing is shared of it"]
    assert raw[name] == before
    with pytest.raises(KeyError):
        raw[f"{PREFIX}:onetrip:page:list"]


def test_wants_the_secret(open_cache: OpenCache, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(secret="of the site", serializer="pickle")
    for number in range(3):
        visit(cache, number)
    refused = "        its record cannot be read; is ONETRIP_SECRET that of the cache?"
    monkeypatch.setenv("ONETRIP_SECRET", "")
    assert run("note_detail") == ["note_detail", refused]
    monkeypatch.setenv("ONETRIP_SECRET", "of another")
    assert run("note_detail") == ["note_detail", refused]
    monkeypatch.setenv("ONETRIP_SECRET", "of the site")
    assert run("note_detail") == NOTE


@pytest.mark.parametrize(
    ("url", "told"),
    [("redis://127.0.0.1:1/0", "onetrip: "), ("nonsense://", "onetrip: ")],
)
def test_says_what_is_wrong(capsys: pytest.CaptureFixture[str], url: str, told: str) -> None:
    assert main(["pages", url, "note_detail"]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(told)
    assert len(error.splitlines()) == 1


def test_is_a_program(disk_url: str) -> None:
    cache = Cache(disk_url)
    for number in range(3):
        visit(cache, number)
    command = [sys.executable, "-m", "onetrip", "pages", disk_url, "note_detail"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env={**os.environ})
    assert done.stdout.splitlines() == NOTE
    assert done.stderr == ""

"""An ORM whose queries are cached by table: whatever is written to one is seen by everybody."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.rows.sites import DELAYS, Site, on, on_each_process

again = pytest.mark.parametrize("again", [None, 1], ids=["once", "read-again"])


@on_each_process("cachalot")
@again
@pytest.mark.parametrize("known", ["query", "table", "nothing"])
def test_row_inserted_during_a_page_is_seen(
    site: Site, worker: int, again: int | None, known: str
) -> None:
    """The page found its query in the cache, or only when the table changed, or neither."""
    query: dict[str, Any] = {"again": again} if again else {}
    site.get("forget_notes/")
    site.get("add_note/", text="first")
    site.warm("notes/", **query)
    expected = ["first"]
    for delay in DELAYS:
        if known == "table":
            site.get("add_note/", worker, text="before")
            expected.append("before")
        elif known == "nothing":
            site.do("clear")
        page = site.begin("notes/", **query)
        site.get("add_note/", worker, text="meanwhile")
        time.sleep(delay)
        page.go()
        page.text()
        expected.append("meanwhile")
        for each in range(site.workers):
            assert json.loads(site.get("notes/", each, **query)) == expected, delay


@on("cachalot")
def test_row_inserted_by_a_thread_of_the_page_is_seen(site: Site) -> None:
    site.get("forget_notes/")
    site.warm("add_in_thread/")
    assert json.loads(site.get("add_in_thread/", text="added")) == [[], ["added"]]
    for worker in range(site.workers):
        assert json.loads(site.get("notes/", worker)) == ["added"]

"""The panel tells trips, keys and hits, who asked, and what could have travelled together."""

from __future__ import annotations

import asyncio
import html
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.test import AsyncClient, Client, override_settings

from onetrip.django import Cache, recorder
from onetrip.django.panel import OneTripPanel, together
from onetrip.django.recorder import Call
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()

SETTINGS: dict[str, Any] = {
    "DEBUG": True,
    "ROOT_URLCONF": "tests.django.panel_urls",
    "MIDDLEWARE": [
        "debug_toolbar.middleware.DebugToolbarMiddleware",
        "onetrip.django.PageMiddleware",
    ],
    "DEBUG_TOOLBAR_PANELS": ["onetrip.django.panel.OneTripPanel"],
}


@pytest.fixture(autouse=True)
def site(location: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in recorder.READS + recorder.WRITES:
        # To be as they were behind each test; the toolbar calls `ready` when Django is set up.
        for method in (name, f"a{name}"):
            monkeypatch.setattr(Cache, method, getattr(Cache, method))
    OneTripPanel.ready()
    OneTripPanel.ready()
    # What pages learn has a table and tests of its own.
    alone = on(location, OPTIONS={"pages": "off"})
    with configured(default=alone), override_settings(**SETTINGS):
        yield


def shown(page: Any) -> str:
    """What the panel of a page shows, as the browser asks for it."""
    request_id = re.search(r'data-request-id="([^"]+)"', page.content.decode())
    assert request_id is not None
    wanted = {"request_id": request_id[1], "panel_id": "OneTripPanel"}
    told = Client().get("/__debug__/render_panel/", wanted).json()
    content: str = told["content"]
    return content


def text(content: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def rows(content: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    _, _, behind = content.partition(f"<h4>{heading}</h4>")
    body = re.search(r"<tbody>(.*?)</tbody>", behind, re.DOTALL)
    assert body is not None, content
    found = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)
    cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in found]
    return [[text(cell) for cell in row] for row in cells]


def test_panel_shows_trips_keys_hits_and_callers(location: str) -> None:
    caches["default"].set("user:5", "Ada")
    content = shown(Client().get("/notes/"))
    [summary] = rows(content, "Summary")
    trips, _, keys, hits, held, posted = summary
    # title; user:5 with title; title written; five notes and the footer. Their markup is posted
    # where there is a server, and taken at once where there is none.
    is_server = location.startswith(("redis", "memcached"))
    assert (trips, posted) == (("9", "6") if is_server else ("15", "0"))
    assert (keys, hits, held) == ("9", "1", "0")
    assert len(rows(content, "Trips")) == 15
    assert ("posted" in rows(content, "Trips")[4][1]) is is_server
    assert rows(content, "Trips")[0][1] == "get :1:title"
    asked = rows(content, "Who asked")
    assert asked[0][:5] == ["get", "title", "0 of 1", "trip", "default"]
    assert re.fullmatch(r"tests/django/panel_urls.py:\d+ in notes", asked[0][5])
    assert asked[1][:4] == ["get_many", "title user:5", "1 of 2", "trip"]
    assert asked[2][:4] == ["set", "title", "", "trip"]
    assert asked[3] == ["get", "fragment_key('note', 0)", "0 of 1", "trip", "default", PLACE]
    written = ["set", "fragment_key('note', 0)", "", "posted" if is_server else "trip"]
    assert asked[4][:4] == written


PLACE = "notes.html:3"


def test_panel_suggests_a_preload() -> None:
    page = shown(Client().get("/notes/"))
    assert "8 reads of the alias “default” made a trip each." in text(page)
    code = re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert code is not None
    advice = html.unescape(code[1])
    assert advice == (
        "with preload(\n"
        "    'title',\n"
        "    'user:5',\n"
        + "".join(f"    fragment_key('note', {number}),\n" for number in range(5))
        + "    fragment_key('footer'),\n"
        "):"
    )
    # And it is right: a page that does so makes one trip.
    response: Any = Client().get("/preloaded/")
    assert re.search(r'OneTripPanel_trips;dur=[\d.e-]+;desc="1 trip"', response["Server-Timing"])
    page = shown(response)
    [summary] = rows(page, "Summary")
    assert summary[0] == "1"
    assert "travelled together" not in page


def test_aliases_that_share_a_store(location: str) -> None:
    with configured(default=on(location), other=on(location, KEY_PREFIX="other")):
        trips, *_, posted = rows(shown(Client().get("/notes/")), "Summary")[0]
        assert int(trips) + int(posted) == 15


def test_asynchronous_page() -> None:
    async def get() -> Any:
        return await AsyncClient().get("/anotes/")

    page = asyncio.run(get())
    content = shown(page)
    asked = rows(content, "Who asked")
    assert [row[:4] for row in asked] == [
        ["get", "title", "0 of 1", "trip"],
        ["get_or_set", "user:5", "0 of 1", "2 trips"],
        ["has_key", "user:5", "1 of 1", "trip"],
    ]
    assert all(re.search(r"panel_urls.py:\d+ in anotes", row[5]) for row in asked)


def test_page_without_cache_calls() -> None:
    content = shown(Client().get("/idle/"))
    assert "asked no cache of onetrip" in content
    assert rows(content, "Summary")[0][0] == "0"


def test_cached_functions_are_counted() -> None:
    content = shown(Client().get("/function/"))
    trips, _, keys, hits, *_ = rows(content, "Summary")[0]
    # Stored by a post, or where there is no server, by a trip.
    assert trips in {"1", "2"}
    assert (keys, hits) == ("2", "1")
    made = [row[1].removesuffix(" posted") for row in rows(content, "Trips")]
    assert made == ["get five", "set five"]


def test_keys_are_escaped() -> None:
    caches["default"].get("x")
    content = render([Call("get", "default", ["<script>"], "<b>:1", None, trips=1)])
    assert "<script>" not in content
    assert "&lt;script&gt;" in content


def render(calls: list[Call]) -> str:
    class Panel(OneTripPanel):
        def __init__(self) -> None:
            self._calls, self._watches = calls, []
            self.told: dict[str, Any] = {}

        def record_stats(self, stats: dict[str, Any]) -> None:
            self.told = stats

        def get_stats(self) -> dict[str, Any]:
            return self.told

    panel = Panel()
    panel.generate_stats(None, None)
    return panel.content


def test_long_lists_are_cut() -> None:
    keys = [f"key-{number}" for number in range(50)]
    content = render([Call("get_many", "default", keys, "here:1", None)] * 600)
    assert len(rows(content, "Who asked")) == 500
    assert "and 30 more" in content
    assert "and 100 more" in content


def test_calls_without_panel_are_not_recorded() -> None:
    with override_settings(MIDDLEWARE=SETTINGS["MIDDLEWARE"][1:]):
        page: Any = Client().get("/notes/")
    assert page.status_code == 200
    assert recorder.calls.get() is None
    assert caches["default"].get("title") == "<Notes>"


def test_keys_written_before_they_are_read_are_not_suggested() -> None:
    calls = [
        Call("set", "default", ["a"], "", None),
        Call("get", "default", ["a"], "", None, trips=1),
        Call("get", "default", ["b"], "", None, trips=1),
        Call("get", "default", ["c"], "", None, trips=0),
    ]
    assert list(together(calls)) == []
    calls.append(Call("get", "other", ["d"], "", None, trips=1))
    assert list(together(calls)) == []
    calls.append(Call("get_many", "other", ["e", "d"], "", None, trips=1))
    [group] = together(calls)
    assert group["alias"] == "other"
    assert group["code"] == "with preload(\n    'd',\n    'e',\n    using='other',\n):"


class TestRoutes:
    """The table of what pages learned."""

    @pytest.fixture(autouse=True)
    def learning(self, location: str) -> Iterator[None]:
        # Of a server, the cache would be the last test's.
        default = on(location, OPTIONS={"prefix": f"panel-{next(_numbers)}"})
        with configured(default=default, idle=on(f"memory://panel-{next(_numbers)}")):
            values = {"title": "Notes", "<footer>": "-", **{f"note:{n}": "text" for n in (5, 6, 7)}}
            caches["default"].set_many(values)
            yield

    def test_shows_trips_before_and_now(self) -> None:
        Client().get("/note/5/")
        Client().get("/note/6/")
        content = shown(Client().get("/note/7/"))
        [row] = rows(content, "What pages learned")
        # Three trips, and then one and one.
        assert row[:4] == ["note", "3", "3.0", "1.7"]
        assert row[4] == "67%"
        assert "<strong>note</strong>" in content

    def test_shows_waste(self) -> None:
        for _ in range(2):
            Client().get("/note/5/")
        [used] = rows(shown(Client().get("/note/5/")), "What pages learned")
        [unused] = rows(shown(Client().get("/note/5/?short=1")), "What pages learned")
        assert (used[5], used[6]) == ("100%", "0%")
        assert int(unused[5].rstrip("%")) < 100
        assert int(unused[6].rstrip("%")) > 0

    def test_shows_key_templates(self) -> None:
        for number in (5, 6, 7):
            Client().get(f"/note/{number}/")
        content = shown(Client().get("/idle/"))
        [row] = rows(content, "What pages learned")
        assert set(row[7].split(" :")) == {
            ":1:<footer> 100%",
            "1:note:{note_id} 100%",
            "1:title 100%",
        }
        assert row[8] == "default"
        assert "<footer>" not in content
        assert "<strong>note</strong>" not in content

    def test_route_without_reads_is_hidden(self) -> None:
        assert "What pages learned" not in shown(Client().get("/idle/"))

"""What is read and written while a response is sent."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.rows.sites import DELAYS, KINDS, Site, on_each_process

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = 10
TICKS = 7


@on_each_process("django", "django-asgi", "flask", "flask-memory", "fastapi")
def test_stream_sees_every_event_and_listener(site: Site, worker: int) -> None:
    path = site.page("events")
    site.do("set", "news", "none yet")
    site.warm(path)
    told, seen = [], []
    with site.stream(path) as stream:
        for number in range(EVENTS):
            stream.wait()
            site.do("set", "news", number, worker=worker)
            time.sleep(DELAYS[number % len(DELAYS)])
            stream.go()
            told.append(stream.line())
            seen.append(site.do("get", "presence", worker=worker))
    assert told == [f"data: {number}" for number in range(EVENTS)]
    assert seen == list(range(EVENTS))


CLOCKS = [
    *[("django", "clock/"), ("django-asgi", "a/clock/"), ("fastapi", "clock/")],
    *[("flask", "clock/"), ("flask", "clock_cached/"), ("fastapi", "clock_cached/")],
    *[("flask-memory", "clock/"), ("flask-memory", "clock_cached/")],
]


@pytest.fixture(scope="module", params=KINDS)
def clocks(
    request: pytest.FixtureRequest, start_site: Callable[[str], Site]
) -> dict[tuple[str, str], list[str]]:
    """What all the clocks tell, which run at the same time."""

    def read(name: str, path: str) -> list[str]:
        site = start_site(f"{name}-{request.param}")
        with site.stream(path, ticks=TICKS) as stream:
            return [stream.line() for _ in range(TICKS)]

    for name, path in CLOCKS:
        start_site(f"{name}-{request.param}").warm(path)
    told = start_site(f"django-{request.param}").at_once(partial(read, *each) for each in CLOCKS)
    return dict(zip(CLOCKS, told, strict=True))


@pytest.mark.parametrize("clock", CLOCKS, ids=" ".join)
def test_stream_refreshes_old_pieces(
    clocks: dict[tuple[str, str], list[str]], clock: tuple[str, str]
) -> None:
    """One that lives for a second is made at least thrice in three seconds."""
    told = clocks[clock]
    assert len(told) == TICKS
    assert all(told)
    assert len(set(told)) >= 3

"""Trips as an assertion: the fixture comes with the package. Run it by `pytest pytest_trips.py`.

When a page begins to make more trips, its test says which:

    1 trip expected, 2 made:
      1. get title, to memory://
      2. get text, to memory://
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onetrip import Cache

if TYPE_CHECKING:
    from onetrip.pytest_plugin import AssertTrips

cache = Cache("memory://")
cache.set_many({"title": "Trips", "text": "One is enough."})


def page() -> str:
    return f"<h1>{cache['title']}</h1> {cache['text']}"


def test_the_page_takes_one_trip(assert_trips: AssertTrips) -> None:
    with assert_trips(1), cache.preload("title", "text"):
        assert page() == "<h1>Trips</h1> One is enough."


def test_what_a_failure_says(assert_trips: AssertTrips) -> None:
    with pytest.raises(pytest.fail.Exception) as failure, assert_trips(1):
        page()
    assert __doc__ is not None
    said = str(failure.value)
    assert said in __doc__.replace("\n    ", "\n")

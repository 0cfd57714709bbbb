"""Asserts numbers of trips, in pytest.

def test_page(client, assert_trips):
    with assert_trips(1):
        client.get("/notes/5")
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from onetrip._core import Everything

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from onetrip import Trip

__all__ = ["AssertTrips", "assert_trips"]

_SHOWN_KEYS = 10


class AssertTrips(Protocol):
    """Type of the fixture `assert_trips`."""

    def __call__(
        self, expected: int | None = None, *, at_most: int | None = None
    ) -> AbstractContextManager[Everything]:
        """Fails the test unless the block makes `expected` trips, or at most `at_most`."""


@pytest.fixture
def assert_trips() -> AssertTrips:
    """Counts the trips of all caches of this process, in all threads, within a block."""

    @contextmanager
    def assert_trips(
        expected: int | None = None, *, at_most: int | None = None
    ) -> Iterator[Everything]:
        if (expected is None) == (at_most is None):
            msg = "assert_trips takes either a number of trips or at_most="
            raise TypeError(msg)
        __tracebackhide__ = True
        with Everything() as seen:
            yield seen
        if at_most is not None:
            fits, wanted = seen.trips <= at_most, f"at most {_trips(at_most)}"
        else:
            fits, wanted = seen.trips == expected, _trips(expected or 0)
        if not fits:
            pytest.fail(f"{wanted} expected, {seen.trips} made{_list(seen.records)}")

    return assert_trips


def _trips(count: int) -> str:
    return f"{count} trip" if count == 1 else f"{count} trips"


def _list(records: list[Trip]) -> str:
    lines = [f"\n  {number}. {_describe(trip)}" for number, trip in enumerate(records, 1)]
    return ":" + "".join(lines) if lines else ""


def _describe(trip: Trip) -> str:
    shown = ", ".join(f"{word} {name}" for word, name in trip.ops[:_SHOWN_KEYS])
    more = len(trip) - _SHOWN_KEYS
    failed = f" ({trip.failed} failed)" if trip.failed else ""
    return f"{shown}{f' and {more} more' if more > 0 else ''}{failed}, to {trip.store}"

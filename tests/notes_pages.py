"""Notes whose pages read three keys each: what the tests of pages that learn visit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from onetrip import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = ("note_markup:{}", "note:{}:tags", "menu")


@contextmanager
def filled(url: str) -> Iterator[Cache]:
    """A cache that has all that the pages of twenty notes read."""
    cache = Cache(url)
    cache.set("menu", "menu")
    for number in range(20):
        cache.set_many({key.format(number): number for key in KEYS[:2]})
    yield cache
    cache.close()


def names(cache: Cache) -> dict[str, int]:
    """The routes that were learned, and from how many visits."""
    return {route.name: route.visits for route in cache.pages()}

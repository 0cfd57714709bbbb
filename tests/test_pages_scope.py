"""What belongs to a visit: one page of a scope after another, and what its tasks ask at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from onetrip import Cache

if TYPE_CHECKING:
    from onetrip import Watch
    from tests.conftest import OpenCache


def gets(seen: Watch) -> int:
    """How many keys were asked for."""
    return sum(word == "get" for trip in seen.records for word, _ in trip.ops)


def test_second_visit_ends_the_first(cache: Cache) -> None:
    with cache.scope() as scope:
        for month in range(3):
            scope.visit("report", month=month)
            cache.get(f"figures:{month}")
        [route] = cache.pages()
        assert (route.visits, route.reads) == (2, 2)
    [route] = cache.pages()
    assert (route.visits, route.reads) == (3, 3)


def test_tasks_of_one_turn_read_each_key_once(redis_url: str) -> None:
    cache = Cache(redis_url, prefix="turn")
    keys = [f"k{number}" for number in range(5)]

    async def visit() -> tuple[int, list[object]]:
        with cache.watch() as seen:
            async with cache.page("page"):
                values = await asyncio.gather(*(cache._apiece_get(key) for key in keys))
        return gets(seen), values

    async def visits() -> list[tuple[int, list[object]]]:
        await cache.aset_many(dict.fromkeys(keys, "x"))
        return [await visit() for _ in range(6)]

    told = asyncio.run(visits())
    assert [values for _, values in told] == [["x"] * 5] * 6
    # What workers exchange comes along with the first.
    assert [reads for reads, _ in told[3:]] == [5] * 3
    [route] = cache.pages()
    assert (route.visits, route.trips) == (6, 6)
    assert route.recall > 0.5


def test_read_after_a_write_in_one_turn_sees_it(open_cache: OpenCache) -> None:
    cache = open_cache()

    async def visit(number: int) -> list[object]:
        async with cache.page("page"):
            told = await asyncio.gather(
                cache.aget("a"), cache.aset("b", number), cache.aget("b"), cache.aget("c")
            )
        return list(told)

    async def visits() -> list[list[object]]:
        return [await visit(number) for number in range(5)]

    assert asyncio.run(visits()) == [[None, None, number, None] for number in range(5)]


def test_filled_entries_count_against_page_bytes(open_cache: OpenCache) -> None:
    cache = open_cache(page_bytes=1000)

    with cache.page("page"):
        for number in range(5):
            if cache.get(f"large:{number}") is None:
                cache.set(f"large:{number}", "x" * 400)
    with cache.watch() as seen, cache.page("page"):
        cache.get("other")
    # Two of them are all that its bound lets come along.
    assert sum(trip.bytes_in for trip in seen.records) < 1500


def test_absent_keys_count_against_page_keys(open_cache: OpenCache) -> None:
    cache = open_cache(page_bytes=1000)
    for _ in range(3):
        with cache.page("page"):
            cache.get_many([f"absent:{number}" for number in range(100)])
    with cache.watch() as seen, cache.page("page"):
        cache.get("other")
    assert gets(seen) < 20

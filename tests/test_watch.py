"""Watching trips: which are seen, by whom, and what is told of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest

from onetrip import Cache, ConfigurationError, Trip
from onetrip._core import Everything
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import OpenCache
    from tests.servers import RedisServer


class TestRecords:
    def test_every_trip_is_seen_but_no_scope_hit(self, cache: Cache) -> None:
        with cache.watch() as seen:
            assert (seen.trips, seen.records) == (0, [])
            cache.set("a", 1)
            cache.get("a")
            cache.get("a")
            assert seen.trips == 3
            with cache.preload("a", "b"):
                cache.get("a")
                cache.get("b")
            cache.get_many([])
            assert seen.trips == 4
        cache.get("a")
        assert seen.trips == 4
        assert len(seen.records) == 4

    def test_words_and_keys_of_the_operations(self, cache: Cache) -> None:
        calls: list[tuple[Callable[[], object], list[tuple[str, str]]]] = [
            (lambda: cache.set("a", 1), [("set", "test:a")]),
            (lambda: cache.add("a", 1), [("add", "test:a")]),
            (lambda: cache.get("a"), [("get", "test:a")]),
            (lambda: "b" in cache, [("get", "test:b")]),
            (lambda: cache.get_many(["b", "a"]), [("get", "test:b"), ("get", "test:a")]),
            (lambda: cache.incr("a"), [("incr", "test:a")]),
            (lambda: cache.decr("a"), [("incr", "test:a")]),
            (lambda: cache.touch("a", 5), [("touch", "test:a")]),
            (lambda: cache.set("a", 1, 0), [("delete", "test:a")]),
            (lambda: cache.delete("a"), [("delete", "test:a")]),
        ]
        for call, ops in calls:
            with cache.watch() as seen:
                call()
            assert [trip.ops for trip in seen.records] == [ops]
            assert len(seen.records[0]) == len(ops)

    @stores_that_clear
    def test_clear_shows_its_prefix(self, cache: Cache) -> None:
        with cache.watch() as seen:
            cache.clear()
        assert [trip.ops for trip in seen.records] == [[("clear", "test:")]]

    def test_store_bytes_and_seconds(self, open_cache: OpenCache, store_url: str) -> None:
        cache = open_cache(serializer="raw")
        with cache.watch() as seen:
            cache.set("a", b"12345")
            cache.get_many(["a", "a", "b"])
        first, second = seen.records
        assert (first.bytes_out, first.bytes_in, first.failed) == (5, 0, 0)
        assert (second.bytes_out, second.bytes_in, second.failed) == (0, 10, 0)
        assert first.store == store_url
        assert first.seconds >= 0
        assert f"<Trip to {store_url}: set test:a>" == repr(first)

    def test_failed_trips(self) -> None:
        cache = Cache("redis://127.0.0.1:1")
        with cache.watch() as seen:
            cache.get_many(["a", "b"])
        [trip] = seen.records
        assert trip.failed == len(trip) == 2

    def test_large_trips_are_cut(self, cache: Cache) -> None:
        with cache.watch() as seen:
            cache.get_many(map(str, range(500)))
        [trip] = seen.records
        assert len(trip) == 500
        assert trip.ops == [("get", f"test:{number}") for number in range(100)]
        assert repr(trip).endswith("get test:4 and 495 more>")

    def test_keys_of_any_kind_can_be_shown(self, cache: Cache) -> None:
        with cache.watch() as seen:
            cache.get("\ud800\n\x00")
        assert isinstance(repr(seen.records), str)

    def test_at_most_ten_thousand_records(self) -> None:
        cache = Cache()
        with cache.watch() as seen:
            for _ in range(10_050):
                cache.get("a")
        assert seen.trips == 10_050
        assert len(seen.records) == 10_000
        assert repr(seen) == "<Watch: 10050 trips>"


class TestWatchOwnership:
    def test_trips_of_another_cache_are_not_seen(self, open_cache: OpenCache) -> None:
        one, two = open_cache(), open_cache()
        with one.watch() as seen:
            two.get("a")
        assert seen.trips == 0

    def test_hits_and_misses(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": None})
        with cache.watch() as outer:
            assert cache["a"] == 1
            with cache.watch() as inner, cache.preload("a", "b", "c"):
                assert cache.get_many(["a", "b", "c", "d"]) == {"a": 1, "b": None}
            cache.get("c")
        cache.get("a")
        # Found in the scope or in the store, a cached None is a hit; to preload is not to read.
        assert (inner.hits, inner.misses) == (2, 2)
        assert (outer.hits, outer.misses) == (3, 3)

    def test_inner_and_outer_watches(self, cache: Cache) -> None:
        with cache.watch() as outer:
            cache.get("a")
            with cache.watch() as inner:
                cache.get("a")
            with cache.scope(), cache.watch() as within:
                cache.set("b", 1)
            # What a scope does when it closes is no trip.
        assert (outer.trips, inner.trips, within.trips) == (3, 1, 1)

    def test_trips_of_other_threads_are_not_seen(self, cache: Cache) -> None:
        with cache.watch() as seen:
            other = threading.Thread(target=cache.get, args=("a",))
            other.start()
            other.join()
            assert seen.trips == 0
            copied = threading.Thread(target=contextvars.copy_context().run, args=(cache.get, "a"))
            copied.start()
            copied.join()
        assert seen.trips == 1

    def test_trips_of_subtasks_are_seen(self, cache: Cache) -> None:
        async def page(trips: int, started: list[asyncio.Task[None]]) -> int:
            async def part() -> None:
                cache.get("a")

            with cache.watch() as seen:
                for _ in range(trips):
                    await asyncio.create_task(part())
                    # Between them, the others have their turn.
                    await asyncio.sleep(0)
            started.append(asyncio.create_task(part()))
            return seen.trips

        async def main() -> list[int]:
            started: list[asyncio.Task[None]] = []
            counted = await asyncio.gather(*(page(trips, started) for trips in range(5)))
            await asyncio.gather(*started)
            return counted

        assert asyncio.run(main()) == [0, 1, 2, 3, 4]

    def test_exception_ends_the_watch(self, cache: Cache) -> None:
        def page() -> None:
            with cache.watch() as seen:
                watches.append(seen)
                cache.get("a")
                raise ZeroDivisionError

        watches: list[object] = []
        with pytest.raises(ZeroDivisionError):
            page()
        cache.get("a")
        assert repr(watches) == "[<Watch: 1 trips>]"


class TestWatchObject:
    def test_can_end_before_a_scope_within_it(self, cache: Cache) -> None:
        watch, scope = cache.watch(), cache.preload("a")
        with watch as seen:
            scope.__enter__()
            cache.get("b")
        cache.get("b")
        cache.set("a", 1)
        scope.__exit__()
        cache.get("b")
        assert seen.trips == 2

    def test_can_outlive_the_scope_around_it(self, cache: Cache) -> None:
        watch, scope = cache.watch(), cache.scope()
        with scope:
            seen = watch.__enter__()
            cache.set("a", 1)
            assert seen.trips == 1
        # What the scope wrote, and what is asked outside of it.
        cache.get("a")
        cache.get("a")
        assert seen.trips == 3
        watch.__exit__()
        cache.get("a")
        assert seen.trips == 3

    def test_can_end_in_any_order(self, cache: Cache) -> None:
        watches = [cache.watch() for _ in range(3)]
        for watch in watches:
            watch.__enter__()
        cache.get("a")
        for index in (1, 0, 2):
            watches[index].__exit__()
            cache.get("a")
        assert [watch.trips for watch in watches] == [2, 1, 3]

    def test_entering_twice_raises(self, cache: Cache) -> None:
        watch = cache.watch()
        with watch, pytest.raises(ConfigurationError, match=r"make another with cache\.watch\(\)"):
            watch.__enter__()
        with watch:
            cache.get("a")
        with watch:
            cache.get("a")
        assert watch.trips == 2

    def test_exit_without_enter_does_nothing(self, cache: Cache) -> None:
        watch = cache.watch()
        watch.__exit__()
        watch.__exit__(None, None, None)
        cache.get("a")
        assert watch.trips == 0

    def test_keeps_its_records(self, cache: Cache) -> None:
        with cache.watch() as seen:
            cache.get("a")
        records = seen.records
        cache.close()
        del cache, seen
        assert [type(trip) for trip in records] == [Trip]
        assert records[0].ops == [("get", "test:a")]


class TestEverything:
    def test_sees_all_caches_in_all_threads(self, open_cache: OpenCache) -> None:
        one, two = open_cache(), Cache()
        with Everything() as seen:
            one.get("a")
            two.get("a")
            others = [threading.Thread(target=one.get, args=("a",)) for _ in range(5)]
            for other in others:
                other.start()
            for other in others:
                other.join()
            assert seen.trips == 7
        one.get("a")
        assert seen.trips == len(seen.records) == 7

    def test_can_be_nested(self, cache: Cache) -> None:
        with Everything() as outer, cache.watch() as own:
            cache.get("a")
            with Everything() as inner:
                cache.get("a")
            cache.get("a")
        assert (outer.trips, inner.trips, own.trips) == (3, 1, 3)

    def test_counts_match_the_servers(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url, on_error="raise")
        cache.get("a")
        redis_server.reset_stats()
        with Everything() as seen:
            with cache.preload("a", "b"):
                cache.set("c", 1)
                cache.delete("b")
                cache.get("d")
            cache.set_many({"a": 1, "b": 2})
        assert seen.trips == redis_server.reads() == 5

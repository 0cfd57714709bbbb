"""`cache.batch()`: plain `set`s of a block wait, and leave together."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, ConfigurationError, SerializationError, StoreUnavailableError
from tests.pieces import fetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import ExpectTrips, OpenCache


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries."""
    return open_cache()


class TestBatch:
    def test_is_one_trip(self, cache: Cache, other: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(1) as seen, cache.batch():
            for number in range(30):
                cache.set(f"{number}", number)
            cache.set_many({"x": 1, "y": 2})
            cache["z"] = 3
        [trip] = seen.records
        assert len(trip) == 33
        assert other.get_many(["0", "29", "y", "z"]) == {"0": 0, "29": 29, "y": 2, "z": 3}

    def test_empty_batch_makes_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0), cache.batch(), cache.batch():
            pass

    def test_waits_until_the_block_ends(self, cache: Cache, other: Cache) -> None:
        with cache.batch():
            cache.set("a", 1)
            assert "a" not in other
        assert other["a"] == 1

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda cache: cache.get("b"), ["set", "get"]),
            (lambda cache: cache.get_many(["a", "b"]), ["set", "get", "get"]),
            (lambda cache: cache.get_or_set("a", 2), ["set", "get"]),
            (lambda cache: cache.add("a", 2), ["set", "add"]),
            (lambda cache: cache.incr("a"), ["set", "incr"]),
            (lambda cache: cache.delete("a"), ["set", "delete"]),
            (lambda cache: cache.touch("a", 60), ["set", "touch"]),
            (lambda cache: cache.preload("b").__enter__(), ["set", "get"]),
        ],
        ids=[*("get", "get_many", "get_or_set", "add", "incr", "delete", "touch", "preload")],
    )
    def test_leaves_with_the_next_trip(
        self, cache: Cache, call: Callable[[Cache], Any], words: list[str]
    ) -> None:
        with cache.watch() as seen:
            with cache.batch():
                cache.set("a", 1)
                assert seen.trips == 0
                call(cache)
                assert [[word for word, _ in trip.ops] for trip in seen.records] == [words]
            assert seen.trips == 1

    @pytest.mark.parametrize("scoped", [False, True])
    def test_is_seen_by_reads_inside(self, cache: Cache, scoped: bool) -> None:
        cache.set_many({"a": "old", "b": "old"})
        with cache.preload(["a", "b"] if scoped else []), cache.batch():
            cache.set("a", 1)
            assert cache["a"] == 1
            cache.set("a", 2)
            cache.set("b", 3)
            assert cache.get_many(["a", "b"]) == {"a": 2, "b": 3}
            assert cache.get_or_set("b", 4) == 3
            cache.set("b", 5, 0)
            assert "b" not in cache
            assert cache.delete("a") is True
            assert "a" not in cache

    def test_keeps_order(self, cache: Cache, other: Cache) -> None:
        with cache.batch():
            for number in range(5):
                cache.set("a", number)
            cache.set("b", 1)
            cache.set("b", 2, 0)
        assert other.get_many(["a", "b"]) == {"a": 4}

    def test_set_in_a_batch_drops_the_held_value(self, cache: Cache, other: Cache) -> None:
        with cache.preload("a"), cache.batch():
            cache.set("a", 1)
            other.set("a", 2)
            # Ours is the later one: it leaves now.
            assert cache["a"] == 1
        assert other["a"] == 1

    def test_writes_before_an_exception_are_sent(self, cache: Cache, other: Cache) -> None:
        def fail() -> None:
            with cache.batch():
                cache.set("a", 1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert other["a"] == 1

    def test_batches_nest(self, cache: Cache, other: Cache) -> None:
        with cache.watch() as seen, cache.batch():
            cache.set("a", 1)
            with cache.batch():
                cache.set("b", 2)
            assert other["b"] == 2
            cache.set("c", 3)
        assert seen.trips == 2
        assert other.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}

    def test_belongs_to_its_thread(self, cache: Cache, other: Cache) -> None:
        with cache.batch():
            thread = threading.Thread(target=cache.set, args=("a", 1))
            thread.start()
            thread.join()
            assert other["a"] == 1

    def test_posts_do_not_join_the_batch(self, cache: Cache, other: Cache) -> None:
        with cache.scope(), cache.batch():
            fetch(cache, "a")
            cache.set("b", 1)
            assert "b" not in other
        assert other["piece:a"] == "a"

    def test_entering_twice_raises(self, cache: Cache) -> None:
        batch = cache.batch()
        with batch as entered:
            assert entered is batch
            with pytest.raises(ConfigurationError, match="open already; make another with"):
                batch.__enter__()
        with batch:
            cache.set("a", 1)
        assert cache["a"] == 1

    def test_exit_without_enter_does_nothing(self, cache: Cache) -> None:
        batch = cache.batch()
        batch.__exit__(None, None, None)

    def test_unencodable_value_raises_at_the_call(self, cache: Cache) -> None:
        with cache.batch():
            cache.set("a", 1)
            with pytest.raises(SerializationError):
                cache.set("b", object())
        assert cache["a"] == 1


class TestErrors:
    def test_failure_raises_at_the_end_of_the_block(self) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")
        batch = cache.batch()
        batch.__enter__()
        cache.set("a", 1)
        with pytest.raises(StoreUnavailableError):
            batch.__exit__(None, None, None)
        # What failed does not leave a second time.
        with cache.batch():
            pass

    def test_failure_raises_at_the_operation_that_sends_it(self) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")
        with cache.batch():
            cache.set("a", 1)
            with pytest.raises(StoreUnavailableError):
                cache.get("b")

    def test_failure_does_not_replace_an_exception(self) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")

        def fail() -> None:
            with cache.batch():
                cache.set("a", 1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

    def test_failures_are_counted(self) -> None:
        cache = Cache("redis://127.0.0.1:1")
        with cache.batch():
            cache.set_many({"a": 1, "b": 2})
        assert cache.stats().errors == 2


class TestTasks:
    def test_is_one_trip(self, cache: Cache, other: Cache) -> None:
        async def main() -> int:
            with cache.watch() as seen:
                async with cache.batch():
                    await asyncio.gather(*(cache.aset(f"{number}", number) for number in range(5)))
                    await cache.aset_many({"x": 1})
                    assert seen.trips == 0
            return seen.trips

        assert asyncio.run(main()) == 1
        assert len(other.get_many(["0", "4", "x"])) == 3

    def test_is_seen_by_reads_inside(self, cache: Cache) -> None:
        async def main() -> None:
            async with cache.preload("a"), cache.batch():
                await cache.aset("a", 1)
                assert await cache.aget("a") == 1
                await cache.aset("a", 2)
                found: Any = await cache.aget_or_set("a", 3)
                assert found == 2

        asyncio.run(main())

    def test_writes_before_a_cancellation_are_sent(self, cache: Cache, other: Cache) -> None:
        async def work(began: asyncio.Event) -> None:
            async with cache.batch():
                await cache.aset("a", 1)
                began.set()
                await asyncio.sleep(60)

        async def main() -> None:
            began = asyncio.Event()
            task = asyncio.create_task(work(began))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert other["a"] == 1

    def test_task_that_outlives_the_block_writes_directly(self, cache: Cache, other: Cache) -> None:
        async def late(over: asyncio.Event) -> None:
            await over.wait()
            await cache.aset("a", 1)
            assert await other.aget("a") == 1

        async def main() -> None:
            over = asyncio.Event()
            async with cache.batch():
                task = asyncio.create_task(late(over))
                await asyncio.sleep(0)
            over.set()
            await task

        asyncio.run(main())

    def test_with_and_async_with(self, cache: Cache, other: Cache) -> None:
        async def main() -> None:
            with cache.batch():
                await cache.aset("a", 1)
                assert await other.aget("a") is None
            assert await other.aget("a") == 1

        asyncio.run(main())

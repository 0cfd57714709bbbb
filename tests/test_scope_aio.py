"""Scopes of tasks: what they hold, what they post, and how they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache
from tests.pieces import ais_held, is_held
from tests.test_aio import counted, reads, remote, run
from tests.test_threads import own_server

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.conftest import OpenCache
    from tests.servers import RedisServer
    from tests.test_aio import Run

__all__ = ["counted", "own_server", "remote", "run"]


def piece(cache: Cache) -> Any:
    """A piece that is its own name."""

    @cache.cached(key="piece:{name}")
    async def piece(name: Any) -> Any:
        await asyncio.sleep(0)
        return name

    return piece


class TestHits:
    """What needs no trip is answered before the loop is asked for anything."""

    @staticmethod
    def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        return end.value.value

    def test_hit_in_a_scope(self, cache: Cache, run: Run) -> None:
        cache.set_many({"a": [1], "b": None})

        async def work() -> None:
            async with cache.preload("a", "b"):
                assert self.at_once(cache.aget("a")) == [1]
                assert self.at_once(cache.aget("b", 5)) is None
                assert self.at_once(cache.aget_many(["a", "b"])) == {"a": [1], "b": None}
                assert self.at_once(cache.aget_or_set("a", 3)) == [1]
                assert await cache.aget_or_set("c", 2) == 2
                assert self.at_once(cache.aget_or_set("c", 3)) == 2

        run(work())

    def test_memory_needs_no_loop(self) -> None:
        cache = Cache()
        assert self.at_once(cache.aset("a", 1)) is None
        assert self.at_once(cache.aget("a")) == 1
        assert self.at_once(cache.aincr("a")) == 2
        assert self.at_once(cache.aclear()) == 1

    def test_trip_without_a_loop_raises(self, remote: Cache) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            remote.aget("a").send(None)


class TestScopes:
    def test_one_trip_plus_posts(self, redis_url: str, run: Run) -> None:
        cache = Cache(redis_url, prefix="aio")
        names = [f"piece:{number}" for number in range(20)]

        async def page() -> None:
            async with cache.preload(names):
                await asyncio.gather(*map(piece(cache), range(20)))
                assert await piece(cache).many(range(20)) == list(range(20))

        async def visit() -> list[int]:
            with cache.watch() as seen:
                await page()
            return [seen.trips, seen.posted]

        assert [run(visit()), run(visit())] == [[1, 20], [1, 0]]
        assert cache.get_many(names) == {f"piece:{number}": number for number in range(20)}

    def test_plain_writes_are_waited_for(
        self, counted: Cache, run: Run, own_server: RedisServer
    ) -> None:
        async def page() -> None:
            async with counted.preload("a", "b"):
                for key in "ab":
                    value = await counted.aget(key)
                    await counted.aset(key, (value or 0) + 1)

        assert run(reads(own_server, counted, page))[0] == 3
        assert counted.get_many(["a", "b"]) == {"a": 1, "b": 1}

    def test_scope_belongs_to_its_task_and_subtasks(self, cache: Cache, run: Run) -> None:
        async def page(number: int) -> None:
            async with cache.scope():
                await piece(cache)(number)
                await asyncio.sleep(0)
                told = await asyncio.gather(*(ais_held(cache, number) for _ in range(2)))
                assert told == [True, True]
                assert not await ais_held(cache, (number + 1) % 20)
            assert not await ais_held(cache, number)

        async def work() -> None:
            await asyncio.gather(*map(page, range(20)))

        run(work())

    def test_cancellation_closes_the_scope(
        self, cache: Cache, open_cache: OpenCache, run: Run
    ) -> None:
        other = open_cache()

        async def page(opened: asyncio.Event) -> None:
            async with cache.scope():
                await piece(cache)("a")
                opened.set()
                await asyncio.sleep(60)

        async def work() -> None:
            opened = asyncio.Event()
            task = asyncio.create_task(page(opened))
            await opened.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # What it posted has arrived when it is over.
            assert other["piece:a"] == "a"

        run(work())

    def test_exception_closes_the_scope(
        self, cache: Cache, open_cache: OpenCache, run: Run
    ) -> None:
        other = open_cache()

        async def page() -> None:
            async with cache.scope():
                await piece(cache)("a")
                raise ZeroDivisionError

        async def work() -> None:
            with pytest.raises(ZeroDivisionError):
                await page()
            assert other["piece:a"] == "a"

        run(work())

    def test_cancellation_while_closing_is_raised(
        self, redis_url: str, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = Cache(redis_url, prefix="aio")

        async def page(leaving: asyncio.Event) -> None:
            async with cache.scope():
                await piece(cache)("a")
                leaving.set()
                raise ZeroDivisionError

        async def work() -> None:
            leaving = asyncio.Event()
            task = asyncio.create_task(page(leaving))
            await leaving.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert isinstance(caught.value.__context__, ZeroDivisionError)
            assert await cache.aget("piece:a") == "a"

        run(work())
        assert not caplog.records

    def test_sync_and_async_calls_share_the_scope(self, cache: Cache, run: Run) -> None:
        async def work() -> None:
            async with cache.scope():
                assert not is_held(cache, "a")
                assert await ais_held(cache, "a")
                with cache.scope():
                    assert not await ais_held(cache, "b")
                assert is_held(cache, "b")
                cache.set("piece:a", "new")
                assert await cache.aget("piece:a") == "new"
                assert await piece(cache)("a") == "new"

        run(work())

    def test_stream_can_be_closed_by_another_task(self, cache: Cache, run: Run) -> None:
        async def stream() -> Any:
            async with cache.preload("a"):
                await cache.aset("b", 1)
                yield await cache.aget("a")
                yield "more"

        async def work() -> None:
            pieces = stream()
            assert await asyncio.create_task(anext(pieces)) is None
            await asyncio.create_task(pieces.aclose())
            assert await cache.aget("b") == 1

        run(work())

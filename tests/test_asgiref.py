"""asgiref moves work between threads. Connections do not belong to them, and scopes go along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async

from onetrip import Cache
from tests.gauge import Gauge
from tests.pieces import fetch, is_held, is_in_a_scope

if TYPE_CHECKING:
    from tests.servers import Server

REQUESTS, AT_ONCE = 1000, 8


@pytest.fixture
def cache(server: Server) -> Cache:
    """A cache over each kind of server."""
    return Cache(server.url, on_error="raise", trip_timeout=20)


class TestConnections:
    def visit_all(self, server: Server, cache: Cache, *, thread_sensitive: bool) -> Gauge:
        gauge = Gauge()

        def view(number: int) -> str:
            with gauge, cache.preload("title", f"{number}"):
                cache.set(f"{number}", f"page {number}")
            with gauge:
                value: str = cache[f"{number}"]
                return value

        async def handle(number: int, turns: asyncio.Semaphore) -> str:
            # As Django handles a request: with a thread of its own for what is sensitive.
            async with turns, ThreadSensitiveContext():
                return await sync_to_async(view, thread_sensitive=thread_sensitive)(number)

        async def handle_all() -> list[str]:
            turns = asyncio.Semaphore(AT_ONCE)
            return await asyncio.gather(*(handle(number, turns) for number in range(REQUESTS)))

        before = server.connections()
        assert asyncio.run(handle_all()) == [f"page {number}" for number in range(REQUESTS)]
        assert 1 <= server.connections() - before <= gauge.most <= AT_ONCE
        return gauge

    def test_no_more_connections_than_concurrent_calls(self, server: Server, cache: Cache) -> None:
        gauge = self.visit_all(server, cache, thread_sensitive=True)
        assert len(gauge.threads) == REQUESTS

    def test_thread_pool_opens_no_more_connections(self, server: Server, cache: Cache) -> None:
        gauge = self.visit_all(server, cache, thread_sensitive=False)
        assert 1 < len(gauge.threads) < REQUESTS

    def test_single_thread_uses_one_connection(self, server: Server, cache: Cache) -> None:
        async def handle_all() -> None:
            await asyncio.gather(*(sync_to_async(cache.get)(f"{n}") for n in range(100)))

        before = server.connections()
        asyncio.run(handle_all())
        assert server.connections() - before == 1


class TestScopes:
    @pytest.mark.parametrize("thread_sensitive", [True, False])
    def test_scope_follows_into_threads(self, cache: Cache, *, thread_sensitive: bool) -> None:
        async def view(number: int) -> None:
            key = f"{number}"
            with cache.scope():
                # What the thread fetches is held in the scope of the task.
                fetched = await sync_to_async(fetch, thread_sensitive=thread_sensitive)(cache, key)
                assert fetched == key
                held = sync_to_async(is_held, thread_sensitive=thread_sensitive)
                assert is_held(cache, key)
                assert await held(cache, key)

        async def views() -> None:
            await asyncio.gather(*map(view, range(20)))

        asyncio.run(views())
        stored = cache.get_many(f"piece:{number}" for number in range(20))
        assert stored == {f"piece:{number}": str(number) for number in range(20)}

    @pytest.mark.parametrize("thread_sensitive", [True, False])
    def test_scope_ends_with_its_block(self, cache: Cache, *, thread_sensitive: bool) -> None:
        def view(number: int) -> None:
            with cache.scope():
                fetch(cache, number)
                assert is_held(cache, number)

        async def views() -> None:
            call = sync_to_async(view, thread_sensitive=thread_sensitive)
            await asyncio.gather(*map(call, range(20)))
            assert not is_in_a_scope(cache)

        asyncio.run(views())

    def test_scope_follows_into_a_nested_loop(self, cache: Cache) -> None:
        async def view() -> None:
            assert is_held(cache, "a")
            await sync_to_async(fetch)(cache, "b")

        with cache.scope():
            fetch(cache, "a")
            async_to_sync(view)()
            assert is_held(cache, "b")

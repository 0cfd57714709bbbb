"""What workers tell each other of pages comes along with the reads of a page, and harms none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from onetrip import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer


class TestAStoreThatRefusesThem:
    """A user of Redis who may touch the keys of the cache alone."""

    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[Cache]:
        client = redis_server.admin
        client.execute_command(
            "ACL", "SETUSER", "app", "on", ">pw", "~blog:*", "+@all", "-@dangerous"
        )
        url = redis_server.url.replace("redis://", "redis://app:pw@")
        cache = Cache(url, prefix="blog", on_error="raise")
        cache.set_many({"a": 1, "b": 2, "mine": 3})
        yield cache
        cache.delete_many(["a", "b", "mine"])
        client.execute_command("ACL", "DELUSER", "app")

    @staticmethod
    def visit(cache: Cache) -> tuple[object, object]:
        with cache.page("home"):
            return cache.get("a"), cache.get("b")

    def test_the_page_reads_what_it_reads(self, cache: Cache) -> None:
        assert [self.visit(cache) for _ in range(3)] == [(1, 2)] * 3

    def test_so_do_other_tasks(self, cache: Cache) -> None:
        async def page() -> object:
            async with cache.page("home"):
                return await cache.aget("a")

        async def both() -> list[object]:
            return await asyncio.gather(page(), cache.aget("mine"))

        assert asyncio.run(both()) == [1, 3]

    def test_it_is_asked_once(self, cache: Cache) -> None:
        self.visit(cache)
        refused = cache.stats().errors
        assert refused > 0
        for route in ("home", "other", "home"):
            with cache.page(route):
                cache.get_many(["a", "b"])
        assert cache.stats().errors == refused
        assert cache.pages()[0].recall > 0

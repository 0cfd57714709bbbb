"""What workers tell each other of pages comes along with the reads of a page, and harms none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from onetrip import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer


class TestRefusedRecords:
    """A user of Redis who may touch the keys of the cache alone."""

    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[Cache]:
        admin = redis_server.admin
        admin.acl_setuser(
            "app", enabled=True, passwords=["+pw"], keys=["blog:*"], categories=["+@all"]
        )
        url = redis_server.url.replace("redis://", "redis://app:pw@")
        cache = Cache(url, prefix="blog", on_error="raise")
        cache.set_many({"a": 1, "b": 2, "mine": 3})
        yield cache
        cache.delete_many(["a", "b", "mine"])
        admin.acl_deluser("app")

    @staticmethod
    def visit(cache: Cache) -> tuple[object, object]:
        with cache.page("home"):
            return cache.get("a"), cache.get("b")

    def test_page_still_reads_its_keys(self, cache: Cache) -> None:
        assert [self.visit(cache) for _ in range(3)] == [(1, 2)] * 3

    def test_tasks_of_the_same_trip_still_read(self, cache: Cache) -> None:
        async def page() -> object:
            async with cache.page("home"):
                return await cache.aget("a")

        async def both() -> list[object]:
            return list(await asyncio.gather(page(), cache.aget("mine")))

        assert asyncio.run(both()) == [1, 3]

    def test_records_are_asked_for_once(self, cache: Cache) -> None:
        self.visit(cache)
        refused = cache.stats().errors
        assert refused > 0
        for route in ("home", "other", "home"):
            with cache.page(route):
                cache.get_many(["a", "b"])
        assert cache.stats().errors == refused
        assert cache.pages()[0].recall > 0


class TestForeignRecords:
    @pytest.mark.parametrize("size", [10, 300_000])
    def test_counts_as_a_bad_entry_and_is_logged_once(
        self, redis_url: str, caplog: pytest.LogCaptureFixture, size: int
    ) -> None:
        stranger = Cache(redis_url, prefix="stranger@onetrip")
        routes = ["one", "two", "three"]
        stranger.set_many({f"page:{route}": b"x" * size for route in routes})
        cache = Cache(redis_url, prefix="stranger", on_error="raise")
        for route in routes:
            with cache.page(route):
                assert cache.get("a") is None
        assert cache.stats().bad_entries == 3
        told = [record for record in caplog.records if "counts as a miss" in record.message]
        assert len(told) == 1

    def test_compressed_record_is_not_read(self, redis_url: str) -> None:
        stranger = Cache(redis_url, prefix="zipped@onetrip", compression="zstd")
        stranger.set("page:one", b"x" * 10_000_000)
        cache = Cache(redis_url, prefix="zipped")
        with cache.page("one"):
            assert cache.get("a") is None
        assert cache.stats().bad_entries == 1


class TestNames:
    def test_too_long_route_is_not_learned(self, redis_url: str) -> None:
        cache = Cache(redis_url, prefix="names")
        for route in ("r" * 200, "r" * 201):
            for _ in range(2):
                with cache.page(route):
                    cache.get("a")
        assert [route.name for route in cache.pages()] == ["r" * 200]

    def test_route_visited_once_is_not_shared(
        self, redis_url: str, redis_server: RedisServer
    ) -> None:
        cache = Cache(redis_url, prefix="once")
        for _ in range(2):
            for route in ("one", "two"):
                with cache.page(route):
                    cache.get("a")
        assert not redis_server.admin.keys("once@onetrip:*")

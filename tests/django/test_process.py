"""Connections belong to the process, whoever asks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import TYPE_CHECKING

from django.core import signals
from django.core.cache import caches

from onetrip.django import Cache
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

    import onetrip
    from tests.servers import RedisServer


def core(backend: BaseCache) -> onetrip.Cache:
    assert isinstance(backend, Cache)
    return backend.onetrip


def connections(server: RedisServer) -> int:
    info = server.admin.info("stats")
    assert isinstance(info, dict)
    return int(info["total_connections_received"])


def test_backends_of_one_configuration_share_one_cache() -> None:
    params = {"TIMEOUT": 5, "OPTIONS": {"secret": ["a", "b"], "prefix": "p"}}
    first = Cache("memory://process", params)
    assert Cache(["memory://process"], {**params, "KEY_PREFIX": "k"}).onetrip is first.onetrip
    for other in (
        {**params, "TIMEOUT": 6},
        {**params, "OPTIONS": {"secret": ["b", "a"], "prefix": "p"}},
        {**params, "OPTIONS": {"secret": ["a", "b"], "prefix": "p", "debug": True}},
    ):
        assert Cache("memory://process", other).onetrip is not first.onetrip
    assert Cache("memory://process-2", params).onetrip is not first.onetrip


def test_concurrent_threads_share_one_cache() -> None:
    with configured(default=on("memory://threads")):
        begin = Barrier(20)

        def thread(_: int) -> onetrip.Cache:
            begin.wait()
            return core(caches["default"])

        with ThreadPoolExecutor(20) as pool:
            assert len({id(one) for one in pool.map(thread, range(20))}) == 1


def test_thread_per_request_shares_connections(
    redis_server: RedisServer,
) -> None:
    with configured(default=on(redis_server.url)):
        caches["default"].set("a", 1)
        before = connections(redis_server)
        for _ in range(50):
            seen: list[object] = []

            def request(seen: list[object] = seen) -> None:
                seen.append(caches["default"].get("a"))
                signals.request_finished.send(None)

            thread = Thread(target=request)
            thread.start()
            thread.join()
            assert seen == [1]
        assert connections(redis_server) == before


def test_end_of_a_request_closes_no_connection(redis_server: RedisServer) -> None:
    with configured(default=on(redis_server.url)):
        caches["default"].set("a", 1)
        before = connections(redis_server)
        for _ in range(10):
            signals.request_finished.send(None)
            assert caches["default"].get("a") == 1
        assert connections(redis_server) == before


def test_tasks_share_one_connection(redis_server: RedisServer) -> None:
    with configured(default=on(redis_server.url)):

        async def request() -> None:
            await caches["default"].aset("a", 1)
            assert await caches["default"].aget("a") == 1
            await caches["default"].aclose()

        async def server() -> None:
            await request()
            before = connections(redis_server)
            await asyncio.gather(*(asyncio.create_task(request()) for _ in range(50)))
            assert connections(redis_server) == before

        asyncio.run(server())

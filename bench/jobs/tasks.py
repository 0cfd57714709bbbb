"""A hundred reads at once, by tasks of one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio

from bench import own
from bench.floor import floor
from bench.measure import Report, Work
from bench.peer import glide, module, peer
from bench.values import TEXT
from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import RedisServer

KEYS = [f"task:{number}" for number in range(100)]
RIGHT = [TEXT] * len(KEYS)
REDIS_PY = "redis-py, asyncio"
GLIDE = "valkey-glide (async)"
COREDIS = "coredis"


def run(report: Report, server: RedisServer) -> None:
    own.cache(server.url).set_many(dict.fromkeys(KEYS, TEXT))
    redis.Redis(port=server.port, db=1).mset(dict.fromkeys(KEYS, TEXT))
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    open_clients: list[asyncio.Task[None]] = []

    def work(name: str, get: Callable[[str], Awaitable[object]], right: object = RIGHT) -> Work:
        async def all_at_once() -> list[object]:
            return await asyncio.gather(*(get(key) for key in KEYS))

        return Work(name, lambda: loop.run_until_complete(all_at_once()), right)

    def of_glide() -> Work:
        kind, configuration = glide("glide", server.port, database=1)
        client = loop.run_until_complete(kind.create(configuration))
        return work(GLIDE, client.get, [TEXT.encode()] * len(KEYS))

    def coredis() -> Work:
        client = module("coredis").Redis(HOST, server.port, 1, decode_responses=True)
        ready = asyncio.Event()

        # It is left by the task that has entered it.
        async def hold() -> None:
            async with client:
                ready.set()
                await stop.wait()

        open_clients.append(loop.create_task(hold()))
        loop.run_until_complete(ready.wait())
        return work(COREDIS, client.get)

    def many(port: int) -> Callable[[], object]:
        cache = own.cache(f"redis://{HOST}:{port}/0")
        return lambda: cache.get_many(KEYS)

    plain: Any = redis.asyncio.Redis(port=server.port, db=1, decode_responses=True)
    cache = own.cache(server.url)
    section = report.compare(
        "100 concurrent gets of one event loop, Redis",
        [
            floor(server.port, many),
            work("onetrip", cache.aget),
            work(REDIS_PY, plain.get),
            peer(report, "valkey-glide", of_glide),
            peer(report, "coredis", coredis),
        ],
        "onetrip sends the gets of all tasks in one turn of the loop as one trip. The floor is "
        "that one trip, without a loop.",
    )
    stop.set()
    loop.run_until_complete(asyncio.gather(*open_clients))
    loop.run_until_complete(plain.aclose())
    loop.close()
    for other, limit, aim in (
        (REDIS_PY, 1 / 4, "≤ 1/4 of redis-py's asyncio"),
        (GLIDE, 1 / 2, "≤ 1/2 of valkey-glide"),
        (COREDIS, 1 / 2, "≤ 1/2 of coredis"),
    ):
        report.aim("100 concurrent `aget`", aim, limit, section, ("onetrip", other))

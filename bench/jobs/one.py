"""One get from Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from bench import own
from bench.floor import floor
from bench.measure import Report, Work
from bench.peer import glide, module, peer
from bench.values import TEXT
from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from onetrip import Cache
    from tests.servers import RedisServer

REDIS_PY = "redis-py with hiredis"


def both(server: RedisServer) -> tuple[Cache, redis.Redis]:
    """The two that are compared, with a value to get: of ours "one", of redis-py's "plain"."""
    cache = own.cache(server.url)
    cache.set("one", TEXT)
    plain = redis.Redis(port=server.port, decode_responses=True)
    plain.set("plain", TEXT)
    return cache, plain


def run(report: Report, server: RedisServer) -> None:
    cache, plain = both(server)

    def of_onetrip(port: int) -> Callable[[], object]:
        tapped = own.cache(f"redis://{HOST}:{port}/0")
        return lambda: tapped.get("one")

    def of_glide() -> Work:
        kind, configuration = glide("glide_sync", server.port)
        client = kind.create(configuration)
        return Work("valkey-glide (sync)", lambda: client.get("plain"), TEXT.encode())

    def of_ucache() -> Work:
        other = module("ucache").RedisCache(connection=redis.Redis(port=server.port, db=1))
        other.set("one", TEXT)
        return Work("ucache", lambda: other.get("one"), TEXT)

    section = report.compare(
        "One get, Redis",
        [
            floor(server.port, of_onetrip),
            Work("onetrip", lambda: cache.get("one"), TEXT),
            Work(REDIS_PY, lambda: plain.get("plain"), TEXT),
            peer(report, "valkey-glide-sync", of_glide),
            peer(report, "ucache", of_ucache),
        ],
    )
    aim = "≤ 1/2 of redis-py with hiredis, wall and processor"
    report.aim("one get, Redis", aim, 1 / 2, section, ("onetrip", REDIS_PY), both=True)

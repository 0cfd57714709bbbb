"""Values of several sizes and kinds, read from Redis and written to it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import redis

from bench import own
from bench.measure import Aim, Report, Result, Work
from bench.peer import module, peer
from bench.values import VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    import onetrip
    from tests.servers import RedisServer

PICKLE = "pickle in redis-py"
MSGPACK = "msgpack in redis-py"


def run(report: Report, server: RedisServer) -> None:
    cache = own.cache(server.url)
    client = redis.Redis(port=server.port, db=1)
    worst: dict[str, tuple[str, Result]] = {}
    for name, value in VALUES.items():
        for number, word in enumerate(("get", "set")):
            works = _works(report, cache, client, value)
            section = report.compare(f"{name}, {word}", [pair[number] for pair in works])
            for peer_name in section.results:
                seen = section.ratio("onetrip", peer_name)
                if peer_name != "onetrip" and (
                    peer_name not in worst or seen.wall > worst[peer_name][1].wall
                ):
                    worst[peer_name] = (f"{name}, {word}", seen)
    for peer_name, (where, seen) in worst.items():
        work = "values of 10 B, 1.5 kB, 100 kB; str, nested dict, list of 100 dicts"
        report.aims.append(Aim(work, f"never slower than {peer_name} (slowest: {where})", 1, seen))


def _works(
    report: Report, cache: onetrip.Cache, client: redis.Redis, value: Any
) -> list[tuple[Work, Work]]:
    def pair(name: str, put: Callable[[], object], get: Callable[[], object]) -> tuple[Work, Work]:
        put()
        return Work(name, get, value), Work(name, lambda: put() and None, value, get)

    def through(
        name: str, dumps: Callable[[Any], bytes], loads: Callable[[Any], Any]
    ) -> tuple[Work, Work]:
        return pair(
            name,
            lambda: client.set(name, dumps(value), ex=300),
            lambda: loads(client.get(name)),
        )

    def msgpack() -> tuple[Work, Work]:
        package = module("msgpack")
        return through(MSGPACK, package.packb, package.unpackb)

    def pickled(value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    other = peer(report, "msgpack", msgpack)
    return [
        pair("onetrip", lambda: cache.set("value", value), lambda: cache.get("value")),
        through(PICKLE, pickled, pickle.loads),
        *([] if other is None else [other]),
    ]

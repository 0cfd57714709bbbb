"""`make bench`: onetrip, redis-py and the floor, side by side in one run."""

from __future__ import annotations

import functools
import pickle
from typing import TYPE_CHECKING

import redis

import onetrip
from bench.floor import Exchange, command
from bench.measure import awake, compare, table
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

VALUE = "0123456789abcde" * 100
KEYS = [f"page:{number}" for number in range(50)]


def redis_page(server: RedisServer) -> str:
    cache = onetrip.Cache(server.url)
    client = redis.Redis(port=server.port, decode_responses=True)
    cache.set_many(dict.fromkeys(KEYS, VALUE))
    peer_keys = [f"peer:{key}" for key in KEYS]
    client.mset(dict.fromkeys(peer_keys, VALUE))

    def preload() -> None:
        with cache.preload(KEYS):
            for key in KEYS:
                cache.get(key)

    def fifty_gets() -> None:
        for key in peer_keys:
            client.get(key)

    return table(
        "a page of 50 keys, Redis, strings of 1.5 kB",
        compare(
            {
                "floor": Exchange(server.port, command("MGET", *KEYS)),
                "onetrip, preload and 50 gets": preload,
                "onetrip, get_many": lambda: cache.get_many(KEYS),
                "redis-py with hiredis, mget": lambda: client.mget(peer_keys),
                "redis-py with hiredis, 50 gets": fifty_gets,
            }
        ),
    )


def redis_one(server: RedisServer) -> str:
    cache = onetrip.Cache(server.url)
    client = redis.Redis(port=server.port, decode_responses=True)
    cache.set("one", VALUE)
    client.set("peer:one", VALUE)
    return table(
        "one get, Redis, a string of 1.5 kB",
        compare(
            {
                "floor": Exchange(server.port, command("GET", "one")),
                "onetrip": lambda: cache.get("one"),
                "redis-py with hiredis": lambda: client.get("peer:one"),
            }
        ),
    )


def in_scope() -> str:
    cache = onetrip.Cache("memory://")
    cache.set("one", VALUE)
    cached = functools.lru_cache(lambda _key: VALUE)

    def key_fn(args: tuple[object, ...], _kwargs: dict[str, object]) -> object:
        return args[0]

    @cache.cached(key_fn=key_fn)
    def shout(number: int) -> str:
        return f"{number}"

    arguments: tuple[object, ...] = (5,)
    options: dict[str, object] = {}

    with cache.preload("one"):
        shout(5)
        return table(
            "a hit in a scope",
            compare(
                {
                    "functools.lru_cache, a hit": lambda: cached("one"),
                    "the bare call of a key_fn": lambda: key_fn(arguments, options),
                    "onetrip, get in a scope": lambda: cache.get("one"),
                    "onetrip, a cached call in a scope": lambda: shout(5),
                }
            ),
        )


def memory() -> str:
    cache = onetrip.Cache("memory://")
    rows = [{"id": number, "title": "a title", "tags": ["a", "b"]} for number in range(100)]
    cache.set("text", VALUE)
    cache.set("rows", rows)
    pickled = pickle.dumps(rows)
    held = {"text": VALUE}
    work: dict[str, Callable[[], object]] = {
        "a dict": lambda: held["text"],
        "onetrip, get of a string": lambda: cache.get("text"),
        "onetrip, set of a string": lambda: cache.set("text", VALUE),
        "onetrip, get of 100 dicts": lambda: cache.get("rows"),
        "pickle.loads of 100 dicts": lambda: pickle.loads(pickled),  # noqa: S301 - our own bytes
        "onetrip, set of 100 dicts": lambda: cache.set("rows", rows),
        "pickle.dumps of 100 dicts": lambda: pickle.dumps(rows),
    }
    return table("the memory store", compare(work))


def main() -> None:
    with awake(), RedisServer() as server:
        for part in (redis_page, redis_one):
            print(part(server), flush=True)
        for local in (in_scope, memory):
            print(local(), flush=True)


if __name__ == "__main__":
    main()

"""A page of fifty keys that is preloaded, and one whose keys are all missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from bench import own
from bench.floor import floor
from bench.measure import Report, Work
from bench.peer import django_caches, glide, module, peer
from bench.values import KEYS, PAGE, TEXT
from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

RIGHT = list(PAGE.values())
ONETRIP = "onetrip, preload and 50 gets"
UCACHE = "ucache, preload and 50 gets"
DJANGO = "Django, 50 gets"
COLD = "onetrip, 50 misses computed and stored"


def preloaded(cache: Any) -> Callable[[], object]:
    """A page as onetrip and ucache make it: the keys are preloaded, and then read one by one."""

    def page() -> list[object]:
        with cache.preload(KEYS):
            return [cache.get(key) for key in KEYS]

    return page


def one_by_one(cache: Any) -> Callable[[], object]:
    return lambda: [cache.get(key) for key in KEYS]


def ucache(cache: Any) -> Work:
    cache.set_many(PAGE)
    return Work(UCACHE, preloaded(cache), RIGHT)


def on_redis(report: Report, server: RedisServer) -> None:
    port = server.port
    own.cache(server.url).set_many(PAGE)
    plain = redis.Redis(port=port, db=2, decode_responses=True)
    plain.mset(PAGE)

    def django(name: str, alias: str) -> Work:
        locations = {
            "django": ("django.core.cache.backends.redis.RedisCache", 3),
            "django-redis": ("django_redis.cache.RedisCache", 4),
        }
        backend, database = locations[alias]
        module(backend.rpartition(".")[0])
        settings = {"BACKEND": backend, "LOCATION": f"redis://{HOST}:{port}/{database}"}
        cache = django_caches({"default": settings})["default"]
        cache.set_many(PAGE)
        return Work(name, one_by_one(cache), RIGHT)

    def of_glide() -> Work:
        kind, configuration = glide("glide_sync", port, database=2)
        client = kind.create(configuration)
        right = [text.encode() for text in RIGHT]
        return Work("valkey-glide (sync), mget", lambda: client.mget(KEYS), right)

    section = report.compare(
        "A page of 50 keys, Redis",
        [
            floor(port, lambda port: preloaded(own.cache(f"redis://{HOST}:{port}/0"))),
            Work(ONETRIP, preloaded(own.cache(server.url)), RIGHT),
            peer(
                report,
                "ucache",
                lambda: ucache(
                    module("ucache").RedisCache(connection=redis.Redis(port=port, db=1))
                ),
            ),
            peer(report, "Django", lambda: django(DJANGO, "django")),
            peer(report, "django-redis", lambda: django("django-redis, 50 gets", "django-redis")),
            Work("redis-py with hiredis, mget", lambda: plain.mget(KEYS), RIGHT),
            peer(report, "valkey-glide-sync", of_glide),
        ],
        "onetrip verifies each value's checksum and decodes the value. ucache and Django unpickle "
        "it. `mget` of redis-py and of valkey-glide returns bare strings or bytes.",
    )
    work = "page of 50 keys, preloaded, Redis"
    report.aim(work, "≤ 1.3 × the floor", 1.3, section, (ONETRIP, "floor"))
    report.aim(work, "≤ 1/4 of ucache's preload", 1 / 4, section, (ONETRIP, UCACHE))
    report.aim(work, "≤ 1/50 of Django's 50 gets", 1 / 50, section, (ONETRIP, DJANGO))


def cold(report: Report, server: RedisServer) -> None:
    """All keys are missing: what is computed is stored."""
    names = [f"cold:{number}" for number in range(50)]
    admin = redis.Redis(port=server.port)

    def reset() -> None:
        admin.delete(*names)

    def make(cache: Any) -> Callable[[], object]:
        @cache.cached(timeout=60, key="cold:{number}")  # type: ignore[untyped-decorator] # of either cache
        def piece(number: int) -> str:
            del number
            return TEXT

        def page() -> list[str]:
            with cache.preload(names):
                return [piece(number) for number in range(50)]

        return page

    def ucache_page() -> Work:
        cache = module("ucache").RedisCache(connection=redis.Redis(port=server.port))

        def page() -> list[str]:
            with cache.preload(names):
                for name in names:
                    if cache.get(name) is None:
                        cache.set(name, TEXT, 60)
                return [cache.get(name) for name in names]

        return Work("ucache, 50 misses computed and stored", page, RIGHT, reset=reset)

    section = report.compare(
        "A cold page of 50 keys, Redis",
        [
            floor(
                server.port,
                lambda port: make(own.cache(f"redis://{HOST}:{port}/0")),
                trips=2,
                reset=reset,
            ),
            Work(COLD, make(own.cache(server.url)), RIGHT, reset=reset),
            peer(report, "ucache", ucache_page),
        ],
        "The floor is two bare exchanges of the same bytes. Computing the values costs nothing "
        "here.",
    )
    aim = "≤ 1.5 × two bare exchanges of the same bytes"
    report.aim("cold page: 50 misses, computed and stored", aim, 1.5, section, (COLD, "floor"))

"""Fixtures that every test may ask for. A store is tested by naming it once, in `STORES`."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import redis
from hypothesis import HealthCheck, settings

import onetrip
from tests.servers import MemcachedServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from onetrip import Watch
    from tests.servers import Server

# The tests of the pytest plugin run others within this run.
pytest_plugins = ["pytester"]

# A Kyoto Tycoon server, which is rarely packaged. Its database is emptied.
KT_URL = os.environ.get("KT_URL")

# A store brings a fixture `<name>_url`.
STORES = ["memory", "disk", "redis", "memcached", *(["kyoto"] if KT_URL else [])]

# Memcached cannot list its keys, so it cannot remove those of one prefix.
stores_that_clear = pytest.mark.parametrize(
    "store_url", [store for store in STORES if store != "memcached"], indirect=True
)

PREFIX = "test"

_names = itertools.count()

# The machine may be busy with something else, so nothing is measured in seconds. A fixture's store
# may be shared by the examples of one test: they write what they read.
settings.register_profile(
    "onetrip",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("onetrip")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole run. A test that stops or restarts one starts its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis database that nobody uses yet, with its counters at nothing."""
    redis_server.disconnect()
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[MemcachedServer]:
    """One server for the whole run."""
    with MemcachedServer() as server:
        yield server


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn, empty, with its counters at nothing."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    server.flush()
    return server


@pytest.fixture
def memory_url() -> str:
    """A memory that the caches of one test share."""
    return f"memory://test-{next(_names)}"


@pytest.fixture
def disk_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty folder, which does not outlive the test."""
    folder = tmp_path_factory.mktemp("disk")
    yield f"disk://{folder}"
    shutil.rmtree(folder)


@pytest.fixture
def memcached_url(memcached_server: MemcachedServer) -> str:
    """An empty Memcached, with its counters at nothing."""
    memcached_server.flush()
    return memcached_server.url


@pytest.fixture
def kyoto_url() -> str:
    """The database that KT_URL names, empty."""
    assert KT_URL is not None
    cache = onetrip.Cache(KT_URL, on_error="raise")
    cache.clear()
    cache.close()
    return KT_URL


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store in turn, empty. All caches that a test opens on it share its entries."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


class OpenCache(Protocol):
    """The fixture `open_cache`."""

    def __call__(self, **options: Any) -> onetrip.Cache:
        """Open one more cache on the store, under the same prefix unless told otherwise."""


@pytest.fixture
def face() -> type[onetrip.Cache]:
    """The blocking face. A module that tests the asynchronous one as well has its own fixture."""
    return onetrip.Cache


@pytest.fixture
def open_cache(store_url: str, face: type[onetrip.Cache]) -> Iterator[OpenCache]:
    """Opens caches on each store in turn, and closes them."""
    opened: list[onetrip.Cache] = []

    def open_cache(**options: Any) -> onetrip.Cache:
        cache = face(store_url, **{"prefix": PREFIX, **options})
        opened.append(cache)
        return cache

    yield open_cache
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(open_cache: OpenCache) -> onetrip.Cache:
    """A cache on each store in turn."""
    return open_cache()


class Raw(Protocol):
    """The bytes under the full names of entries, past any cache."""

    def __getitem__(self, name: str) -> bytes:
        """Read them; a name that is not there is a KeyError."""

    def __setitem__(self, name: str, entry: bytes) -> None:
        """Write them."""


class _RawRedis:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __getitem__(self, name: str) -> bytes:
        entry = self._client.get(name)
        if entry is None:
            raise KeyError(name)
        assert isinstance(entry, bytes)
        return entry

    def __setitem__(self, name: str, entry: bytes) -> None:
        self._client.set(name, entry)


class _RawMemcached:
    def __init__(self, server: MemcachedServer) -> None:
        self._server = server

    def __getitem__(self, name: str) -> bytes:
        # The second question is answered in two bytes, wherever the answer to the first ends.
        question = f"mg {self._key(name)} v\r\nmn"
        answer = self._server.ask(question, "MN\r\n").removesuffix(b"MN\r\n")
        if answer == b"EN\r\n":
            raise KeyError(name)
        return answer.partition(b"\r\n")[2].removesuffix(b"\r\n")

    def __setitem__(self, name: str, entry: bytes) -> None:
        question = f"ms {self._key(name)} {len(entry)}\r\n".encode() + entry
        self._server.ask(question, "HD\r\n")

    @staticmethod
    def _key(name: str) -> str:
        """What Memcached takes as a key, as docs/format.md tells other programs to make it."""
        if re.fullmatch(r"[!-~]{1,250}", name):
            return name
        return f"onetrip-sha256:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@pytest.fixture
def raw(request: pytest.FixtureRequest, store_url: str) -> Iterator[Raw]:
    """What another program sees of each store in turn: a client of Redis is redis-py."""
    if store_url.startswith("redis"):
        with redis.Redis.from_url(store_url) as client:
            yield _RawRedis(client)
    elif store_url.startswith("memcached"):
        yield _RawMemcached(request.getfixturevalue("memcached_server"))
    else:
        # No other program reads these, and the raw serializer adds nothing.
        yield onetrip.Cache(store_url, serializer="raw")


class ExpectTrips(Protocol):
    """The fixture `expect_trips`."""

    def __call__(self, expected: int, *, posts: int = 0) -> AbstractContextManager[Watch]:
        """Fail unless the block makes so many trips with `cache`, and the server counts them.

        `posts` are writes that nobody waits for. Without a server a store takes them at once.
        """


@pytest.fixture
def expect_trips(
    request: pytest.FixtureRequest, store_url: str, cache: onetrip.Cache
) -> ExpectTrips:
    """Counts trips twice: by our own watch, and by what the server read from its sockets."""

    @contextmanager
    def expect_trips(expected: int, *, posts: int = 0) -> Iterator[Watch]:
        # The handshake of a new connection is no trip, so it is made before the counting.
        assert "no such key" not in cache
        server: RedisServer | MemcachedServer | None = None
        if store_url.startswith(("redis", "memcached")):
            server = request.getfixturevalue(f"{store_url.partition(':')[0]}_server")
        if server is not None:
            server.reset_stats()
        with cache.watch() as seen:
            yield seen
        if server is None:
            sets = [
                trip for trip in seen.records if posts and {op for op, _ in trip.ops} == {"set"}
            ]
            assert (seen.trips - len(sets), sum(map(len, sets))) == (expected, posts), seen.records
            assert seen.posted == 0
            return
        assert (seen.trips, seen.posted) == (expected, posts), seen.records
        counted = server.reads()
        if isinstance(server, MemcachedServer):
            # It has no signed numbers, so that adding to one takes two exchanges: look, and write
            # if nobody else did.
            counted -= sum(trip.ops[0][0] == "incr" for trip in seen.records)
        # What is posted soon after another post is read together with it.
        assert expected <= counted <= expected + posts, seen.records

    return expect_trips

"""Fixtures that every test may ask for. A store is tested by naming it once, in `STORES`."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import redis
from hypothesis import HealthCheck, settings

import onetrip
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from onetrip import Watch

# The tests of the pytest plugin run others within this run.
pytest_plugins = ["pytester"]

# A store that is not in this process brings a fixture `<name>_url`.
STORES = ["memory", "redis"]

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
    """An empty Redis database, with its counters at nothing."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store in turn, empty. All caches that a test opens on it share its entries."""
    if request.param == "memory":
        return f"memory://test-{next(_names)}"
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
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


@pytest.fixture
def raw(store_url: str) -> Iterator[Raw]:
    """What another program sees of each store in turn: a client of Redis is redis-py."""
    if store_url.startswith("redis"):
        with redis.Redis.from_url(store_url) as client:
            yield _RawRedis(client)
    else:
        # Only this process can look into its memory, and the raw serializer adds nothing.
        yield onetrip.Cache(store_url, serializer="raw")


class ExpectTrips(Protocol):
    """The fixture `expect_trips`."""

    def __call__(self, expected: int) -> AbstractContextManager[Watch]:
        """Fail unless the block makes so many trips with `cache`, and the server counts them."""


@pytest.fixture
def expect_trips(
    request: pytest.FixtureRequest, store_url: str, cache: onetrip.Cache
) -> ExpectTrips:
    """Counts trips twice: by our own watch, and by what the server read from its sockets."""

    @contextmanager
    def expect_trips(expected: int) -> Iterator[Watch]:
        # The handshake of a new connection is no trip, so it is made before the counting.
        assert "no such key" not in cache
        server: RedisServer | None = None
        if store_url.startswith("redis"):
            server = request.getfixturevalue("redis_server")
        if server is not None:
            server.reset_stats()
        with cache.watch() as seen:
            yield seen
        counted = seen.trips if server is None else server.reads()
        assert (seen.trips, counted) == (expected, expected), seen.records

    return expect_trips

"""Fixtures that every test may ask for. A store is tested by naming it once, in `STORES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import onetrip
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# A store that is not in this process brings a fixture `<name>_url`.
STORES = ["memory", "redis"]


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
    """Each store in turn, empty."""
    if request.param == "memory":
        return "memory://"
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url


@pytest.fixture
def cache(store_url: str) -> Iterator[onetrip.Cache]:
    """A cache on each store in turn."""
    cache = onetrip.Cache(store_url, prefix="test")
    try:
        yield cache
    finally:
        cache.close()

"""The asynchronous suite over onetrip, and over Django's own Redis backend for comparison."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache.backends.redis import RedisCache

from tests.django.async_suite import CHECKS, Bed

if TYPE_CHECKING:
    from tests.django.conftest import OpenBackend
    from tests.servers import RedisServer

# Where Django's own Redis backend does something else, and what. Its asynchronous methods are
# those of BaseCache: threads around the synchronous ones, and for some of them several trips.
DEVIATIONS = {
    "adding_keeps_the_timeout": "an increment sets the entry anew, with the default timeout",
    "a_part_of_a_second_is_some_time": "timeouts are cut to whole seconds, and none are left",
    "each_of_many_increments_counts": "an increment reads, adds and writes: others are lost",
}


@pytest.mark.parametrize("name", CHECKS)
def test_onetrip_passes_the_check(open_backend: OpenBackend, location: str, name: str) -> None:
    asyncio.run(CHECKS[name](Bed(open_backend, refuses_keys=location.startswith("memcached"))))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", CHECKS)
def test_redis_cache_of_django_passes_unless_listed(redis_server: RedisServer, name: str) -> None:
    redis_server.flush()

    def open_backend(**params: Any) -> RedisCache:
        return RedisCache(redis_server.url, params)

    if name not in DEVIATIONS:
        asyncio.run(CHECKS[name](Bed(open_backend)))
        return
    with pytest.raises((AssertionError, asyncio.TimeoutError)):
        asyncio.run(CHECKS[name](Bed(open_backend, patience=4)))


def test_deviations_name_existing_checks() -> None:
    assert set(DEVIATIONS) <= set(CHECKS)

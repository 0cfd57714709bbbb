"""Pieces for tests: what is fetched here, and whether it is held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onetrip import Cache


def fetch(cache: Cache, name: object = "probe") -> Any:
    """A piece that is its own name, under the key `piece:<name>`."""
    return cache.cached(key="piece:{name}")(lambda name: name)(name)


def is_held(cache: Cache, name: object = "probe") -> bool:
    """Whether a piece is answered here without a trip. From then on it is, in a scope."""
    with cache.watch() as seen:
        assert fetch(cache, name) == name
    return seen.trips == 0


def is_in_a_scope(cache: Cache) -> bool:
    """Whether what is fetched here is held."""
    fetch(cache)
    # While a response is sent, it is held for a tenth of a second, which a machine may be busy for.
    return any(is_held(cache) for _ in range(5))


async def afetch(cache: Cache, name: object = "probe") -> Any:
    """The same as `fetch`, of a coroutine function."""

    @cache.cached(key="piece:{name}")
    async def piece(name: object) -> object:
        await asyncio.sleep(0)
        return name

    return await piece(name)


async def ais_held(cache: Cache, name: object = "probe") -> bool:
    """The same as `is_held`, in a task."""
    with cache.watch() as seen:
        assert await afetch(cache, name) == name
    return seen.trips == 0


async def ais_in_a_scope(cache: Cache) -> bool:
    """The same as `is_in_a_scope`, in a task."""
    await afetch(cache)
    return any([await ais_held(cache) for _ in range(5)])

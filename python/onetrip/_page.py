"""Shared by the middlewares: checks of their caches, and the `Server-Timing` header."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from onetrip._core import Cache
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from onetrip import Watch

# The `cache` argument of a middleware.
Caches: TypeAlias = Cache | Iterable[Cache]

# Request key: the caches whose trips an outer middleware reports.
_TOLD = "onetrip.server_timing"


def several(caches: Any) -> tuple[Cache, ...]:
    """Returns the caches as a tuple. Raises ConfigurationError for anything else."""
    if caches is None:
        msg = (
            "PageMiddleware needs a cache to open scopes of; pass yours: PageMiddleware(app, cache)"
        )
        raise ConfigurationError(msg)
    # A cache has `__getitem__`, so Python takes it for a sequence. Text is one.
    single = isinstance(caches, (Cache, str)) or not isinstance(caches, Iterable)
    listed: tuple[Any, ...] = (caches,) if single else tuple(caches)
    if not listed or not all(isinstance(one, Cache) for one in listed):
        msg = (
            f"PageMiddleware takes an onetrip.Cache, or several in a list, not {caches!r}; "
            "open one with onetrip.Cache(url)"
        )
        raise ConfigurationError(msg)
    return listed


def watches(caches: Sequence[Cache], request: MutableMapping[str, Any]) -> list[Watch]:
    """Returns watches of the caches that no outer middleware of this request reports."""
    told = request.get(_TOLD, ())
    untold = [cache for cache in caches if cache not in told]
    request[_TOLD] = (*told, *untold)
    return [cache.watch() for cache in untold]


def server_timing(watches: Iterable[Watch]) -> str:
    """Returns the value of a `Server-Timing` header: milliseconds, trips and hits."""
    trips = hits = 0
    seconds = 0.0
    for watch in watches:
        trips += watch.trips
        hits += watch.hits
        seconds += sum(trip.seconds for trip in watch.records)
    counts = f"{_count(trips, 'trip')}, {_count(hits, 'hit')}"
    return f'cache;dur={seconds * 1000:.1f};desc="{counts}"'


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""What the middlewares have in common: which caches they serve, and what `Server-Timing` tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from onetrip._core import Cache
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from onetrip import Watch

# What a middleware takes: one cache, or several.
Caches: TypeAlias = Cache | Iterable[Cache]

# Where a request says whose trips a middleware around this one tells already.
_TOLD = "onetrip.server_timing"


def several(caches: Any) -> tuple[Cache, ...]:
    """Return the caches that a middleware was given, and refuse what is none."""
    if caches is None:
        msg = (
            "PageMiddleware has no cache whose scopes it could open; give it yours: "
            "PageMiddleware(app, cache)"
        )
        raise ConfigurationError(msg)
    # A cache has `cache[key]`, so Python would take it for a sequence; and text is one.
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
    """Return watches of those caches whose trips no other middleware of this request tells."""
    told = request.get(_TOLD, ())
    untold = [cache for cache in caches if cache not in told]
    request[_TOLD] = (*told, *untold)
    return [cache.watch() for cache in untold]


def server_timing(watches: Iterable[Watch]) -> str:
    """Return the value of a `Server-Timing` header: the milliseconds of the trips, both counts."""
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

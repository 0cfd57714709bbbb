"""Opens one cache per configuration and process.

Django makes a backend for each thread, and under ASGI for each task. Connections, scopes and
counters outlive these, so all backends of one configuration share one `onetrip.Cache`.
"""

from __future__ import annotations

import inspect
from threading import Lock
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

import onetrip

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

# Names allowed in OPTIONS. The URL is LOCATION and the timeout is TIMEOUT.
OPTIONS = [
    name for name in inspect.signature(onetrip.Cache).parameters if name not in ("url", "timeout")
]

# Options of Django's own backends and of onetrip.Cache, and what replaces them here.
_ELSEWHERE = {
    "timeout": "set TIMEOUT, beside OPTIONS",
    "url": "set LOCATION, beside OPTIONS",
    "MAX_ENTRIES": 'a store is bounded by bytes, as in LOCATION "memory://?size=64MiB"',
    "CULL_FREQUENCY": "a full store evicts entries by itself",
}

_lock = Lock()
_opened: dict[Hashable, onetrip.Cache] = {}


def cache(url: str, timeout: float | None, options: Mapping[str, Any]) -> onetrip.Cache:
    """Returns this process's cache of a configuration. Nothing connects before its first trip.

    Raises ImproperlyConfigured for an unknown URL scheme or option. The message lists the known
    ones.
    """
    _check(options)
    given = dict(options)
    given.setdefault("serializer", "pickle")
    if given["serializer"] == "pickle" and given.get("secret") is None:
        given["secret"] = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    key = (url, timeout, *sorted((name, _frozen(value)) for name, value in given.items()))
    with _lock:
        found = _opened.get(key)
        if found is None:
            try:
                found = onetrip.Cache(url, timeout=timeout, **given)
            except onetrip.ConfigurationError as error:
                msg = f"an alias in CACHES is wrong: {error}"
                raise ImproperlyConfigured(msg) from error
            _opened[key] = found
    return found


def _check(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            hint = f" ({_ELSEWHERE[name]})" if name in _ELSEWHERE else ""
            known = ", ".join(OPTIONS)
            msg = f"OPTIONS of onetrip.django.Cache has no {name!r}{hint}; it has {known}"
            raise ImproperlyConfigured(msg)


def _frozen(value: object) -> Hashable:
    """Returns a hashable form of an option's value, equal for equal values."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(part) for part in value)
    # 1, 1.0 and True are equal but different options.
    return type(value).__name__, repr(value)

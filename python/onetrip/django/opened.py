"""The caches that this process has open: one for each configuration.

Django makes a backend for each thread, and under ASGI for each task. Connections, scopes and
counters belong to none of these, so all backends of one configuration share one `onetrip.Cache`.
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

# What OPTIONS may hold: the options of a cache but its URL, which is LOCATION, and its timeout,
# which is TIMEOUT.
OPTIONS = [
    name for name in inspect.signature(onetrip.Cache).parameters if name not in ("url", "timeout")
]

# What Django's own backends are told in OPTIONS, and where it is said here.
_ELSEWHERE = {
    "timeout": "say it as TIMEOUT, beside OPTIONS",
    "url": "say it as LOCATION, beside OPTIONS",
    "MAX_ENTRIES": 'a store is bounded by bytes, as in LOCATION "memory://?size=64MiB"',
    "CULL_FREQUENCY": "a store that is full removes by itself what is least useful",
}

_lock = Lock()
_opened: dict[Hashable, onetrip.Cache] = {}


def cache(url: str, timeout: float | None, options: Mapping[str, Any]) -> onetrip.Cache:
    """Return this process's cache of a configuration. Nothing connects until its first trip.

    Raises ImproperlyConfigured if the URL or an option is not known; the message names those that
    are.
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
                msg = f"an alias in CACHES cannot work: {error}"
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
    """Return what tells a value of an option from others: equal ones alike."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(part) for part in value)
    # 1, 1.0 and True are equal and yet not the same option.
    return type(value).__name__, repr(value)

"""Every call of a cache that is about a key, for tests of what all of them have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from onetrip import Cache

# Calls that take many keys are given one that is right before the one in question.
CALLS: dict[str, Callable[[Cache, Any], object]] = {
    "get": lambda cache, key: cache.get(key),
    "getitem": lambda cache, key: cache[key],
    "contains": lambda cache, key: key in cache,
    "get_many": lambda cache, key: cache.get_many(["a", key]),
    "set": lambda cache, key: cache.set(key, 1),
    "setitem": lambda cache, key: cache.__setitem__(key, 1),
    "set_many": lambda cache, key: cache.set_many([("a", 1), (key, 1)]),
    "add": lambda cache, key: cache.add(key, 1),
    "get_or_set": lambda cache, key: cache.get_or_set(key, 1),
    "incr": lambda cache, key: cache.incr(key),
    "decr": lambda cache, key: cache.decr(key),
    "touch": lambda cache, key: cache.touch(key, 60),
    "touch_many": lambda cache, key: cache.touch_many(["a", key], 60),
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many(["a", key]),
}

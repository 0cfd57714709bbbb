"""A cachelib cache over onetrip, for Flask-Caching, Flask-Session and other users of cachelib.

    cache = OneTripCache("redis://127.0.0.1:6379/0", key_prefix="blog", default_timeout=60)

It follows cachelib: a timeout of 0 never expires, `None` is the default timeout, `get_many` takes
positional arguments and returns a list, and `inc` creates a missing number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachelib import BaseCache

from onetrip._core import Cache
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["OneTripCache"]


class OneTripCache(BaseCache):
    """Wraps `cache`: an `onetrip.Cache`, or a URL to open with `options`.

    `default_timeout` is in seconds. `key_prefix` is the cache's `prefix`; `clear` deletes only keys
    under it. Objects that cachelib's own caches pickle need `serializer="pickle"` and a `secret`.
    """

    def __init__(
        self,
        cache: Cache | str | None = None,
        default_timeout: int | timedelta = 300,
        key_prefix: str | None = None,
        ignore_delete_many_errors: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout)
        # Older releases of cachelib do not set it. `delete_many` never fails here.
        self.ignore_delete_many_errors = ignore_delete_many_errors
        if isinstance(cache, Cache):
            if options or key_prefix:
                msg = "an onetrip.Cache has its own options and prefix; pass them where it is made"
                raise ConfigurationError(msg)
            self.cache = cache
            return
        if cache is not None:
            options["url"] = cache
        if key_prefix:
            options["prefix"] = key_prefix
        self.cache = Cache(**options)

    def _lifetime(self, timeout: int | timedelta | None) -> int | None:
        """Returns seconds for onetrip, where `None` never expires."""
        return self._normalize_timeout(timeout) or None

    def get(self, key: str) -> Any:
        """Returns the value of `key`, or `None` if it is missing."""
        return self.cache.get(key)

    def get_many(self, *keys: str) -> list[Any]:
        """Returns the values of `keys` in order, `None` for missing ones. One trip."""
        found = self.cache.get_many(keys)
        return [found.get(key) for key in keys]

    def has(self, key: str) -> bool:
        """Returns whether `key` has a value. `None` is a value."""
        return key in self.cache

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Stores `value`. Returns True; a failed write is counted in the cache's stats."""
        self.cache.set(key, value, self._lifetime(timeout))
        return True

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Stores `value` if `key` is absent. Returns True if it was stored."""
        return self.cache.add(key, value, self._lifetime(timeout))

    def set_many(
        self, mapping: dict[str, Any], timeout: int | timedelta | None = None
    ) -> list[Any]:
        """Stores many values in one trip. Returns their keys."""
        self.cache.set_many(mapping, self._lifetime(timeout))
        return list(mapping)

    def delete(self, key: str) -> bool:
        """Deletes `key`. Returns True if it existed."""
        return self.cache.delete(key)

    def delete_many(self, *keys: str) -> list[Any]:
        """Deletes many keys in one trip. Returns all of them: none exists any more."""
        self.cache.delete_many(keys)
        return list(keys)

    def clear(self) -> bool:
        """Deletes every key under this prefix."""
        self.cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Adds `delta` to a number, from 0 if it is missing. Returns `None` if the store failed."""
        for _ in range(2):
            try:
                return self.cache.incr(key, delta)
            except KeyError:
                if self.add(key, delta):
                    return delta
            # Another process created it first: add to that.
        return None

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtracts `delta` from a number, as `inc` adds."""
        return self.inc(key, -delta)

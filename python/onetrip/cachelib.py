"""A cachelib cache over onetrip, for Flask-Caching, Flask-Session and others that take one.

    cache = OneTripCache("redis://127.0.0.1:6379/0", key_prefix="blog", default_timeout=60)

It speaks cachelib's language: a timeout of zero is for ever and `None` is the default one, many
keys are positional arguments and their values a list, and `inc` makes a number that is missing.
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
    """The cachelib face of `cache`: an `onetrip.Cache`, or the URL that it opens with `options`.

    `key_prefix` is the cache's `prefix`; `clear` removes these keys alone. Its serializer is
    onetrip's: what cachelib's own caches would pickle needs `serializer="pickle"` and a `secret`.
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
        # Older releases of cachelib have no such attribute. Here no key fails to be deleted.
        self.ignore_delete_many_errors = ignore_delete_many_errors
        if isinstance(cache, Cache):
            if options or key_prefix:
                msg = "an onetrip.Cache has its options and its prefix; give them where it is made"
                raise ConfigurationError(msg)
            self.cache = cache
            return
        if cache is not None:
            options["url"] = cache
        if key_prefix:
            options["prefix"] = key_prefix
        self.cache = Cache(**options)

    def _lifetime(self, timeout: int | timedelta | None) -> int | None:
        """Return seconds as onetrip has them, where `None` is for ever."""
        return self._normalize_timeout(timeout) or None

    def get(self, key: str) -> Any:
        """Return the value of `key`, or `None`."""
        return self.cache.get(key)

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of `keys` in their order, `None` for the missing, in one trip."""
        found = self.cache.get_many(keys)
        return [found.get(key) for key in keys]

    def has(self, key: str) -> bool:
        """Tell whether `key` has a value, which may be `None`."""
        return key in self.cache

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store `value`; true, for a write that the store misses is counted there."""
        self.cache.set(key, value, self._lifetime(timeout))
        return True

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store `value` if `key` has none; whether it did."""
        return self.cache.add(key, value, self._lifetime(timeout))

    def set_many(
        self, mapping: dict[str, Any], timeout: int | timedelta | None = None
    ) -> list[Any]:
        """Store many values in one trip; their keys."""
        self.cache.set_many(mapping, self._lifetime(timeout))
        return list(mapping)

    def delete(self, key: str) -> bool:
        """Remove `key`; whether it was there."""
        return self.cache.delete(key)

    def delete_many(self, *keys: str) -> list[Any]:
        """Remove many keys in one trip; all of them, for none is there any more."""
        self.cache.delete_many(keys)
        return list(keys)

    def clear(self) -> bool:
        """Remove every key of this prefix."""
        self.cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add `delta` to a number, which is zero if it is missing; `None` if the store failed."""
        for _ in range(2):
            try:
                return self.cache.incr(key, delta)
            except KeyError:
                if self.add(key, delta):
                    return delta
            # Somebody else made it meanwhile.
        return None

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtract `delta` from a number; otherwise as `inc`."""
        return self.inc(key, -delta)

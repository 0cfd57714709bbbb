"""The cache backend: Django's API over an `onetrip.Cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    BaseCache,
    InvalidCacheKey,
    memcache_key_warnings,
)

from onetrip.django import location as locations
from onetrip.django import opened
from onetrip.django.errors import of_adding, of_writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onetrip

__all__ = ["Cache"]

_MISSING = object()

# Prefix of the keys of Django's own `{% cache %}`.
_FRAGMENT = "template.cache."


def _is_fragment(key: object) -> bool:
    """Returns whether `key` is a fragment's. Fragments are pieces; all else is state."""
    return isinstance(key, str) and key.startswith(_FRAGMENT)


class Cache(BaseCache):
    """Caches in any store of onetrip.

    CACHES = {"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": "redis://127.0.0.1:6379/0"}}

    LOCATION is the URL of a store, or a list of its servers. TIMEOUT (seconds), KEY_PREFIX, VERSION
    and KEY_FUNCTION are Django's. OPTIONS holds options of `onetrip.Cache`.

    Objects that are not plain data, such as model instances, are pickled. Entries are signed with
    SECRET_KEY; entries signed with SECRET_KEY_FALLBACKS are read too.
    """

    #: The cache behind this backend, shared by all threads. This backend's `key` is its
    #: `make_key(key)`; its own keys have neither version nor KEY_PREFIX.
    onetrip: onetrip.Cache

    def __init__(self, location: str | Sequence[str], params: dict[str, Any]) -> None:
        super().__init__(params)
        url = locations.store_url(location)
        self._is_memcached = locations.is_memcached(url)
        self.onetrip = opened.cache(url, self.default_timeout, params.get("OPTIONS", {}))

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> Any:
        """Returns the timeout in seconds, or `None` to keep the entry until it is evicted."""
        return self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout

    def validate_key(self, key: str) -> None:
        """Warns of keys that Memcached would refuse. Raises InvalidCacheKey if it is the store.

        onetrip itself accepts any string; this keeps programs portable to other backends.
        """
        if not self._is_memcached:
            super().validate_key(key)
            return
        for warning in memcache_key_warnings(key):
            raise InvalidCacheKey(warning)

    def _keys(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        """Returns the keys by their names in the onetrip cache."""
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    def _entries(self, data: Mapping[Any, Any], version: int | None) -> dict[str, Any]:
        make_key = self.make_and_validate_key
        return {make_key(key, version=version): value for key, value in data.items()}

    def _may_have_failed(self, errors: int, timeout: Any) -> bool:
        """Returns whether errors were counted since, so that entries may be missing."""
        life = self.get_backend_timeout(timeout)
        return self.onetrip.stats().errors > errors and (life is None or life > 0)

    def _absent(self, data: Mapping[Any, Any], version: int | None, found: object) -> list[Any]:
        # The errors may come from another thread: check what is stored.
        there: Any = found
        return [key for key in data if self.make_key(key, version=version) not in there]

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Returns the value of `key`, or `default` if it is missing."""
        name = self.make_and_validate_key(key, version=version)
        if _is_fragment(key):
            return self.onetrip._piece_get(name, default)  # noqa: SLF001 - of this package
        return self.onetrip.get(name, default)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """See `get`."""
        name = self.make_and_validate_key(key, version=version)
        if _is_fragment(key):
            return await self.onetrip._apiece_get(name, default)  # noqa: SLF001 - of this package
        return await self.onetrip.aget(name, default)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Returns a dict of the `keys` that were found, in one trip."""
        names = self._keys(keys, version)
        found = self.onetrip.get_many(names)
        return {names[name]: value for name, value in found.items()}

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """See `get_many`."""
        names = self._keys(keys, version)
        found = await self.onetrip.aget_many(names)
        return {names[name]: value for name, value in found.items()}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Returns whether `key` has a value. `None` is a value."""
        return self.make_and_validate_key(key, version=version) in self.onetrip

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """See `has_key`."""
        key = self.make_and_validate_key(key, version=version)
        return await self.onetrip.aget(key, _MISSING) is not _MISSING

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Stores `value` under `key`. Waits for the store, except for fragments."""
        name = self.make_and_validate_key(key, version=version)
        with of_writing():
            if _is_fragment(key):
                timeout = self.get_backend_timeout(timeout)
                self.onetrip._piece_set(name, value, timeout)  # noqa: SLF001 - of this package
            else:
                self.onetrip.set(name, value, self.get_backend_timeout(timeout))

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """See `set`."""
        name = self.make_and_validate_key(key, version=version)
        with of_writing():
            if _is_fragment(key):
                timeout = self.get_backend_timeout(timeout)
                await self.onetrip._apiece_set(name, value, timeout)  # noqa: SLF001 - of this package
            else:
                await self.onetrip.aset(name, value, self.get_backend_timeout(timeout))

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Stores many values in one trip. Returns the keys that could not be stored."""
        entries = self._entries(data, version)
        errors = self.onetrip.stats().errors
        with of_writing():
            self.onetrip.set_many(entries, self.get_backend_timeout(timeout))
        if not self._may_have_failed(errors, timeout):
            return []
        return self._absent(data, version, self.onetrip.get_many(entries))

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """See `set_many`."""
        entries = self._entries(data, version)
        errors = self.onetrip.stats().errors
        with of_writing():
            await self.onetrip.aset_many(entries, self.get_backend_timeout(timeout))
        if not self._may_have_failed(errors, timeout):
            return []
        return self._absent(data, version, await self.onetrip.aget_many(entries))

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Stores `value` if `key` is absent. Returns True if it was stored."""
        key = self.make_and_validate_key(key, version=version)
        with of_writing():
            return self.onetrip.add(key, value, self.get_backend_timeout(timeout))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See `add`."""
        key = self.make_and_validate_key(key, version=version)
        with of_writing():
            return await self.onetrip.aadd(key, value, self.get_backend_timeout(timeout))

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Returns the value of `key`. On a miss, stores `default` and returns it.

        A callable default is called on a miss, without arguments. If another process stores a value
        first, that value is kept and returned. In a scope the value may be `scope_max_age` old.
        """
        key = self.make_and_validate_key(key, version=version)
        with of_writing():
            return self.onetrip.get_or_set(key, default, self.get_backend_timeout(timeout))

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """See `get_or_set`; a callable default may return an awaitable."""
        key = self.make_and_validate_key(key, version=version)
        with of_writing():
            return await self.onetrip.aget_or_set(key, default, self.get_backend_timeout(timeout))

    def fresh(self) -> None:
        """Drops the plain answers held by the current page. The next plain read asks the store.

        Transactions and row locks do this by themselves.
        """
        self.onetrip.fresh()

    def fragment(self, key: str, timeout: Any, render: Callable[[], str]) -> str:
        """Returns the fragment under `key`, a key of Django's own form, or renders and stores it.

        Storing is not waited for. Threads that miss a fragment together render it once.
        """
        name = self.make_and_validate_key(key)
        with of_writing():
            return self.onetrip._fetch(name, timeout, render)  # noqa: SLF001 - of this package

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Gives the entry of `key` a new timeout, counted from now. Returns True if it exists."""
        key = self.make_and_validate_key(key, version=version)
        return self.onetrip.touch(key, self.get_backend_timeout(timeout))

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See `touch`."""
        key = self.make_and_validate_key(key, version=version)
        return await self.onetrip.atouch(key, self.get_backend_timeout(timeout))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Adds `delta` to the integer under `key`, atomically. Returns the sum.

        Raises ValueError if the key is missing, TypeError if the entry holds no integer.
        """
        name = self.make_and_validate_key(key, version=version)
        with of_adding(key):
            return self.onetrip.incr(name, delta)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See `incr`."""
        name = self.make_and_validate_key(key, version=version)
        with of_adding(key):
            return await self.onetrip.aincr(name, delta)

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Deletes the entry of `key`. Returns True if there was one."""
        return self.onetrip.delete(self.make_and_validate_key(key, version=version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """See `delete`."""
        return await self.onetrip.adelete(self.make_and_validate_key(key, version=version))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Deletes many entries in one trip."""
        self.onetrip.delete_many(self._keys(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """See `delete_many`."""
        await self.onetrip.adelete_many(self._keys(keys, version))

    def clear(self) -> None:
        """Deletes everything in the store, as Django's own backends do.

        With the option `prefix`, deletes only entries under it.
        """
        self.onetrip.clear()

    async def aclear(self) -> None:
        """See `clear`."""
        await self.onetrip.aclear()

    def close(self, **kwargs: Any) -> None:
        """Does nothing: Django calls this after each request, and connections stay open."""

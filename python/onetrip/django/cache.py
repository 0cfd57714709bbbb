"""The cache backend: Django's names for what a cache of onetrip does."""

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

# What the keys of Django's own `{% cache %}` begin with.
_FRAGMENT = "template.cache."


def _is_fragment(key: object) -> bool:
    """Whether a key is that of a fragment, which is a piece of a page and no state."""
    return isinstance(key, str) and key.startswith(_FRAGMENT)


class Cache(BaseCache):
    """A cache backend over any store of onetrip.

    CACHES = {"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": "redis://127.0.0.1:6379/0"}}

    LOCATION is the URL of a store, or several that are the servers of one. TIMEOUT, KEY_PREFIX,
    VERSION and KEY_FUNCTION are Django's; OPTIONS holds options of `onetrip.Cache`.

    Values that are more than data, such as instances of models, are pickled. Entries are signed
    with SECRET_KEY; what SECRET_KEY_FALLBACKS signed is read as well.
    """

    #: The cache behind this backend, the same in all threads. Its keys have no version and no
    #: KEY_PREFIX; those of this backend are `make_key(key)` to it.
    onetrip: onetrip.Cache

    def __init__(self, location: str | Sequence[str], params: dict[str, Any]) -> None:
        super().__init__(params)
        url = locations.store_url(location)
        self._is_memcached = locations.is_memcached(url)
        self.onetrip = opened.cache(url, self.default_timeout, params.get("OPTIONS", {}))

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> Any:
        """Seconds to live, or `None` for ever: what the cache of onetrip is told."""
        return self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout

    def validate_key(self, key: str) -> None:
        """Warn of keys that Memcached would not take; where it is the store, refuse them.

        The store itself would take any: this keeps a program fit for other backends.
        """
        if not self._is_memcached:
            super().validate_key(key)
            return
        for warning in memcache_key_warnings(key):
            raise InvalidCacheKey(warning)

    def _keys(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        """Return each key by the name that the cache of onetrip knows it by."""
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    def _entries(self, data: Mapping[Any, Any], version: int | None) -> dict[str, Any]:
        make_key = self.make_and_validate_key
        return {make_key(key, version=version): value for key, value in data.items()}

    def _may_have_failed(self, errors: int, timeout: Any) -> bool:
        """Whether there are more errors than before, and entries that ought to be there."""
        life = self.get_backend_timeout(timeout)
        return self.onetrip.stats().errors > errors and (life is None or life > 0)

    def _absent(self, data: Mapping[Any, Any], version: int | None, found: object) -> list[Any]:
        # The errors may be those of another thread, so what counts is what is there.
        there: Any = found
        return [key for key in data if self.make_key(key, version=version) not in there]

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value of `key`, or `default` if there is none."""
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
        """Return a dict of those of `keys` that were found, read in one trip."""
        names = self._keys(keys, version)
        found = self.onetrip.get_many(names)
        return {names[name]: value for name, value in found.items()}

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """See `get_many`."""
        names = self._keys(keys, version)
        found = await self.onetrip.aget_many(names)
        return {names[name]: value for name, value in found.items()}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether there is a value of `key`, were it `None`."""
        return self.make_and_validate_key(key, version=version) in self.onetrip

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """See `has_key`."""
        key = self.make_and_validate_key(key, version=version)
        return await self.onetrip.aget(key, _MISSING) is not _MISSING

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store `value` under `key`. It is there when this returns, unless it is a fragment's."""
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
        """Store many values, in one trip; the keys of those that could not be stored."""
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
        """Store `value` under `key` if there is none, at once; True if there was none."""
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
        """Return the value of `key`; where there is none, `default`, which is then stored.

        A callable default is called on a miss, with no arguments. If another process stored a value
        meanwhile, that one is kept and returned. In a scope the value may be `scope_max_age` old.
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
        """End what the running page holds of plain answers: there was news from elsewhere.

        Beginning or ending a transaction and taking a row lock do it by themselves.
        """
        self.onetrip.fresh()

    def fragment(self, key: str, timeout: Any, render: Callable[[], str]) -> str:
        """Return the fragment under `key`, of Django's own form, or what `render()` gives.

        That is stored without waiting for it. Threads that miss a fragment together render it once.
        """
        name = self.make_and_validate_key(key)
        with of_writing():
            return self.onetrip._fetch(name, timeout, render)  # noqa: SLF001 - of this package

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give the entry of `key` a new timeout, counted from now; True if there was one."""
        key = self.make_and_validate_key(key, version=version)
        return self.onetrip.touch(key, self.get_backend_timeout(timeout))

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See `touch`."""
        key = self.make_and_validate_key(key, version=version)
        return await self.onetrip.atouch(key, self.get_backend_timeout(timeout))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` to the integer under `key`, at once and whoever else does; the new number.

        Raises ValueError if there is no entry, and TypeError if it holds no integer.
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
        """Remove the entry of `key`, at once; True if there was one."""
        return self.onetrip.delete(self.make_and_validate_key(key, version=version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """See `delete`."""
        return await self.onetrip.adelete(self.make_and_validate_key(key, version=version))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Remove many entries, in one trip."""
        self.onetrip.delete_many(self._keys(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """See `delete_many`."""
        await self.onetrip.adelete_many(self._keys(keys, version))

    def clear(self) -> None:
        """Remove everything from the store, as Django's own backends do.

        With an option `prefix`, remove what is under it alone.
        """
        self.onetrip.clear()

    async def aclear(self) -> None:
        """See `clear`."""
        await self.onetrip.aclear()

    def close(self, **kwargs: Any) -> None:
        """Do nothing: Django calls this after each request, and connections are to stay warm."""

"""The asynchronous face of a cache as if it were the blocking one, so that one suite tests both."""

from __future__ import annotations

import asyncio
from asyncio import events
from typing import TYPE_CHECKING, Any

from onetrip import Cache

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Self

_loop = asyncio.new_event_loop()


def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive `coroutine` as a task would, but in the context of the caller and not in a copy."""
    # What computes on a miss may wait within a wait.
    outer = events._get_running_loop()
    try:
        return _driven(coroutine)
    finally:
        events._set_running_loop(outer)


def _driven(coroutine: Coroutine[Any, Any, Any]) -> Any:
    waited: asyncio.Future[Any] | None = None
    while True:
        events._set_running_loop(_loop)
        try:
            error = None if waited is None else waited.exception()
            waited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        finally:
            events._set_running_loop(None)
        assert waited is not None
        waited._asyncio_future_blocking = False
        _loop.run_until_complete(asyncio.wait([waited]))


class AwaitedScope:
    """A scope that `async with` enters."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    def __enter__(self) -> Self:
        assert wait(self.scope.__aenter__()) is self.scope
        return self

    def __exit__(self, *exception: object) -> None:
        wait(self.scope.__aexit__(*exception))


class Awaited(Cache):
    """A cache whose every trip is made by an `a`-twin."""

    def get(self, key: Any, default: Any = None) -> Any:
        return wait(self.aget(key, default))

    def __getitem__(self, key: Any) -> Any:
        missing = object()
        value = wait(self.aget(key, missing))
        if value is missing:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: object) -> None:
        wait(self.aset(key, value))

    def __contains__(self, key: Any) -> bool:
        missing = object()
        return wait(self.aget(key, missing)) is not missing

    def get_many(self, keys: Any) -> Any:
        return wait(self.aget_many(keys))

    def set(self, *args: Any, **kwargs: Any) -> None:
        assert wait(self.aset(*args, **kwargs)) is None

    def set_many(self, *args: Any, **kwargs: Any) -> None:
        assert wait(self.aset_many(*args, **kwargs)) is None

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return wait(self.aadd(*args, **kwargs))

    def get_or_set(self, *args: Any, **kwargs: Any) -> Any:
        return wait(self.aget_or_set(*args, **kwargs))

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        return wait(self.aincr(*args, **kwargs))

    def decr(self, *args: Any, **kwargs: Any) -> Any:
        return wait(self.adecr(*args, **kwargs))

    def touch(self, *args: Any) -> Any:
        return wait(self.atouch(*args))

    def touch_many(self, *args: Any) -> Any:
        return wait(self.atouch_many(*args))

    def delete(self, key: Any) -> Any:
        return wait(self.adelete(key))

    def delete_many(self, keys: Any) -> Any:
        return wait(self.adelete_many(keys))

    def clear(self) -> Any:
        return wait(self.aclear())

    def close(self) -> None:
        assert wait(self.aclose()) is None

    def preload(self, *keys: Any) -> Any:
        return AwaitedScope(super().preload(*keys))

    def scope(self, *, max_age: Any = None) -> Any:
        return AwaitedScope(super().scope(max_age=max_age))

    def page(self, name: Any, /, **args: Any) -> Any:
        return AwaitedScope(super().page(name, **args))

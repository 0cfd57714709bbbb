"""Records the calls of the backend in a request, while the panel is enabled."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.cache import caches

from onetrip.django.cache import Cache
from onetrip.django.callers import caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READS = ["get", "get_many", "has_key", "get_or_set"]
WRITES = ["set", "set_many", "add", "touch", "incr", "delete", "delete_many", "clear"]

_MISSING = object()


@dataclass
class Call:
    """One call of the backend."""

    method: str
    alias: str
    keys: list[str]
    place: str
    #: Code that makes the key, if it is a fragment's.
    fragment: str | None
    hits: int = 0
    trips: int = 0

    @property
    def reads(self) -> bool:
        """Whether the call asks for values."""
        return self.method in READS


#: The calls of the current request, if its panel is enabled.
calls: ContextVar[list[Call] | None] = ContextVar("onetrip_calls", default=None)


def instrument() -> None:
    """Makes the backend record its calls. A second call does nothing. Cheap without a panel."""
    if hasattr(Cache.get, "__wrapped__"):
        return
    for name in READS + WRITES:
        method, amethod = getattr(Cache, name), getattr(Cache, f"a{name}")
        setattr(Cache, name, _telling(name, method))
        setattr(Cache, f"a{name}", _atelling(name, amethod))


def _telling(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        told = calls.get()
        if told is None:
            return method(*args, **kwargs)
        asked = _Asked(name, method, args, kwargs)
        with asked.noted(told):
            value = method(*asked.args, **asked.kwargs)
        return asked.answer(value)

    return wrapper


def _atelling(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def tell(told: list[Call], asked: _Asked) -> Any:
        with asked.noted(told):
            value = await method(*asked.args, **asked.kwargs)
        return asked.answer(value)

    # Not a coroutine function: the caller is known at the call, not at the await.
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        told = calls.get()
        if told is None:
            return method(*args, **kwargs)
        return tell(told, _Asked(name, method, args, kwargs))

    return wrapper


class _Asked:
    """A call about to be made. Its arguments are changed so that a hit can be recognized."""

    def __init__(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        bound = inspect.signature(method).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        self._cache: Cache = given["self"]
        self._default = given.get("default")
        self._computed = False
        if "keys" in given:
            # An iterator can be read once.
            given["keys"] = list(given["keys"])
        if name == "get":
            given["default"] = _MISSING
        elif name == "get_or_set":
            given["default"] = self._compute
        self.args, self.kwargs = bound.args, bound.kwargs
        keys = given.get("keys", given.get("data", [given["key"]] if "key" in given else []))
        version = given.get("version")
        suffix = "" if version in (None, self._cache.version) else f" (version {version})"
        place, fragment = caller()
        shown = [f"{key}{suffix}" for key in keys]
        self._call = Call(name, _alias(self._cache), shown, place, fragment)

    def _compute(self) -> Any:
        self._computed = True
        return self._default() if callable(self._default) else self._default

    @contextmanager
    def noted(self, told: list[Call]) -> Iterator[None]:
        """Records the call, and counts its trips."""
        told.append(self._call)
        with self._cache.onetrip.watch() as seen:
            try:
                yield
            finally:
                self._call.trips = seen.trips

    def answer(self, value: Any) -> Any:
        """Counts the hits. Returns the value for the caller."""
        call = self._call
        if call.method == "get":
            call.hits = int(value is not _MISSING)
            return self._default if value is _MISSING else value
        if call.method == "get_or_set":
            call.hits = int(not self._computed)
        elif call.method == "get_many":
            call.hits = len(value)
        elif call.method == "has_key":
            call.hits = int(value)
        return value


def _alias(cache: Cache) -> str:
    """Returns the alias of a backend, or "" if it is not one of this thread or task."""
    # `caches[alias]` would create backends that nobody uses.
    made = caches._connections  # type: ignore[attr-defined] # noqa: SLF001
    return next((name for name in caches.settings if getattr(made, name, None) is cache), "")

"""Keys from the signatures of functions: what only Python can tell of them."""

from __future__ import annotations

import inspect
import string
import sys
from typing import TYPE_CHECKING, Any

from onetrip._core import digest, stable_text
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    # What makes a key of the positional and keyword arguments of a call.
    KeyMaker: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], str]


def check(function: object, *, named: bool) -> bool:
    """Refuse what cannot be cached: anything but a function that returns its result.

    Return whether that result is to be awaited. Unless its key is given whole, a function is known
    by its name, which a lambda lacks.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        msg = f"put @{kind} above the caching decorator, not below it"
        raise ConfigurationError(msg)
    if isinstance(function, property):
        msg = "a property cannot be cached; use cache.cached_property instead of both"
        raise ConfigurationError(msg)
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__name__"):
        msg = f"{function!r} is not a function with a name; decorate one that is written with def"
        raise ConfigurationError(msg)
    if not named and function.__name__ == "<lambda>":
        msg = "a lambda has no name to make keys of; write it with def, or give cached() a key="
        raise ConfigurationError(msg)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{_name(function)} is a generator, used up once; return a list instead"
        raise ConfigurationError(msg)
    is_coroutine_function = inspect.iscoroutinefunction(function)
    if is_coroutine_function:
        _mark_coroutine_function(function)
    return is_coroutine_function


def _mark_coroutine_function(function: Callable[..., Any]) -> None:
    """Let frameworks see that a cached `function`, itself no function any more, is to be awaited.

    What is cached has the attributes of its function, and so this mark.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        # Not for those who only import onetrip: asyncio takes longer to load than all of it.
        import asyncio.coroutines  # noqa: PLC0415

        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001


def key_maker(function: Callable[..., Any], key: str | None) -> KeyMaker:
    """Return what makes a key of a call's positional and keyword arguments.

    With a format, `"note:{note.id}"`, its fields are the arguments by name. Without one, the key
    is the function's module and name and a digest of all arguments, so that `f(1)` and `f(x=1)`
    share it. A function within another one is known by its name alone: what it closes over is not
    part of the key.
    """
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        msg = f"{_name(function)} does not tell its arguments ({error}); give cached() a key_fn="
        raise ConfigurationError(msg) from error
    if key is not None:
        _check_format(function, signature, key)

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    if key is not None:
        formatter = _StableFormatter()
        return lambda args, kwargs: formatter.vformat(key, (), arguments(args, kwargs))
    name = _name(function)
    return lambda args, kwargs: f"{name}:{digest(arguments(args, kwargs))}"


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


class _StableFormatter(string.Formatter):
    """Formats as `str.format` does, and refuses what has another text in each process."""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        stable_text(value)
        return super().convert_field(value, conversion)


def _fields(key: str) -> Iterator[tuple[str, str | None]]:
    """Yield the fields of a format with their conversions, those within other fields as well."""
    for _, field, specification, conversion in string.Formatter().parse(key):
        if field is not None:
            yield field, conversion
            yield from _fields(specification or "")


def _check_format(function: Callable[..., Any], signature: inspect.Signature, key: str) -> None:
    parameters = list(signature.parameters)
    has = ", ".join(parameters) or "none"
    advice = f"name arguments of {_name(function)} in braces (it has {has}), as in 'note:{{id}}'"
    try:
        fields = list(_fields(key))
    except ValueError as error:
        msg = f"key={key!r} is not a format ({error}); {advice}"
        raise ConfigurationError(msg) from error
    if not fields and parameters:
        msg = f"key={key!r} names no argument, so all calls would share one result; {advice}"
        raise ConfigurationError(msg)
    for field, conversion in fields:
        root = field.split(".")[0].split("[")[0]
        if root not in parameters:
            msg = f"key={key!r} names {root!r}, which is no argument; {advice}"
            raise ConfigurationError(msg)
        if conversion not in (None, "s", "r", "a"):
            msg = f"key={key!r} has the conversion !{conversion}; there are !s, !r and !a"
            raise ConfigurationError(msg)

"""Keys from the signatures of functions: what only Python can tell of them."""

from __future__ import annotations

import inspect
import string
from typing import TYPE_CHECKING, Any

from onetrip._core import digest
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    # What makes a key of the positional and keyword arguments of a call.
    KeyMaker: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], str]


def check(function: object) -> None:
    """Refuse what cannot be cached: anything but a function that returns its result."""
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        msg = f"put @{kind} above the caching decorator, not below it"
        raise ConfigurationError(msg)
    if not callable(function) or isinstance(function, type):
        msg = f"{function!r} is not a function; decorate a function or a method"
        raise ConfigurationError(msg)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{_name(function)} is asynchronous; cached() takes blocking functions only, as yet"
        raise ConfigurationError(msg)
    if inspect.isgeneratorfunction(function):
        msg = (
            f"{_name(function)} is a generator, whose items are used up once; return a list instead"
        )
        raise ConfigurationError(msg)


def key_maker(function: Callable[..., Any], key: str | None) -> KeyMaker:
    """Return what makes a key of a call's positional and keyword arguments.

    With a format, `"note:{note.id}"`, its fields are the arguments by name. Without one, the key
    is the function's module and name and a digest of all arguments, so that `f(1)` and `f(x=1)`
    share it.
    """
    signature = inspect.signature(function)
    if key is not None:
        _check_format(function, signature, key)

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    if key is not None:
        return lambda args, kwargs: key.format_map(arguments(args, kwargs))
    name = _name(function)
    return lambda args, kwargs: f"{name}:{digest(arguments(args, kwargs))}"


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _check_format(function: Callable[..., Any], signature: inspect.Signature, key: str) -> None:
    parameters = list(signature.parameters)
    has = ", ".join(parameters) or "none"
    advice = (
        f"name an argument of {_name(function)} in braces (it has {has}), as in 'note:{{note.id}}'"
    )
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(key) if field is not None]
    except ValueError as error:
        msg = f"key={key!r} is not a format ({error}); {advice}"
        raise ConfigurationError(msg) from error
    if not fields and parameters:
        msg = f"key={key!r} names no argument, so all calls would share one result; {advice}"
        raise ConfigurationError(msg)
    for field in fields:
        root = field.split(".")[0].split("[")[0]
        if root not in parameters:
            msg = f"key={key!r} names {root!r}, which is no argument; {advice}"
            raise ConfigurationError(msg)

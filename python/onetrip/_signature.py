"""Makes keys from the arguments of functions."""

from __future__ import annotations

import _string  # type: ignore[import-not-found]  # used by `string.Formatter`
import inspect
import keyword
import operator
import string
import sys
from typing import TYPE_CHECKING, Any

from onetrip._core import digest, stable
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def check(function: object, *, named: bool) -> bool:
    """Returns whether `function` is a coroutine function. Refuses anything that cannot be cached.

    `named` means that the key does not need the function's name, which a lambda lacks.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        msg = f"put @{kind} above the caching decorator, not below it"
        raise ConfigurationError(msg)
    if isinstance(function, property):
        msg = "a property cannot be cached; use cache.cached_property instead of both"
        raise ConfigurationError(msg)
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__name__"):
        msg = f"{function!r} is not a function; decorate one that is written with def"
        raise ConfigurationError(msg)
    if not named and function.__name__ == "<lambda>":
        msg = "a lambda has no name to make keys of; write it with def, or pass key= to cached()"
        raise ConfigurationError(msg)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{_name(function)} is a generator, which can be read once; return a list instead"
        raise ConfigurationError(msg)
    is_coroutine_function = inspect.iscoroutinefunction(function)
    if is_coroutine_function:
        _mark_coroutine_function(function)
    return is_coroutine_function


def _mark_coroutine_function(function: Callable[..., Any]) -> None:
    """Marks `function` as a coroutine function, for frameworks that look at the cached object.

    A cached function has the attributes of its function, including this mark.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        # Imported late: asyncio takes longer to load than all of onetrip.
        import asyncio.coroutines  # noqa: PLC0415

        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001


def key_maker(function: Callable[..., Any], key: str | None) -> Callable[..., str]:
    """Returns a function with the parameters of `function` that returns the key of a call.

    The fields of a format, `"note:{note.id}"`, are arguments by name. Without a format the key is
    the function's module and name and a digest of all arguments: `f(1)` and `f(x=1)` share it.
    Variables that a nested function closes over are not part of the key.
    """
    name = _name(function)
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        msg = f"the parameters of {name} are unknown ({error}); pass key_fn= to cached()"
        raise ConfigurationError(msg) from error
    if key is not None:
        _check_format(function, signature, key)
    # A compiled lambda binds arguments much faster than `inspect` does. Its source consists of
    # parameter names, constant names and literals written by `repr`.
    constants = _Constants(signature.parameters)
    parameters = [_bare(parameter, constants) for parameter in signature.parameters.values()]
    head = str(inspect.Signature(parameters))[1:-1]
    if key is not None:
        body = _formatted(key, constants)
    else:
        arguments = ", ".join(f"{name!r}: {name}" for name in signature.parameters)
        body = f"{name + ':'!r} + {constants.name(digest)}({{{arguments}}})"
    try:
        made: Callable[..., str] = eval(f"lambda {head}: {body}", constants)  # noqa: S307
    except SyntaxError as error:
        msg = f"{name} has a parameter named like a Python keyword; pass key_fn= to cached()"
        raise ConfigurationError(msg) from error
    # Named in Python's TypeError for wrong arguments.
    made.__name__, made.__qualname__ = function.__name__, _qualname(function)
    return made


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{_qualname(function)}"


def _qualname(function: Callable[..., Any]) -> str:
    # A callable object may have a `__name__` without a `__qualname__`.
    return getattr(function, "__qualname__", function.__name__)


class _Constants(dict[str, Any]):
    """The constants of a compiled expression, under names that no parameter has."""

    def __init__(self, parameters: Iterable[str]) -> None:
        super().__init__()
        self._prefix = "_onetrip_"
        while any(parameter.startswith(self._prefix) for parameter in parameters):
            self._prefix += "_"

    def name(self, value: object) -> str:
        name = f"{self._prefix}{len(self)}"
        self[name] = value
        return name


class _Named:
    """An object whose `repr` is its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def _bare(parameter: inspect.Parameter, constants: _Constants) -> inspect.Parameter:
    """Returns the parameter without annotation, its default replaced by a constant's name."""
    bare = parameter.replace(annotation=parameter.empty)
    if bare.default is bare.empty:
        return bare
    return bare.replace(default=_Named(constants.name(bare.default)))


def _formatted(key: str, constants: _Constants) -> str:
    """Returns an expression equal to `key.format(**arguments)`.

    It refuses values whose text differs between processes.
    """
    pieces = []
    for literal, field, specification, conversion in string.Formatter().parse(key):
        pieces.append(repr(literal))
        if field is not None:
            value = _value(field, specification, conversion, constants)
            pieces.append(f"f'{{{value}}}'")
    return " ".join(pieces) or "''"


def _value(
    field: str, specification: str | None, conversion: str | None, constants: _Constants
) -> str:
    """Returns the expression for one field, without quotes: it is put in an f-string."""
    name, steps = _string.formatter_field_name_split(field)
    value = name
    for is_attribute, step in steps:
        # The compiler normalizes names beyond ASCII.
        if is_attribute and step.isascii() and step.isidentifier() and not keyword.iskeyword(step):
            value = f"{value}.{step}"
        else:
            get = getattr if is_attribute else operator.getitem
            value = f"{constants.name(get)}({value}, {constants.name(step)})"
    value = f"{constants.name(stable)}({value})"
    if conversion:
        value = f"{constants.name(_CONVERSIONS[conversion])}({value})"
    if specification:
        parts = []
        for literal, inner, deeper, its_conversion in string.Formatter().parse(specification):
            parts.append(constants.name(literal))
            if inner is not None:
                part = _value(inner, deeper, its_conversion, constants)
                parts.append(f"{constants.name(format)}({part})")
        joined = f"{constants.name(''.join)}(({', '.join(parts)},))"
        value = f"{constants.name(format)}({value}, {joined})"
    return value


_CONVERSIONS = {"s": str, "r": repr, "a": ascii}


def _fields(key: str) -> Iterator[tuple[str, str | None]]:
    """Yields the argument name and the conversion of each field, nested fields included.

    Raises ValueError if a field is malformed.
    """
    for _, field, specification, conversion in string.Formatter().parse(key):
        if field is not None:
            root, steps = _string.formatter_field_name_split(field)
            # Iterating checks each step.
            list(steps)
            yield str(root), conversion
            yield from _fields(specification or "")


def _check_format(function: Callable[..., Any], signature: inspect.Signature, key: str) -> None:
    parameters = list(signature.parameters)
    has = ", ".join(parameters) or "none"
    advice = f"name arguments of {_name(function)} in braces (it has {has}), as in 'note:{{id}}'"
    try:
        fields = list(_fields(key))
    except ValueError as error:
        msg = f"key={key!r} is not a valid format ({error}); {advice}"
        raise ConfigurationError(msg) from error
    if not fields and parameters:
        msg = f"key={key!r} names no argument, so all calls would share one result; {advice}"
        raise ConfigurationError(msg)
    for root, conversion in fields:
        if root not in parameters:
            msg = f"key={key!r} names {root!r}, which is not an argument; {advice}"
            raise ConfigurationError(msg)
        if conversion not in (None, *_CONVERSIONS):
            msg = f"key={key!r} has the unknown conversion !{conversion}; use !s, !r or !a"
            raise ConfigurationError(msg)

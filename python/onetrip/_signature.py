"""Keys from the signatures of functions: what only Python can tell of them."""

from __future__ import annotations

import _string  # type: ignore[import-not-found]  # what `string.Formatter` splits fields with
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


def key_maker(function: Callable[..., Any], key: str | None) -> Callable[..., str]:
    """Return what makes a key of the arguments of a call, to be called like `function`.

    With a format, `"note:{note.id}"`, its fields are the arguments by name. Without one, the key
    is the function's module and name and a digest of all arguments, so that `f(1)` and `f(x=1)`
    share it. A function within another one is known by its name alone: what it closes over is not
    part of the key.
    """
    name = _name(function)
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        msg = f"{name} does not tell its arguments ({error}); give cached() a key_fn="
        raise ConfigurationError(msg) from error
    if key is not None:
        _check_format(function, signature, key)
    # Python binds the arguments of a function of its own many times as fast as `inspect` does.
    # Compiled are only names of parameters and of constants, and literals as `repr` writes them.
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
        msg = f"{name} has an argument that is named like a word of Python; give cached() a key_fn="
        raise ConfigurationError(msg) from error
    # As Python words it where a call does not fit.
    made.__name__, made.__qualname__ = function.__name__, _qualname(function)
    return made


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{_qualname(function)}"


def _qualname(function: Callable[..., Any]) -> str:
    # A callable object has a name if it was given one, and this one rarely.
    return getattr(function, "__qualname__", function.__name__)


class _Constants(dict[str, Any]):
    """What a compiled expression names, by names that are no parameter's."""

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
    """What is written as its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def _bare(parameter: inspect.Parameter, constants: _Constants) -> inspect.Parameter:
    """Return a parameter without annotation, whose default is a constant."""
    bare = parameter.replace(annotation=parameter.empty)
    if bare.default is bare.empty:
        return bare
    return bare.replace(default=_Named(constants.name(bare.default)))


def _formatted(key: str, constants: _Constants) -> str:
    """Return the expression for what `str.format` makes of the arguments.

    It refuses values that have another text in each process.
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
    """Return the expression for one field, without quotes: it may stand in a string."""
    name, steps = _string.formatter_field_name_split(field)
    value = name
    for is_attribute, step in steps:
        # Names beyond ASCII are made others when they are compiled.
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
    """Yield what the fields of a format begin with, and their conversions, of nested ones as well.

    Raises ValueError if one of them is none.
    """
    for _, field, specification, conversion in string.Formatter().parse(key):
        if field is not None:
            root, steps = _string.formatter_field_name_split(field)
            # Each step is checked as it is looked at.
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
        msg = f"key={key!r} is not a format ({error}); {advice}"
        raise ConfigurationError(msg) from error
    if not fields and parameters:
        msg = f"key={key!r} names no argument, so all calls would share one result; {advice}"
        raise ConfigurationError(msg)
    for root, conversion in fields:
        if root not in parameters:
            msg = f"key={key!r} names {root!r}, which is no argument; {advice}"
            raise ConfigurationError(msg)
        if conversion not in (None, *_CONVERSIONS):
            msg = f"key={key!r} has the conversion !{conversion}; there are !s, !r and !a"
            raise ConfigurationError(msg)

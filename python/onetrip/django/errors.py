"""Turns onetrip's exceptions into those that Django's own backends raise."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onetrip import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnpicklableError(errors.SerializationError, pickle.PicklingError):
    """A value cannot be pickled: cache a part that can."""


class NotANumberError(errors.NotANumberError, TypeError):
    """`incr` or `decr` found an entry that is not an integer."""


@contextmanager
def of_writing() -> Iterator[None]:
    """Raises `UnpicklableError` for a value that cannot be stored."""
    try:
        yield
    except errors.SerializationError as error:
        raise UnpicklableError(*error.args) from error.__cause__


@contextmanager
def of_adding(key: object) -> Iterator[None]:
    """Raises TypeError for an entry without an integer, ValueError for a missing `key`."""
    try:
        yield
    except errors.NotANumberError as error:
        raise NotANumberError(*error.args) from error
    except KeyError as error:
        msg = f"Key '{key}' not found"
        raise ValueError(msg) from error

"""The errors of onetrip as those that Django's users catch."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onetrip import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnpicklableError(errors.SerializationError, pickle.PicklingError):
    """A value that cannot be pickled: cache what can be pickled of it."""


class NotANumberError(errors.NotANumberError, TypeError):
    """A number was asked of an entry that does not hold an integer."""


@contextmanager
def of_writing() -> Iterator[None]:
    """Raise what Django's own backends raise of a value that cannot be stored."""
    try:
        yield
    except errors.SerializationError as error:
        raise UnpicklableError(*error.args) from error.__cause__


@contextmanager
def of_adding(key: object) -> Iterator[None]:
    """Raise what Django's own backends raise of a key that cannot be added to."""
    try:
        yield
    except errors.NotANumberError as error:
        raise NotANumberError(*error.args) from error
    except KeyError as error:
        msg = f"Key '{key}' not found"
        raise ValueError(msg) from error

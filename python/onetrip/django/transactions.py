"""Reacts to database transactions: drops plain answers, and keeps computed values apart.

When a page begins or ends a transaction, or gets a row lock, it may see news of others, so earlier
plain answers are dropped. A value computed within a transaction may depend on uncommitted rows, so
it is not shared with other callers.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.backends.signals import connection_created
from django.db.transaction import Atomic

from onetrip._core import set_transaction_probe
from onetrip.django.page import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["observe"]

# Attribute of the methods wrapped here.
_NOTICED = "_onetrip"

_ROW_LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")


def observe() -> None:
    """Watches transactions and row locks from now on. A second call does nothing."""
    if getattr(Atomic.__enter__, _NOTICED, False):
        return
    # Django has no signal for transactions, and no hooks but these two methods.
    Atomic.__enter__ = _noticing(Atomic.__enter__)  # type: ignore[method-assign]
    Atomic.__exit__ = _noticing(Atomic.__exit__)  # type: ignore[method-assign]
    connection_created.connect(_watch, dispatch_uid="onetrip")
    for connection in connections.all(initialized_only=True):
        _watch(connection=connection)
    set_transaction_probe(_is_in_transaction)


def _fresh() -> None:
    for cache in configured():
        cache.fresh()


def _noticing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def noticing(*args: Any) -> Any:
        _fresh()
        try:
            return method(*args)
        finally:
            _fresh()

    setattr(noticing, _NOTICED, True)
    # django-cachalot wraps these methods too, and removes its wrapper by `__wrapped__`. It must
    # find the method below its own wrapper, or that wrapper would be applied twice.
    noticing.__wrapped__ = getattr(method, "__wrapped__", method)
    return noticing


def _watch(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _noticing_locks not in connection.execute_wrappers:
        connection.execute_wrappers.append(_noticing_locks)


def _noticing_locks(execute: Callable[..., Any], sql: Any, *args: Any) -> Any:
    result = execute(sql, *args)
    # The previous holder of the lock may have written.
    text = str(sql)
    if "FOR " in text and any(lock in text for lock in _ROW_LOCKS):
        _fresh()
    return result


_is_reading: ContextVar[bool] = ContextVar("onetrip.django.reading", default=False)


@contextmanager
def reading(safe: bool) -> Iterator[None]:
    """Marks the block as a request. If it is `safe`, its ATOMIC_REQUESTS transaction is ignored."""
    token = _is_reading.set(safe)
    try:
        yield
    finally:
        _is_reading.reset(token)


def _is_in_transaction() -> bool:
    opened = connections.all(initialized_only=True)
    return any(
        connection.in_atomic_block and not _is_of_request(connection) for connection in opened
    )


def _is_of_request(connection: BaseDatabaseWrapper) -> bool:
    """Returns whether the only open transaction is ATOMIC_REQUESTS around a safe request."""
    atomic = connection.settings_dict.get("ATOMIC_REQUESTS", False)
    return atomic and not connection.savepoint_ids and _is_reading.get()

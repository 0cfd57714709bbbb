"""What database transactions mean for a page: news, and computing that is not shared.

A page learns of what others did when it begins or ends a transaction, or has waited for a row lock.
Plain answers from before do not hold after it. And what is computed within a transaction may rest
on rows that nobody else sees, so nobody waits for it, and it waits for nobody.
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

# What marks a method that tells of itself.
_NOTICED = "_onetrip"

_ROW_LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")


def observe() -> None:
    """Notice transactions and row locks from here on. A second call does nothing."""
    if getattr(Atomic.__enter__, _NOTICED, False):
        return
    # Django tells nobody of transactions: there is no signal, and no hook but these two methods.
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
    # Others wrap these methods too, and take their wrapper off by `__wrapped__`, as django-cachalot
    # does. They must find what theirs covers, not theirs: it would be there twice after that.
    noticing.__wrapped__ = getattr(method, "__wrapped__", method)
    return noticing


def _watch(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _noticing_locks not in connection.execute_wrappers:
        connection.execute_wrappers.append(_noticing_locks)


def _noticing_locks(execute: Callable[..., Any], sql: Any, *args: Any) -> Any:
    result = execute(sql, *args)
    # Whoever held the lock before has done what it held it for.
    text = str(sql)
    if "FOR " in text and any(lock in text for lock in _ROW_LOCKS):
        _fresh()
    return result


_is_reading: ContextVar[bool] = ContextVar("onetrip.django.reading", default=False)


@contextmanager
def reading(safe: bool) -> Iterator[None]:
    """Be a request that is `safe`: what ATOMIC_REQUESTS opens around it changes nothing."""
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
    """Whether all that is open is what ATOMIC_REQUESTS opens around a request that reads."""
    atomic = connection.settings_dict.get("ATOMIC_REQUESTS", False)
    return atomic and not connection.savepoint_ids and _is_reading.get()

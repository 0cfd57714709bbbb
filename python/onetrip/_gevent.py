"""Trips of greenlets: while one waits for the store, the others of its thread go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]  # it has no types
from gevent import monkey

# The public `get_hub` would give each native thread that asks a hub of its own.
from gevent._hub_local import get_hub_if_exists  # type: ignore[import-untyped]  # nor here

if TYPE_CHECKING:
    from collections.abc import Callable


def elsewhere() -> Callable[[Callable[[], Any]], Any] | None:
    """What calls a function in a native thread, if this thread has greenlets that could go on.

    A program whose sockets are not patched did not ask for them to give way. The hub itself cannot
    wait, and a thread without one has nobody else to run.
    """
    if not monkey.is_module_patched("socket"):
        return None
    hub = get_hub_if_exists()
    if hub is None or gevent.getcurrent() is hub:
        return None
    call: Callable[[Callable[[], Any]], Any] = hub.threadpool.apply
    return call

"""Runs the trips of greenlets in native threads, so that other greenlets go on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]  # untyped
from gevent import monkey

# The public `get_hub` would create a hub in each native thread that asks.
from gevent._hub_local import get_hub_if_exists  # type: ignore[import-untyped]  # untyped

if TYPE_CHECKING:
    from collections.abc import Callable


def elsewhere() -> Callable[[Callable[[], Any]], Any] | None:
    """Returns a caller of functions in a native thread, or None where it would gain nothing.

    Without patched sockets the program did not ask for cooperative waiting. The hub itself cannot
    wait, and a thread without a hub has no other greenlet to run.
    """
    if not monkey.is_module_patched("socket"):
        return None
    hub = get_hub_if_exists()
    if hub is None or gevent.getcurrent() is hub:
        return None
    call: Callable[[Callable[[], Any]], Any] = hub.threadpool.apply
    return call

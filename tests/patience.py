"""Waiting for what comes soon, or not so soon on a busy machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds after which what has not come will not come.
PATIENCE = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    """Ask again and again until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)

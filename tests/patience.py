"""Waiting for what comes soon, or not so soon on a busy machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
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


def pause(pid: int) -> None:
    """Stop a process, to go on at SIGCONT; return when each of its threads has stopped."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    # The state stands behind the name, which is in parentheses.
    wait_until(lambda: all((t / "stat").read_text().rsplit(") ", 1)[1][0] == "T" for t in threads))

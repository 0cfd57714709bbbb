"""How long this process and the servers it asks waited for a processor that others had.

The kernel counts it for each thread. It tells which rounds were disturbed, on a machine that has
other work as well.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_servers: list[int] = []


@contextmanager
def of(pid: int) -> Iterator[None]:
    """Mind the disturbance of a server, too."""
    _servers.append(pid)
    try:
        yield
    finally:
        _servers.remove(pid)


def waited() -> int:
    """The nanoseconds waited so far, by all threads together; nothing where no kernel counts."""
    return sum(_of_process(pid) for pid in (os.getpid(), *_servers))


def _of_process(pid: int) -> int:
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - some, thousands of times
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as told:  # noqa: PTH123
                # The time it ran, the time it waited, and how often.
                total += int(told.read().split()[1])
    except OSError:
        # A thread, or a server, has ended meanwhile.
        return total
    return total

"""Whose sockets lead to a server: what the kernel tells of its processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The column of /proc/net/tcp that says how far the connection is, and what it says of one that is
# open.
STATE, ESTABLISHED = 3, "01"
QUEUES, INODE = 4, 9


def _connections() -> Iterator[tuple[int, int, list[str]]]:
    """The local and the other port of each, and all that is told of it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        own, other = (int(address.split(":")[1], 16) for address in words[1:3])
        if words[STATE] == ESTABLISHED:
            yield own, other, words


def ports_to(port: int, pid: int | None = None) -> set[int]:
    """The local ports of the connections to `port` that a process holds, used or not."""
    process = Path("/proc") / str(pid or os.getpid())
    held = set()
    for descriptor in (process / "fd").iterdir():
        try:
            held.add(str(descriptor.readlink()))
        except FileNotFoundError:
            # Closed meanwhile.
            continue
    return {
        own
        for own, other, words in _connections()
        if other == port and f"socket:[{words[INODE]}]" in held
    }


def unread(port: int) -> int:
    """Bytes that a server has been sent and has not read yet."""
    return sum(
        int(words[QUEUES].split(":")[1], 16) for own, _, words in _connections() if own == port
    )


def children(pid: int) -> set[int]:
    """The processes that a process has started and that still run."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

"""Whose sockets lead to a server: what the kernel tells of its processes."""

from __future__ import annotations

import os
from pathlib import Path

# The column of /proc/net/tcp that says how far the connection is, and what it says of one that is
# open.
STATE, ESTABLISHED = 3, "01"


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
    ports = set()
    for line in (process / "net" / "tcp").read_text().splitlines()[1:]:
        words = line.split()
        own, other = (int(address.split(":")[1], 16) for address in words[1:3])
        if other == port and words[STATE] == ESTABLISHED and f"socket:[{words[9]}]" in held:
            ports.add(own)
    return ports


def children(pid: int) -> set[int]:
    """The processes that a process has started and that still run."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

"""Kyoto Tycoon, which is rarely packaged: a server that runs, or one that is started here.

`KT_URL=kt://127.0.0.1:1978/0` names one that runs, whose entries `o:…`, `u:…` and `k:…` are
written over; `KT_SERVER=/path/to/ktserver` a program.
"""

from __future__ import annotations

import os
import random
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.servers import HOST, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Kyoto:
    """Where a Kyoto Tycoon listens."""

    host: str
    port: int
    database: int


class KyotoServer(Server):
    """A `ktserver` of its own, with one database in memory."""

    program = os.environ.get("KT_SERVER", "ktserver")

    def __init__(self) -> None:
        super().__init__()
        # It takes no port above, where the free ones of the system are.
        self.port = _free_port_below(1 << 15)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"kt://{HOST}:{self.port}/0"

    def _options(self, port: int) -> list[str]:
        return ["-host", HOST, "-port", str(port), "-th", "4", "-le", "%"]

    def _greet(self, port: int) -> None:
        socket.create_connection((HOST, port), 1).close()

    def _hang_up(self) -> None:
        pass


def _free_port_below(limit: int) -> int:
    while True:
        port = random.randrange(1 << 14, limit)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


@contextmanager
def running() -> Iterator[Kyoto | None]:
    """A server as the environment names it, if it does."""
    if url := os.environ.get("KT_URL"):
        parts = urlsplit(url)
        yield Kyoto(parts.hostname or HOST, parts.port or 1978, int(parts.path.strip("/") or 0))
    elif os.environ.get("KT_SERVER"):
        with KyotoServer() as server:
            yield Kyoto(HOST, server.port, 0)
    else:
        yield None

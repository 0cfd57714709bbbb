"""The floor: the same bytes over a bare socket, with nothing but reads of the right length.

What onetrip sends is recorded once, by standing between it and its server, and then said again.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.measure import Work
from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Who sends nothing for so long has said what there is to say.
PAUSE_SECONDS = 0.1


class Tap:
    """Stands between clients and a server, and notes each question with its answer."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.exchanges: list[tuple[bytes, bytes]] = []

    def listen(self) -> None:
        """Carry everything to and fro until the tap is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection((HOST, self._upstream)) as server:
            while question := _all(client):
                server.sendall(question)
                answer = _all(server)
                self.exchanges.append((question, answer))
                client.sendall(answer)

    def close(self) -> None:
        """Accept nobody any more."""
        # A thread that waits in accept is not woken by closing.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _all(connection: socket.socket) -> bytes:
    """All that comes before a pause; nothing if the other side has hung up."""
    connection.settimeout(None)
    said = b""
    try:
        while part := connection.recv(1 << 20):
            said += part
            connection.settimeout(PAUSE_SECONDS)
    except (TimeoutError, ConnectionError):
        pass
    return said


@contextmanager
def tapped(port: int) -> Iterator[Tap]:
    """A tap of the server at `port`."""
    tap = Tap(port)
    listening = threading.Thread(target=tap.listen, daemon=True)
    listening.start()
    try:
        yield tap
    finally:
        tap.close()
        listening.join()


class Replay:
    """Recorded exchanges over a connection of its own; a call gives the answers."""

    def __init__(self, port: int, exchanges: list[tuple[bytes, bytes]]) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._exchanges = [(question, bytearray(len(answer))) for question, answer in exchanges]

    def __call__(self) -> list[bytearray]:
        for question, answer in self._exchanges:
            self._socket.sendall(question)
            rest = memoryview(answer)
            while rest:
                rest = rest[self._socket.recv_into(rest) :]
        return [answer for _, answer in self._exchanges]


def floor(
    port: int,
    make: Callable[[int], Callable[[], object]],
    *,
    trips: int = 1,
    reset: Callable[[], object] | None = None,
) -> Work:
    """The exchanges of some work, which `make` gives for a port, and nothing else.

    `reset` goes before each call, as it does for those who are compared to the floor.
    """
    with tapped(port) as tap:
        call = make(tap.port)
        # The first call connects.
        for _ in range(2):
            if reset is not None:
                reset()
            tap.exchanges.clear()
            call()
    if len(tap.exchanges) != trips:
        raise RuntimeError(f"{len(tap.exchanges)} exchanges were recorded instead of {trips}")
    right = [answer for _, answer in tap.exchanges]
    return Work("floor", Replay(port, tap.exchanges), right, reset=reset)

"""The floor: the same bytes over a bare socket, with nothing but a read of the right length."""

from __future__ import annotations

import socket


class Exchange:
    """One request, and a reply whose length is known."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # How long the reply is, is learned once, by waiting for the end of it.
        self._socket.sendall(request)
        self._socket.settimeout(0.2)
        length = 0
        try:
            while chunk := self._socket.recv(1 << 20):
                length += len(chunk)
        except TimeoutError:
            pass
        self._socket.settimeout(None)
        self._buffer = bytearray(length)

    def __call__(self) -> None:
        self._socket.sendall(self._request)
        rest = memoryview(self._buffer)
        while rest:
            rest = rest[self._socket.recv_into(rest) :]


def command(*words: str | bytes) -> bytes:
    """Encode one command in the protocol of Redis (RESP)."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)

"""gunicorn's configuration: each of its workers listens on a socket of its own.

So a test may say which process answers. The n-th worker has the n-th of the addresses.
"""

from __future__ import annotations

from typing import Any


def post_fork(server: Any, worker: Any) -> None:
    worker.sockets = [worker.sockets[worker.age - 1]]

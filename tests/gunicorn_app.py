"""What `test_gunicorn.py` has gunicorn serve: a module that makes trips before the server forks.

It is gunicorn's configuration too, for what the parent does while it serves is done in its hooks.
"""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from onetrip import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

cache = Cache(os.environ["STORE_URL"], on_error="raise", trip_timeout=20)

connected = threading.Barrier(3)


def trip(number: int) -> None:
    # All at once, so that each thread has a connection of its own.
    connected.wait()
    with cache.preload("parent", f"parent:{number}"):
        cache.set("parent", os.getpid())


with ThreadPoolExecutor(connected.parties) as pool:
    list(pool.map(trip, range(connected.parties)))


def child_exit(server: object, worker: object) -> None:
    """Gunicorn calls this in the parent, which tells by a trip that it noticed."""
    cache.set("noticed by", os.getpid())


class Waiting:
    """How many requests of this process wait for a trip."""

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


waiting = Waiting()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Tell who answers, and what the cache has for the path; without one, make no trip."""
    tag, found = environ["PATH_INFO"][1:], None
    if tag:
        with waiting, cache.preload(tag, "parent"):
            found = cache.get(tag)
            assert cache["parent"] == os.getppid()
            cache.set(f"{tag} answered by", os.getpid())
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {"pid": os.getpid(), "found": found, "waiting": waiting.count}
    return [json.dumps(answer).encode()]

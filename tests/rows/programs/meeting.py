"""Where a page under way and its test meet: lists in Redis, past any cache.

A page that was asked with `?meet=name` stops at each `meet()` until the test lets it go on. Asked
without, as when it is warmed up, it does not stop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds after which nobody comes.
LONG = 20

desk = redis.Redis.from_url(os.environ["ROWS_DESK"], decode_responses=True, socket_timeout=None)


class Ask:
    """What a page was asked: the parameters of its query."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = query

    def text(self, name: str, default: str = "") -> str:
        return self._query.get(name, default)

    def number(self, name: str, default: int) -> int:
        return int(self._query.get(name, default))

    def meet(self) -> None:
        """Tell the test that the page is here, and wait until it may go on."""
        name = self.text("meet")
        if name:
            desk.rpush(f"arrived:{name}", 1)
            if desk.blpop([f"go:{name}"], timeout=LONG) is None:
                msg = f"the test left the page {name} alone"
                raise TimeoutError(msg)

    @staticmethod
    def source() -> str:
        """What stands in the program's database."""
        found = desk.get("source")
        assert isinstance(found, str)
        return found

"""How many are busy at once."""

from __future__ import annotations

import threading


class Gauge:
    """Measures how many threads were in its block at once, and counts those that ever were."""

    def __init__(self) -> None:
        self.most = 0
        self.threads: set[threading.Thread] = set()
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            # Kept, so that no later one takes its place in memory and passes for it.
            self.threads.add(threading.current_thread())

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1

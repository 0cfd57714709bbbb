"""What a page costs: renders counted, timed and laid out as a table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onetrip import Cache, Stats

# A row takes at least so many renders, and about so many seconds where they are slow.
FEWEST, MOST, SECONDS = 3, 51, 1.0


@dataclass(frozen=True)
class Row:
    name: str
    trips: int
    posts: int
    milliseconds: float
    bytes_read: int
    bytes_written: int


def measure(
    name: str, cache: Cache, render: Callable[[], object], before: Callable[[], object]
) -> Row:
    """One row: what one render costs, and the median of what several take."""
    took: list[float] = []
    costs: list[Stats] = []
    end = time.perf_counter() + SECONDS
    while len(took) < FEWEST or (len(took) < MOST and time.perf_counter() < end):
        before()
        cache.reset_stats()
        began = time.perf_counter()
        render()
        took.append((time.perf_counter() - began) * 1000)
        costs.append(cache.stats())
    # What workers tell each other now and then is no part of it.
    cost = min(costs, key=lambda cost: cost.bytes_in + cost.bytes_out)
    return Row(name, cost.trips, cost.posted, median(took), cost.bytes_in, cost.bytes_out)


def layout(rows: Iterable[Row]) -> str:
    """The rows as text, one line each."""
    counted = f"{'trips':>7}{'posts':>7}{'milliseconds':>15}"
    lines = [f"{'':22}{counted}{'bytes read':>13}{'bytes written':>16}"]
    lines += [
        f"{row.name:22}{row.trips:>7,}{row.posts:>7,}{row.milliseconds:>15,.1f}"
        f"{row.bytes_read:>13,}{row.bytes_written:>16,}"
        for row in rows
    ]
    return "\n".join(lines)

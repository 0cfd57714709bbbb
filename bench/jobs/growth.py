"""How cost grows with the keys of a page, and with the number of entries that are stored."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import redis

from bench import own
from bench.measure import QUICK, Aim, Report, Result, Section, Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onetrip
    from tests.servers import RedisServer

PAGES = [1, 10, 100, 1_000, 10_000]
STORED = [10**3, 10**4, 10**5] if QUICK else [10**3, 10**4, 10**5, 10**6]
TEXT = "0123456789" * 10
READ = 100
AT_ONCE = 10_000


def keys_of_a_page(report: Report, server: RedisServer) -> None:
    cache = own.cache(server.url, prefix="growth")
    keys = [f"key:{number}" for number in range(PAGES[-1])]
    cache.set_many(dict.fromkeys(keys, TEXT))

    def work(count: int) -> Work:
        names = keys[:count]

        def page() -> list[object]:
            with cache.preload(names):
                return [cache.get(name) for name in names]

        return Work(f"{count:,} keys", page, [TEXT] * count, times=count)

    section = report.compare(
        "Growth: keys of a page, Redis (time for each key, 100 B)", [work(c) for c in PAGES]
    )
    aim = "time per key falls or stays level from 1 to 10 000 keys (worst step ≤ 1.1)"
    report.aims.append(Aim("growth", aim, 1.1, _worst_step(section)))


def _worst_step(section: Section) -> Result:
    """The most that one step adds to what the step before took."""
    names = list(section.results)
    steps = [section.ratio(after, before) for before, after in pairwise(names)]
    return max(steps, key=lambda step: step.wall)


def entries_stored(report: Report, server: RedisServer, folder: Path) -> None:
    stores: dict[str, Callable[[int], str]] = {
        "memory": lambda number: f"memory://growth-{number}?size=2GiB",
        "disk": lambda number: f"disk://{folder}/growth-{number}?size=4GiB",
        "Redis": lambda number: f"redis://127.0.0.1:{server.port}/{number + 8}",
    }
    for name, url in stores.items():
        section = report.compare(
            f"Growth: entries stored, {name} (time for one get, 100 B)",
            [_among(own.cache(url(n)), c) for n, c in enumerate(STORED)],
            f"Gets of {READ} keys in turn, spread over all entries.",
        )
        few, many = f"{STORED[0]:,} entries", f"{STORED[-1]:,} entries"
        aim = f"cost does not grow with the number of entries stored ({name}, {many}: ≤ 1.1)"
        report.aims.append(Aim("growth", aim, 1.1, section.ratio(many, few)))
    with redis.Redis(port=server.port) as admin:
        admin.flushall()


def _among(cache: onetrip.Cache, count: int) -> Work:
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        cache.set_many({f"key:{number}": TEXT for number in numbers}, timeout=None)
    keys = [f"key:{number}" for number in range(0, count, count // READ)]

    def gets() -> list[object]:
        return [cache.get(key) for key in keys]

    return Work(f"{count:,} entries", gets, [TEXT] * len(keys), times=len(keys))

"""Eight threads of one process that read through one client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bench.jobs.one import REDIS_PY, both
from bench.measure import Report, Work
from bench.peer import glide, peer
from bench.values import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

THREADS = 8
GETS = 50


def run(report: Report, server: RedisServer) -> None:
    cache, plain = both(server)
    with ThreadPoolExecutor(THREADS) as pool:

        def work(name: str, get: Callable[[], object], right: object = TEXT) -> Work:
            def gets() -> set[object]:
                return {get() for _ in range(GETS)}

            def by_all() -> set[object]:
                started = [pool.submit(gets) for _ in range(THREADS)]
                return set[object]().union(*(one.result() for one in started))

            return Work(name, by_all, {right}, times=THREADS * GETS)

        def of_glide() -> Work:
            kind, configuration = glide("glide_sync", server.port)
            client: Any = kind.create(configuration)
            return work("valkey-glide (sync)", lambda: client.get("plain"), TEXT.encode())

        section = report.compare(
            "8 threads, gets from Redis (time for each get)",
            [
                work("onetrip", lambda: cache.get("one")),
                work(REDIS_PY, lambda: plain.get("plain")),
                peer(report, "valkey-glide-sync", of_glide),
            ],
            "The server has its own processor only if there are more processors than the "
            "threads use.",
        )
    aim = "throughput ≥ 3 × redis-py: time ≤ 1/3"
    report.aim("8 threads, one process", aim, 1 / 3, section, ("onetrip", REDIS_PY))

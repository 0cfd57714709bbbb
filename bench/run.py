"""`make bench`: onetrip, its peers and the floor, side by side in one run.

`QUICK=1` takes about a minute and writes into target/bench; a whole run writes docs/benchmarks.md
and its plot. `ONLY=page,scope` makes some of the parts, and prints what it saw. The Makefile tells
where the wheel (`WHEEL`) and the program of the Rust peers (`RUST_PEERS`) are.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import disturbance, document, kyoto, plot
from bench.jobs import (
    growth,
    kinds,
    local,
    one,
    other_servers,
    page,
    rust,
    scope,
    tasks,
    threads,
    weight,
)
from bench.measure import QUICK, Report, awake
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "benchmarks.svg"
QUICK_FOLDER = ROOT / "target" / "bench"

# Of these works the plot shows every competitor.
PLOTTED = [
    "A page of 50 keys, Redis",
    "A page of 50 keys, Memcached",
    "A page of 50 keys, Kyoto Tycoon",
    "A cold page of 50 keys, Redis",
    "One get, Redis",
    "100 concurrent gets of one event loop, Redis",
    "One get in a scope",
    "A cached call that hits in a scope, with a key_fn",
    "The memory store, get",
    "The disk store, get",
    "Rust: multi-get of 50, Redis",
]


def named(variable: str) -> Path | None:
    """A file that the environment names."""
    path = os.environ.get(variable)
    return Path(path) if path else None


def on_kyoto(report: Report) -> None:
    with kyoto.running() as server:
        if server is None:
            report.absent["Kyoto Tycoon"] = (
                "it is rarely packaged, and neither KT_URL names a server that runs nor KT_SERVER "
                "a program"
            )
        else:
            other_servers.on_kyoto(report, server)


def on_memcached(report: Report) -> None:
    with other_servers.QuietMemcached() as server, disturbance.of(server.pid):
        other_servers.on_memcached(report, server)


def in_rust(report: Report, server: RedisServer) -> None:
    program = named("RUST_PEERS")
    if program is None:
        report.absent["what is in Rust"] = "RUST_PEERS names no program: `make bench` builds it"
    else:
        rust.run(report, server, program)


def parts(report: Report, server: RedisServer, folder: Path) -> dict[str, Callable[[], None]]:
    """What can be measured, in the order of the aims."""
    return {
        "page": lambda: page.on_redis(report, server),
        "memcached": lambda: on_memcached(report),
        "kyoto": lambda: on_kyoto(report),
        "one": lambda: one.run(report, server),
        "scope": lambda: scope.run(report),
        "cold": lambda: page.cold(report, server),
        "tasks": lambda: tasks.run(report, server),
        "memory": lambda: local.memory(report),
        "disk": lambda: local.disk(report, folder),
        "kinds": lambda: kinds.run(report, server),
        "threads": lambda: threads.run(report, server),
        "rust": lambda: in_rust(report, server),
        "weight": lambda: weight.run(report, server.url, folder, named("WHEEL")),
        "keys": lambda: growth.keys_of_a_page(report, server),
        "entries": lambda: growth.entries_stored(report, server, folder),
    }


def main() -> None:
    report, began = Report(), time.monotonic()
    only = os.environ.get("ONLY")
    databases = ["--databases", "32"]
    with (
        awake(),
        RedisServer(*databases) as server,
        disturbance.of(server.pid),
        tempfile.TemporaryDirectory(prefix="onetrip-bench-") as folder,
    ):
        known = parts(report, server, Path(folder))
        for name in only.split(",") if only else known:
            known[name]()
    took = time.monotonic() - began
    if only:
        print(document.aims(report), *map(document.table, report.sections), sep="\n\n")
        return
    target, picture = DOCUMENT, PLOT
    if QUICK:
        QUICK_FOLDER.mkdir(parents=True, exist_ok=True)
        target, picture = QUICK_FOLDER / DOCUMENT.name, QUICK_FOLDER / PLOT.name
        shutil.copy(DOCUMENT, target)
    document.write(target, report, took)
    shown = [section for section in report.sections if section.title in PLOTTED]
    picture.write_text(plot.svg(shown), encoding="utf-8")
    print(document.aims(report))
    print(f"\nWritten: {target} and {picture}", file=sys.stderr)


if __name__ == "__main__":
    main()

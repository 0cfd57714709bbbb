"""What onetrip weighs before it does anything: its import, its wheel, the memory of a cache."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.measure import ROUNDS, Aim, Report, Result, median

if TYPE_CHECKING:
    from pathlib import Path

WORK = "`import onetrip`, wheel, memory"
MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20

# Private memory before the first cache, with one, and with twenty more.
MEMORY = """
import json, re, sys
from onetrip import Cache

def private():
    with open("/proc/self/smaps_rollup") as lines:
        return 1024 * sum(int(n) for n in re.findall(r"Private_\\w+: +(\\d+)", lines.read()))

def idle(number):
    cache = Cache(sys.argv[1].format(number))
    cache.get("nothing")
    return cache

before = private()
kept = [idle(0)]
one = private()
kept += [idle(number + 1) for number in range(20)]
print(json.dumps([one - before, (private() - one) / 20]))
"""


def run(report: Report, redis_url: str, folder: Path, wheel: Path | None) -> None:
    _import(report)
    if wheel is None:
        report.absent["wheel"] = "WHEEL names none: `make bench` builds it"
    else:
        size = wheel.stat().st_size / MEGABYTE
        report.aims.append(Aim(WORK, "wheel ≤ 5 MB", 5, Result(size, size), "MB"))
    _memory(report, redis_url, folder)


def _import(report: Report) -> None:
    """How long the interpreter takes with the import, less how long without."""

    def spent(code: str) -> Result:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        wall = time.perf_counter() - began
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Result(wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)

    extra = []
    for _ in range(ROUNDS):
        bare, full = spent("pass"), spent("import onetrip")
        extra.append(Result(full.wall - bare.wall, full.processor - bare.processor))
    seen = median(extra)
    report.aims.append(
        Aim(
            WORK,
            "`import onetrip` ≤ 15 ms more than the bare interpreter",
            15,
            Result(seen.wall * 1e3, seen.processor * 1e3),
            "ms",
        )
    )


def _memory(report: Report, redis_url: str, folder: Path) -> None:
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    stores = {
        "memory": "memory://",
        # Each folder is opened once in a process.
        "disk": f"disk://{folder}/idle-{{}}",
        "Redis": redis_url,
    }
    for name, url in stores.items():
        told = subprocess.run(
            [sys.executable, "-c", MEMORY, url],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        first, more = (part / MEBIBYTE for part in json.loads(told.stdout))
        for what, seen in (("the first", first), ("each further", more)):
            aim = f"memory of an idle Cache ≤ 1 MiB ({name}, {what})"
            report.aims.append(Aim(WORK, aim, 1, Result(seen, seen), "MiB"))

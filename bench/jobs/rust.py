"""The crate and its peers in Rust, measured by a program of their own (bench/peers)."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from bench.measure import QUICK, Aim, Report, Result, Section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer

ONETRIP = "onetrip"
REDIS_RS = "redis-rs"
NANOSECONDS = 1e9


def run(report: Report, server: RedisServer, program: Path) -> None:
    command: list[str | Path] = [program, server.url, *(["quick"] if QUICK else [])]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    sections: dict[str, Section] = {}
    for line in told.stdout.splitlines():
        one = json.loads(line)
        section = sections.setdefault(one["title"], Section(f"Rust: {one['title']}", {}))
        section.results[one["name"]] = Result(one["wall"], one["processor"])
    report.sections.extend(sections.values())
    many, scope = sections["multi-get of 50, Redis"], sections["hit in a scope"]
    report.aim(
        "Rust: multi-get of 50, Redis", "≤ 1.1 × bare redis-rs", 1.1, many, (ONETRIP, REDIS_RS)
    )
    seen = scope.results[ONETRIP]
    nanoseconds = Result(seen.wall * NANOSECONDS, seen.processor * NANOSECONDS)
    report.aims.append(Aim("Rust: hit in a scope", "≤ 100 ns", 100, nanoseconds, "ns"))

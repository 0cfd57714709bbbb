"""Measuring side by side, on a machine that is small and noisy.

Competitors take turns, so that what disturbs one disturbs all. Idle-priority spinners keep the
processors awake: to wake a sleeping one costs more than a trip. What counts is the median of many
rounds, and its ratio to the floor of the same run.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 25
# A round is long enough for the clock, and short enough to take turns often.
ROUND_SECONDS = 0.02


@dataclass(frozen=True)
class Result:
    """Medians over all rounds, in seconds for one call."""

    name: str
    wall: float
    processor: float


def _spin() -> None:
    os.nice(19)
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(100_000):
            pass


@contextmanager
def awake() -> Iterator[None]:
    """Keep every processor busy with what yields to everything else."""
    code = "from bench.measure import _spin; _spin()"
    spinners = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _calls_in_a_round(work: Callable[[], object]) -> int:
    calls = 1
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        took = time.perf_counter() - began
        if took > ROUND_SECONDS / 4:
            return max(1, int(calls * ROUND_SECONDS / took))
        calls *= 4


def compare(competitors: dict[str, Callable[[], object]]) -> list[Result]:
    """Measure competitors in turns, in the order in which they are given."""
    calls = {name: _calls_in_a_round(work) for name, work in competitors.items()}
    walls: dict[str, list[float]] = {name: [] for name in competitors}
    processors: dict[str, list[float]] = {name: [] for name in competitors}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, work in competitors.items():
                repeat = range(calls[name])
                processor, wall = time.process_time(), time.perf_counter()
                for _ in repeat:
                    work()
                walls[name].append((time.perf_counter() - wall) / calls[name])
                processors[name].append((time.process_time() - processor) / calls[name])
    finally:
        gc.enable()
    return [
        Result(name, statistics.median(walls[name]), statistics.median(processors[name]))
        for name in competitors
    ]


def table(title: str, results: list[Result]) -> str:
    """Render results as Markdown; the first one is the floor that the others are compared to."""
    floor = results[0]
    lines = [
        f"### {title}",
        "",
        "| | wall µs | of the floor | processor µs | of the floor |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines.extend(
        f"| {result.name} | {result.wall * 1e6:.2f} | {result.wall / floor.wall:.2f} "
        f"| {result.processor * 1e6:.2f} | {result.processor / floor.processor:.2f} |"
        for result in results
    )
    return "\n".join(lines) + "\n"

"""Measuring side by side, on a machine that is small and noisy.

Competitors take turns, in another order each round, so that what disturbs one disturbs all.
Spinners of idle priority keep the processors awake: to wake a sleeping one costs more than a trip.
What counts is the median of those rounds that other programs disturbed least, and its ratio to that
of another in the same run. Whoever answers wrongly ends the benchmark.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from timeit import Timer
from typing import TYPE_CHECKING

from bench import disturbance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# A look in about a minute, at figures that are a little less steady.
QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 18 if QUICK else 90
# Of each competitor those rounds count in which the least was waited for a processor.
COUNTED = ROUNDS // 3
# A round is long enough for the clock, and so short that most of them pass without another program
# being let in between.
ROUND_SECONDS = 0.002 if QUICK else 0.004


class WrongAnswerError(AssertionError):
    """A competitor does not do the work that it is measured by."""


class Statement:
    """An expression that is measured where it stands, for what is quick: a call would be seen."""

    def __init__(self, expression: str, **names: object) -> None:
        self._seen: list[object] = []
        self._once = Timer(f"seen.append({expression})", globals={**names, "seen": self._seen})
        self._timer = Timer(expression, globals=names)

    def __call__(self) -> object:
        self._once.timeit(1)
        return self._seen.pop()

    def repeat(self, calls: int) -> None:
        """Evaluate it many times."""
        self._timer.timeit(calls)


@dataclass(frozen=True)
class Work:
    """What one competitor does, again and again, and how to see that it was done.

    `right` is what a call returns; of work that returns nothing, what `look` then does. `reset`
    goes before each call and is not measured. A call does the work `times` times.
    """

    name: str
    call: Callable[[], object]
    right: object
    look: Callable[[], object] | None = None
    reset: Callable[[], object] | None = None
    times: int = 1

    def check(self) -> None:
        """Raise unless the work is done rightly."""
        if self.reset is not None:
            self.reset()
        seen = self.call()
        if self.look is not None:
            seen = self.look()
        if seen != self.right:
            raise WrongAnswerError(
                f"{self.name} gives {seen!r:.200}, where {self.right!r:.200} is right"
            )


@dataclass(frozen=True)
class Result:
    """In seconds, for the work done once: a round, or the median of some."""

    wall: float
    processor: float


@dataclass
class Section:
    """What was measured side by side; ratios are told to the first of them."""

    title: str
    results: dict[str, Result]
    note: str = ""

    def ratio(self, one: str, other: str) -> Result:
        """How many times as long one takes as another."""
        mine, theirs = self.results[one], self.results[other]
        return Result(mine.wall / theirs.wall, mine.processor / theirs.processor)


@dataclass(frozen=True)
class Aim:
    """A row of the aims: what should be, and what was seen. All are upper limits."""

    work: str
    aim: str
    limit: float
    seen: Result
    unit: str = "×"
    # Whether the aim is of the processor's time as well.
    both: bool = False

    @property
    def met(self) -> bool:
        """Whether the aim is reached."""
        return self.seen.wall <= self.limit and (not self.both or self.seen.processor <= self.limit)


@dataclass
class Report:
    """All that was measured, and what could not be."""

    sections: list[Section] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def compare(self, title: str, works: Sequence[Work | None], note: str = "") -> Section:
        """Measure those competitors that are there, and keep what was seen."""
        section = Section(title, compare([work for work in works if work is not None]), note)
        self.sections.append(section)
        print(f"{title}: {_summary(section)}", file=sys.stderr, flush=True)
        return section

    def aim(
        self,
        work: str,
        aim: str,
        limit: float,
        section: Section,
        pair: tuple[str, str],
        *,
        both: bool = False,
    ) -> None:
        """Hold an aim against the ratio of two, unless the second could not be measured."""
        one, other = pair
        if other in section.results:
            seen = section.ratio(one, other)
            self.aims.append(Aim(work, aim, limit, seen, both=both))


def _summary(section: Section) -> str:
    first = next(iter(section.results))
    ratios = {name: section.ratio(name, first).wall for name in section.results}
    return ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items())


def _spin(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(100_000):
            pass


@contextmanager
def awake() -> Iterator[None]:
    """Keep every processor busy with what yields to everything else."""
    spinners = [
        subprocess.Popen(
            [sys.executable, "-c", f"from bench.measure import _spin; _spin({processor})"]
        )
        for processor in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _round(work: Work, calls: int) -> Result:
    """Time some calls, for the work done once."""
    wall = processor = 0.0
    if isinstance(work.call, Statement):
        busy, began = time.process_time(), time.perf_counter()
        work.call.repeat(calls)
        wall, processor = time.perf_counter() - began, time.process_time() - busy
    elif work.reset is None:
        call, repeat = work.call, range(calls)
        busy, began = time.process_time(), time.perf_counter()
        for _ in repeat:
            call()
        wall, processor = time.perf_counter() - began, time.process_time() - busy
    else:
        for _ in range(calls):
            work.reset()
            busy, began = time.process_time(), time.perf_counter()
            work.call()
            wall += time.perf_counter() - began
            processor += time.process_time() - busy
    done = calls * work.times
    return Result(wall / done, processor / done)


def _calls_in_a_round(work: Work) -> int:
    calls = 1
    while True:
        # The quickest of some: another program may have been let in between.
        took = min(_round(work, calls).wall for _ in range(3)) * calls * work.times
        if took > ROUND_SECONDS / 4:
            return max(1, int(calls * ROUND_SECONDS / took))
        calls *= 4


def compare(works: Sequence[Work]) -> dict[str, Result]:
    """Measure competitors in turns."""
    for work in works:
        work.check()
    calls = {work.name: _calls_in_a_round(work) for work in works}
    rounds: dict[str, list[tuple[float, Result]]] = {work.name: [] for work in works}
    gc.collect()
    gc.disable()
    try:
        for number in range(ROUNDS):
            first = number % len(works)
            for work in (*works[first:], *works[:first]):
                # What the one before has driven out of the processor's caches is fetched again.
                _round(work, 1)
                before = disturbance.waited()
                result = _round(work, calls[work.name])
                waited = max(0, disturbance.waited() - before)
                rounds[work.name].append((waited / result.wall, result))
    finally:
        gc.enable()
    for work in works:
        work.check()
    return {name: median(_quiet(results)) for name, results in rounds.items()}


def _quiet(rounds: list[tuple[float, Result]]) -> list[Result]:
    """The rounds that were disturbed least, of as many calls each."""
    ordered = sorted(rounds, key=lambda one: one[0])
    return [result for _, result in ordered[:COUNTED]]


def median(results: Sequence[Result]) -> Result:
    """The median of wall and processor time, each for itself."""
    return Result(
        statistics.median(result.wall for result in results),
        statistics.median(result.processor for result in results),
    )

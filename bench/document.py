"""docs/benchmarks.md: what was measured is written between two marks, all else is kept."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from bench.measure import ROUNDS
from bench.peer import PACKAGES, version

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.measure import Aim, Report, Section

BEGIN = "<!-- measured: make bench -->"
END = "<!-- end of what was measured -->"


def write(path: Path, report: Report, took: float) -> None:
    """Replace what was measured before."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{path} lacks {BEGIN} and {END}; what is measured goes between them")
    measured = "\n\n".join([BEGIN, aims(report), machine(took), *map(table, report.sections), END])
    path.write_text(before + measured + after, encoding="utf-8")


def aims(report: Report) -> str:
    """The table of the aims, and what could not be held against them."""
    met = sum(aim.met for aim in report.aims)
    lines = [
        f"{met} of {len(report.aims)} aims are met.",
        "",
        "| work | aim | limit | wall | processor | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    before = ""
    for aim in report.aims:
        work = "" if aim.work == before else aim.work
        before = aim.work
        lines.append(
            f"| {work} | {aim.aim} | {_figure(aim, aim.limit)} | {_figure(aim, aim.seen.wall)} "
            f"| {_processor(aim)} | {'met' if aim.met else '**missed**'} |"
        )
    if report.absent:
        lines.append("")
        lines.extend(f"Not measured: {name}, because {why}." for name, why in report.absent.items())
    return "\n".join(lines)


def _figure(aim: Aim, figure: float) -> str:
    return f"{figure:.3g} {aim.unit}"


def _processor(aim: Aim) -> str:
    # What has no time has no processor's time.
    return _figure(aim, aim.seen.processor) if aim.unit in ("×", "ms", "ns") else ""


def machine(took: float) -> str:
    """What it was measured on, and with."""
    peers = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    today = datetime.now(timezone.utc).date()
    measured = (
        f"Measured on {today}, in {took / 60:.0f} minutes of {ROUNDS} rounds. "
        f"The machine and its software: {_processors()}, {_memory()}, {_system()}, "
        f"Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{_said('rustc', '--version')}, {_said('redis-server', '--version')}, "
        f"{_said('memcached', '--version')}. The load average of the last quarter of an hour was "
        f"{os.getloadavg()[2]:.1f}, of which the spinners make {os.cpu_count()}."
    )
    return f"{measured}\n\nPeers: {peers}."


def _said(*command: str) -> str:
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"no {command[0]}"
    # The program and its version; Redis goes on about how it was built.
    return " ".join(told.split()[:3])


def _lines(path: str) -> Iterable[tuple[str, str]]:
    with open(path, encoding="utf-8") as lines:  # noqa: PTH123 - a file of the kernel
        for line in lines:
            name, _, value = line.replace("=", ":", 1).partition(":")
            yield name.strip(), value.strip().strip('"')


def _processors() -> str:
    model = dict(_lines("/proc/cpuinfo")).get("model name", platform.machine())
    return f"{os.cpu_count()} × {model}"


def _memory() -> str:
    kilobytes = int(dict(_lines("/proc/meminfo"))["MemTotal"].split()[0])
    return f"{kilobytes / (1 << 20):.0f} GiB"


def _system() -> str:
    return dict(_lines("/etc/os-release")).get("PRETTY_NAME", "an unnamed system")


def table(section: Section) -> str:
    """One comparison; ratios are to its first line."""
    first = next(iter(section.results))
    lines = [
        f"### {section.title}",
        "",
        *([section.note, ""] if section.note else []),
        f"| | wall | processor | wall, × {first} | processor, × {first} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, result in section.results.items():
        ratio = section.ratio(name, first)
        lines.append(
            f"| {name} | {_time(result.wall)} | {_time(result.processor)} "
            f"| {ratio.wall:.3g} | {ratio.processor:.3g} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    nanoseconds = seconds * 1e9
    return f"{nanoseconds:.3g} ns" if nanoseconds < 1000 else f"{nanoseconds / 1000:,.1f} µs"

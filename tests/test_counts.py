"""Instructions of fixed jobs, counted by callgrind and compared with bench/counts/counts.json.

No clock is read: a count is the same on a busy machine. What the interpreter does is left out, so
that another Python counts alike; another Rust may not, and then they are written anew, as they are
when a change is worth its instructions, or has saved some that are not to be lost again unseen:
`UPDATE=1 pytest tests/test_counts.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onetrip import _core

ROOT = Path(__file__).resolve().parents[1]
COUNTS = ROOT / "bench" / "counts" / "counts.json"
COMMITTED: dict[str, int] = json.loads(COUNTS.read_text(encoding="utf-8"))

# More than this is a loss that somebody has to want. Other processors copy memory in other ways.
MOST = 1.1

EXTENSION = Path(_core.__file__).name

PYTHON = """
import sys
from onetrip import Cache

job, times = sys.argv[1], int(sys.argv[2])
cache = Cache("memory://")

@cache.cached(key_fn=lambda args, kwargs: args[0])
def shout(number):
    return f"{number}!"

rows = [{"id": number, "title": f"a title {number}", "tags": ["a", "b"]} for number in range(100)]
cache.set("rows", rows)

if job == "Python: cached call in a scope":
    with cache.scope(), cache.watch() as seen:
        for _ in range(times):
            shout(5)
    assert seen.hits == times - 1
if job == "Python: get 100 dicts":
    for _ in range(times):
        assert cache.get("rows") is not None
if job == "Python: set 100 dicts":
    for _ in range(times):
        cache.set("rows", rows)
"""


# How often each is done. Once more it is done a few times, and the difference is the job alone.
RUST = {
    "hit in a scope": 1000,
    "memory get, 1.5 kB": 1000,
    "memory set, 1.5 kB": 1000,
    "key and digest": 1000,
    "encode 100 maps": 10,
    "decode 100 maps": 10,
    "preload of 50, Redis": 50,
}
FEW = 5
# These are compared to none of them, since an interpreter is slow to start there.
IN_PYTHON = {
    "Python: cached call in a scope": 1000,
    "Python: get 100 dicts": 20,
    "Python: set 100 dicts": 20,
}


@pytest.fixture(scope="module")
def program() -> Path:
    """The jobs in Rust, built as the extension is: what that is made of is there already."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--message-format=json"]
    built = subprocess.run(
        [*command, "--package", "onetrip-counts"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in built.stdout.splitlines()]
    return next(Path(one["executable"]) for one in told if one.get("executable"))


def callgrind(folder: Path, command: list[str | Path]) -> str:
    """What callgrind writes of a program."""
    valgrind = shutil.which("valgrind")
    assert valgrind, "valgrind is not installed: `make test` installs it"
    out = folder / "callgrind.out"
    done = subprocess.run(
        [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out.read_text(encoding="utf-8")


def total(profile: str) -> int:
    """The instructions of a whole program."""
    found = re.search(r"^(?:totals|summary): (\d+)", profile, re.MULTILINE)
    assert found
    return int(found[1])


def within(profile: str, library: str) -> int:
    """The instructions of one library, without those of what it calls in others."""
    names: dict[str, str] = {}
    inside = called = False
    count = 0
    for line in profile.splitlines():
        if named := re.match(r"(c?ob)=(\(\d+\))(?: (.*))?", line):
            # A name is told once, and then its number alone.
            names.setdefault(named[2], named[3] or "")
            if named[1] == "ob":
                inside = names[named[2]].endswith(library)
        elif line.startswith("calls="):
            called = True
        elif cost := re.match(r"[\d+*-]\S* (\d+)$", line):
            # The line behind a call tells what it cost the callee.
            count += int(cost[1]) if inside and not called else 0
            called = False
    return count


def compare(name: str, count: int) -> None:
    """Hold a count against the committed one, or write it down."""
    if os.environ.get("UPDATE"):
        counts = json.loads(COUNTS.read_text(encoding="utf-8"))
        counts[name] = count
        COUNTS.write_text(json.dumps(counts, indent=4) + "\n", encoding="utf-8")
        return
    before = COMMITTED[name]
    change = f"{name}: {count:,} instructions, where {before:,} are in {COUNTS.relative_to(ROOT)}"
    again = f"UPDATE=1 pytest {Path(__file__).relative_to(ROOT)}"
    assert count <= before * MOST, (
        f"{change}. Find what costs more (callgrind_annotate), or, if it is worth it: {again}"
    )


@pytest.mark.parametrize("name", RUST)
def test_no_more_instructions_than_before_in_rust(name: str, program: Path, tmp_path: Path) -> None:
    few, many = (
        total(callgrind(tmp_path, [program, name, str(times)])) for times in (FEW, FEW + RUST[name])
    )
    compare(name, (many - few) // RUST[name])


def in_the_extension(folder: Path, name: str, times: int) -> int:
    return within(callgrind(folder, [sys.executable, "-c", PYTHON, name, str(times)]), EXTENSION)


@pytest.fixture(scope="module")
def none(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What the extension does before any of the jobs in Python."""
    return in_the_extension(tmp_path_factory.mktemp("none"), "none", 0)


@pytest.mark.parametrize("name", IN_PYTHON)
def test_no_more_instructions_than_before_in_the_binding(
    name: str, none: int, tmp_path: Path
) -> None:
    times = IN_PYTHON[name]
    compare(name, (in_the_extension(tmp_path, name, times) - none) // times)


def test_every_recorded_count_has_a_job(program: Path) -> None:
    """A job that was dropped leaves no count behind, and none is forgotten."""
    listed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True)
    assert listed.stdout.splitlines() == list(RUST)
    assert set(COMMITTED) == {*RUST, *IN_PYTHON}

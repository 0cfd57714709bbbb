"""Each program here runs, prints what it says that it prints, and is in the index."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))
PROMISE = "It prints:\n\n"


def promise(path: Path) -> str | None:
    """What a program says that it prints, in its docstring."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    _, found, output = told.partition(PROMISE)
    return textwrap.dedent(output) + "\n" if found else None


PROGRAMS = [path for path in FILES if promise(path) is not None]
TESTS = [path for path in FILES if promise(path) is None]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_output_matches_the_docstring(path: Path) -> None:
    done = run("-W", "error", path)
    assert done.stderr == ""
    assert done.stdout == promise(path)
    assert done.returncode == 0


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_pytest_example_passes(path: Path) -> None:
    done = run("-m", "pytest", "-q", path)
    assert done.returncode == 0, done.stdout


def test_index_lists_every_example() -> None:
    index = (HERE / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        assert f"]({path.name})" in index
    for line in index.splitlines():
        if line.startswith("| ["):
            assert (HERE / line.partition("](")[2].partition(")")[0]).exists(), line

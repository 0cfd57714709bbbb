"""The README tells the truth: its Python runs, and its table is one that `make demo` prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
TABLE = re.search(r"<!-- table: make demo -->\n```text\n(.*?)```", README, re.DOTALL)


def heading(block: str) -> str:
    """The section of the README that a block stands in."""
    above = README.partition(block)[0]
    return str(re.findall(r"^## (.*)$", above, re.MULTILINE)[-1])


@pytest.mark.parametrize("block", PYTHON, ids=heading)
def test_its_python_runs(block: str, tmp_path: Path) -> None:
    program = tmp_path / "readme.py"
    program.write_text(block, encoding="utf-8")
    how = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "def test_" in block else []
    done = subprocess.run(
        [sys.executable, "-W", "error", *how, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_table_keeps_the_promise() -> None:
    assert TABLE is not None
    told = re.search(r"(\d+) notes, (\d+) cached pieces, over .*simulated", TABLE[1])
    assert told is not None
    notes, pieces = int(told[1]), int(told[2])
    rows = re.findall(r"^(cold|warm), (without|with) preload +([\d,]+)", TABLE[1], re.MULTILINE)
    assert pieces == 2 * notes
    assert [int(trips) for _, _, trips in rows] == [2 * pieces, 1, pieces, 1]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target

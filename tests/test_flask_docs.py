"""The pages about ages, Flask, ASGI and pages that learn tell the truth: their Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("how-old", "flask", "asgi", "pages")
BLOCKS = {
    f"{name}-{number}": block
    for name in PAGES
    for number, block in enumerate(
        re.findall(
            r"^```python\n(.*?)^```$",
            (DOCS / f"{name}.md").read_text(encoding="utf-8"),
            re.DOTALL | re.MULTILINE,
        )
    )
}


@pytest.mark.parametrize("block", BLOCKS)
def test_its_python_runs(block: str, tmp_path: Path) -> None:
    program = tmp_path / "page.py"
    program.write_text(BLOCKS[block], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_its_links_lead_somewhere(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", page):
        linked = DOCS / (target or f"{name}.md")
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [title.lower().replace(" ", "-") for title in titles], anchor

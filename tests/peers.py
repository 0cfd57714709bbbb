"""Tests of other projects, run on onetrip: unpacked from their sdists, in a pytest of their own.

    run(sdist("cachelib") / "tests", tmp_path, ["tests/cachelib_suite.py"], STORE="memory://")

The release is the one that is installed, its hash the one in `requirements/dev.txt`. It is kept in
`target/sdists`, and downloaded when it is not there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "target" / "sdists"


def sdist(project: str) -> Path:
    """The folder of the sdist of the release of `project` that is installed."""
    name = f"{project}-{version(project)}"
    folder = KEPT / name
    if not folder.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
            _download(project, Path(scratch))
            (archive,) = Path(scratch).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            (unpacked,) = (path for path in Path(scratch).iterdir() if path.is_dir())
            # Whole or not at all, should this be stopped in between.
            unpacked.rename(folder)
    return folder


def _download(project: str, folder: Path) -> None:
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    release = re.escape(f"{project}=={version(project)}")
    found = re.search(rf"^{release}.*\\\n(?: +--hash=.*\n)+", locked, re.MULTILINE)
    assert found is not None, f"requirements/dev.txt does not lock {project} {version(project)}"
    requirement = folder / "requirement.txt"
    requirement.write_text(found[0].rstrip("\\\n") + "\n", encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    options += ["--no-binary", project, "--dest", str(folder), "--requirement", str(requirement)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options], check=True)


def run(
    tests: Path,
    scratch: Path,
    what: Sequence[str | Path],
    *,
    plugin: str | None = None,
    **environ: str,
) -> int:
    """Run `what` beside the modules in `tests`; how many passed. None may fail or be skipped."""
    report = scratch / "report.xml"
    (scratch / "pytest.ini").write_text("[pytest]\n")
    # Their own fixtures would start servers on ports that are somebody else's.
    options = ["--noconftest", "-p", "no:cacheprovider", "--import-mode=importlib", "-q"]
    options += ["-p", plugin] if plugin else []
    options += ["--rootdir", str(tests), "-c", str(scratch / "pytest.ini")]
    path = os.pathsep.join(map(str, [ROOT / "python", ROOT, tests]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *map(str, what)],
        cwd=scratch,
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (suite,) = ET.parse(report).getroot()  # noqa: S314 - we wrote it
    assert int(suite.attrib["skipped"]) == 0, done.stdout
    return int(suite.attrib["tests"])

"""Fetches each Django of requirements/django.txt, with its tests, into target/django/<version>.

What is there already is left as it is. Nothing is installed: a test puts one of these folders on
the path of a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "requirements" / "django.txt"
TARGET = ROOT / "target" / "django"


def requirements(name: str) -> dict[str, str]:
    """Return the line of each version of a package."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    lines = re.finditer(rf"^{name}==(\S+) .+$", text, re.MULTILINE)
    return {line[1]: line[0] for line in lines}


def folder(version: str) -> Path:
    """Return where a version is: the package, and `tests` beside it."""
    return TARGET / version


def pip(command: str, line: str, *options: str, **environment: str) -> None:
    """Run pip for one requirement, which has its hash with it."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirement:
        requirement.write(line)
        requirement.flush()
        quiet = ["--quiet", "--disable-pip-version-check"]
        what = ["--no-deps", "--require-hashes", "-r", requirement.name]
        subprocess.run(  # noqa: S603 - the program is this Python, and the arguments stand here
            [sys.executable, "-m", "pip", *quiet, command, *options, *what],
            check=True,
            env={**os.environ, **environment},
        )


def fetch(version: str, line: str, builder: str) -> None:
    """Fetch one version, unless it is there."""
    with tempfile.TemporaryDirectory(dir=TARGET) as temporary:
        # pip asks an sdist who it is, by what would build it.
        options = ["--no-build-isolation", "--no-binary", "django", "--dest", temporary]
        pip("download", line, *options, PYTHONPATH=builder)
        [sdist] = Path(temporary).glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(temporary, filter="data")
        [unpacked] = (path for path in Path(temporary).iterdir() if path.is_dir())
        # Renamed when it is whole: another run that was as quick has the same.
        if not folder(version).exists():
            unpacked.rename(folder(version))


def main() -> None:
    """Fetch what is not there, side by side, and drop what is no longer asked for."""
    wanted = requirements("django")
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in TARGET.iterdir():
        if re.fullmatch(r"[\d.]+", path.name) and path.name not in wanted:
            shutil.rmtree(path, ignore_errors=True)
    missing = [version for version in wanted if not folder(version).exists()]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as builder, ThreadPoolExecutor() as pool:
        [setuptools] = requirements("setuptools").values()
        pip("install", setuptools, "--target", builder)
        fetched = [pool.submit(fetch, version, wanted[version], builder) for version in missing]
        for one in fetched:
            one.result()


if __name__ == "__main__":
    main()

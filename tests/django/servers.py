"""Memcached servers for the tests of Django."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import START_SECONDS, STOP_SECONDS, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def memcached() -> Iterator[str]:
    """A `memcached` of its own on a socket in a folder of its own; its URL."""
    program = shutil.which("memcached")
    if program is None:
        raise ServerError("memcached is not installed: `make test` installs it")
    with tempfile.TemporaryDirectory(prefix="onetrip-") as folder:
        path = Path(folder) / "memcached.sock"
        # Only root may say whom it runs as, and has to.
        command = [program, "-s", str(path), "-u", "root"]
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        process = subprocess.Popen([*guard, *command], stderr=subprocess.PIPE, text=True)
        try:
            _wait_for(path, process)
            yield f"memcached+unix://{path}"
        finally:
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(str(path)) != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise ServerError(f"memcached does not answer: {process.communicate()[1]}")
            time.sleep(0.01)

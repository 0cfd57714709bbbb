"""The pages under the servers that applications run under: a warm page is one trip in each."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from test_demo import environment
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
GUNICORN = [
    "gunicorn",
    "--no-control-socket",
    "--bind=fd://{fd}",
    "--workers=1",
    "--log-level=warning",
    "app:app",
]
UVICORN = ["uvicorn", "--fd={fd}", "--log-level=warning", "asgi:app"]

SERVERS = {
    "gunicorn sync": [*GUNICORN, "--worker-class=sync"],
    "gunicorn sync, forked with the application": [*GUNICORN, "--preload"],
    "gunicorn gthread": [*GUNICORN, "--worker-class=gthread", "--threads=4"],
    "gunicorn gevent": [*GUNICORN, "--worker-class=gevent"],
    "uvicorn": [*UVICORN, "--loop=asyncio"],
    "uvicorn, uvloop": [*UVICORN, "--loop=uvloop"],
}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    for name in ("first", "second", "third"):
        (tmp_path / f"{name}.md").write_text(f"# The {name} note\n\nIts *text*.\n")
    return tmp_path


@contextmanager
def serving(command: list[str], **settings: str) -> Iterator[str]:
    """A server of the notes; gives its address, and checks that it ends in order."""
    # It listens already, so a request that comes too early waits for the server to accept it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, (host, port) = listener.fileno(), listener.getsockname()
        run = subprocess.Popen(
            [sys.executable, "-m", *(part.format(fd=fd) for part in command)],
            cwd=HERE,
            env=environment(**settings),
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    with run:
        try:
            yield f"http://{host}:{port}"
        finally:
            run.terminate()
            try:
                told, _ = run.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                run.kill()
                raise
    # uvicorn ends in order and then by the signal that told it to.
    assert run.returncode in {0, -signal.SIGTERM}
    assert told == ""


def read(url: str) -> tuple[str, str]:
    """A page, and what its `Server-Timing` header says of its trips."""
    with urlopen(url, timeout=30) as response:  # noqa: S310 - an address of ours
        timing = re.search(r'desc="(.*), .* hits?"', response.headers["Server-Timing"])
        text = response.read().decode()
    assert timing is not None
    return text, timing[1]


@pytest.mark.parametrize("server", SERVERS)
def test_a_warm_page_is_one_trip(server: str, notes: Path, redis_server: RedisServer) -> None:
    redis_server.flush()
    paths = ["/", "/notes/first.md", "/notes/second.md", "/notes/third.md"]
    paths += ["/?preload=learned", "/notes/first.md?preload=learned"]
    with (
        serving(SERVERS[server], NOTES=str(notes), STORE=redis_server.url) as url,
        ThreadPoolExecutor(8) as readers,
    ):
        assert read(f"{url}/")[1] == "1 trip"
        # Workers tell each other what pages read, now and then, with a trip of theirs.
        for path in paths:
            read(url + path)
        alone = {}
        for path in paths:
            redis_server.reset_stats()
            page, timing = read(url + path)
            # As the server itself counts what reached it.
            assert (redis_server.commandstats(), redis_server.reads()) == ({"mget": 1}, 1)
            assert timing == "1 trip"
            assert "<em>text</em>" in page or "All notes" in page
            alone[path] = page.partition("<footer>")[0]
        # Read at once, they are the same, and as cheap.
        redis_server.reset_stats()
        pages = readers.map(lambda path: (path, *read(url + path)), paths * 25)
        for path, page, timing in pages:
            assert (page.partition("<footer>")[0], timing) == (alone[path], "1 trip")
        assert redis_server.commandstats()["mget"] == len(paths) * 25

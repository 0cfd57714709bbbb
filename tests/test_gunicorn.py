"""Under `gunicorn --preload`, the parent and its workers go on, and share no socket."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache
from tests.patience import PATIENCE, pause, wait_until
from tests.servers import MemcachedServer, RedisServer
from tests.sockets import children, ports_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from tests.servers import Server

WORKERS = 2


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Gunicorn:
    """Workers of a kind, forked by a parent that has made trips to the store."""

    def __init__(self, kind: str, store_url: str, workers: int) -> None:
        # Short, for a socket's path may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="onetrip-"))
        self._socket, self._log = self._folder / "http", self._folder / "log"
        program = [sys.executable, "-m", "gunicorn", "--preload"]
        options = ["--workers", str(workers), "--worker-class", kind]
        if kind == "gthread":
            options += ["--threads", "4"]
        options += ["--bind", f"unix:{self._socket}", "--worker-tmp-dir", str(self._folder)]
        options += ["--config", "python:tests.gunicorn_app", "--timeout", "60"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, *options, "tests.gunicorn_app:application"],
                env={**os.environ, "STORE_URL": store_url},
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        try:
            wait_until(self._is_ready)
        except BaseException:
            self.__exit__()
            raise

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            self.get("")
        except OSError:
            return False
        return True

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> dict[str, Any]:
        connection = _Connection(self._socket)
        try:
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            assert response.status == http.HTTPStatus.OK, self.log()
            answer: dict[str, Any] = json.load(response)
        finally:
            connection.close()
        return answer

    def workers(self) -> set[int]:
        return children(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for worker in self.workers():
                os.kill(worker, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)


@pytest.fixture(scope="module", params=[RedisServer, MemcachedServer])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that nobody else is connected to."""
    with request.param() as server:
        yield server


@pytest.fixture
def cache(server: Server) -> Iterator[Cache]:
    """What the test itself reads and writes."""
    server.flush()
    cache = Cache(server.url, on_error="raise", trip_timeout=PATIENCE)
    yield cache
    cache.close()


def visit(gunicorn: Gunicorn, cache: Cache) -> None:
    """Ask for pages of many tags at once, until all workers have answered; each gets its own."""
    tags = [f"tag:{number}" for number in range(20)]
    cache.set_many({tag: f"value of {tag}" for tag in tags})
    answered: set[int] = set()

    def visit_all() -> bool:
        with ThreadPoolExecutor(8) as pool:
            for tag, answer in zip(tags, pool.map(gunicorn.get, tags), strict=True):
                assert answer["found"] == f"value of {tag}"
                assert cache[f"{tag} answered by"] == answer["pid"]
                answered.add(answer["pid"])
        return len(answered) == WORKERS

    wait_until(visit_all)
    assert answered == gunicorn.workers()


def assert_shares_no_socket(gunicorn: Gunicorn, server: Server, cache: Cache) -> None:
    """What the kernel says that each process holds, and what the server says of its clients."""
    cache.close()
    parents = ports_to(server.port, gunicorn.pid)
    held = [ports_to(server.port, worker) for worker in gunicorn.workers()]
    assert all(held)
    everybody = parents.union(*held)
    assert sum(map(len, [parents, *held])) == len(everybody), (parents, held)
    # The server hears somewhat later of the end of a connection.
    wait_until(lambda: server.clients() == everybody)


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_parent_and_workers_share_no_socket(server: Server, cache: Cache, kind: str) -> None:
    with Gunicorn(kind, server.url, WORKERS) as gunicorn:
        visit(gunicorn, cache)
        assert_shares_no_socket(gunicorn, server, cache)
        # The parent goes on: it makes a trip before it begins another worker.
        os.kill(min(gunicorn.workers()), signal.SIGKILL)
        wait_until(lambda: cache.get("noticed by") == gunicorn.pid)
        wait_until(lambda: len(gunicorn.workers()) == WORKERS)
        visit(gunicorn, cache)
        assert_shares_no_socket(gunicorn, server, cache)


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_slow_request_does_not_block_others(server: Server, cache: Cache, kind: str) -> None:
    cache.set("tag", "value")
    with Gunicorn(kind, server.url, 1) as gunicorn, ThreadPoolExecutor(1) as pool:
        pause(server.pid)
        try:
            page = pool.submit(gunicorn.get, "tag")
            wait_until(lambda: gunicorn.get("")["waiting"])
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert page.result()["found"] == "value"

"""Sites of the rows: real processes that serve a program, and what a test does with them.

page = site.begin("job/")            # under way in one process, until the test lets it go on
site.do("set", "job", "other")       # meanwhile, in another process
page.go()
assert page.text() == "…"
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pytest

from tests.patience import PATIENCE, wait_until
from tests.sockets import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis
    from typing_extensions import Self

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

KINDS = ("control", "onetrip")

# Between what another process writes and the page's next read, in seconds. What a page brought
# may answer for 0.1.
DELAYS = (0.0, 0.02, 0.04, 0.08)

# Visits after which a page is known, in the process where it will be under way and in others.
VISITS = 12
FEW_VISITS = 4

# No page waits more often than this.
MEETINGS = 20

_names = itertools.count()


class Kind(NamedTuple):
    """How a site is served."""

    program: str
    workers: int = 2
    sessions: str = "cache"
    store: str = "redis"
    # Where the pages of every framework are.
    pages: str = ""

    @property
    def is_asgi(self) -> bool:
        return self.program.split(":")[0].rpartition(".")[2] in ("asgi", "fastapi_app")


_PROGRAMS = "tests.rows.programs"

SITES = {
    "django": Kind(f"{_PROGRAMS}.wsgi:application"),
    "django-db": Kind(f"{_PROGRAMS}.wsgi:application", sessions="cached_db"),
    "django-asgi": Kind(f"{_PROGRAMS}.asgi:application", pages="a/"),
    "cachalot": Kind(f"{_PROGRAMS}.wsgi:application"),
    "flask": Kind(f"{_PROGRAMS}.flask_app:application"),
    "flask-memory": Kind(f"{_PROGRAMS}.flask_app:application", workers=1, store="memory"),
    "fastapi": Kind(f"{_PROGRAMS}.fastapi_app:application"),
}


class Answer(NamedTuple):
    """What a process answered."""

    status: int
    text: str
    cookies: dict[str, str]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


class Meeting:
    """The test's side of a page's `meet()`."""

    def __init__(self, desk: redis.Redis) -> None:
        self._desk = desk
        self.name = f"meeting-{next(_names)}"

    def comes(self, seconds: float) -> bool:
        """Wait at most so long for the page; whether it came, and did not end."""
        told = self._desk.blpop([f"arrived:{self.name}"], timeout=seconds)
        return told is not None and told[1] == "1"

    def end(self) -> None:
        """Tell that the page will not come any more."""
        self._desk.rpush(f"arrived:{self.name}", "ended")

    def go(self) -> None:
        self._desk.rpush(f"go:{self.name}", 1)

    def leave(self) -> None:
        """Have the page go on, however often it waits."""
        self._desk.rpush(f"go:{self.name}", *[1] * MEETINGS)


class Page:
    """A page under way, in a process."""

    def __init__(self, meeting: Meeting, answer: Future[Answer]) -> None:
        self._meeting = meeting
        self._answer = answer

    def wait(self) -> None:
        """Return when the page stands at its next `meet()`."""
        assert self.comes(PATIENCE), "the page has ended"

    def comes(self, seconds: float) -> bool:
        """Whether the page comes to its next `meet()` so soon, before it ends."""
        if self._meeting.comes(seconds):
            return True
        if self._answer.done():
            # One that failed says so.
            self.answer()
        return False

    def go(self) -> None:
        self._meeting.go()

    def answer(self) -> Answer:
        answer = self._answer.result(PATIENCE)
        assert answer.status < http.HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
        return answer

    def text(self) -> str:
        """What it answered, when it has ended."""
        return self.answer().text


class Stream:
    """A response that is read line by line, while it is made."""

    def __init__(self, meeting: Meeting, connection: _Connection) -> None:
        self._meeting = meeting
        self._connection = connection
        self._response: http.client.HTTPResponse | None = None

    def wait(self) -> None:
        """Return when the stream stands at its next `meet()`."""
        assert self._meeting.comes(PATIENCE)

    def go(self) -> None:
        self._meeting.go()

    def line(self) -> str:
        """Read the next line, which is empty at the end."""
        if self._response is None:
            self._response = self._connection.getresponse()
            assert self._response.status == http.HTTPStatus.OK
        return self._response.readline().decode().rstrip("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()


class Site:
    """A program served by processes that are told apart: `worker` says which one answers."""

    def __init__(self, name: str, kind: str, desk: redis.Redis, **env: str) -> None:
        self.name, self.kind = name, kind
        self._site = SITES[name]
        self._desk = desk
        # Short, for a socket's path may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="onetrip-"))
        self._sockets = [self._folder / f"http{number}" for number in range(self.workers)]
        self._log = self._folder / "log"
        self._pool = ThreadPoolExecutor(64)
        self._env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": f"{_PROGRAMS}.settings",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", ROOT))),
            "ROWS_KIND": kind,
            "ROWS_SITE": name,
            "ROWS_SESSIONS": self._site.sessions,
            **env,
        }
        self._begun: list[tuple[Meeting, Future[Answer] | None]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for command in self._commands():
                self._start(command)
            wait_until(self._are_ready)
        except BaseException:
            self.stop()
            raise

    @property
    def workers(self) -> int:
        return self._site.workers

    def _commands(self) -> Iterable[list[str]]:
        python = [sys.executable, "-m"]
        if self._site.is_asgi:
            for path in self._sockets:
                options = ["--uds", str(path), "--log-level", "warning", "--lifespan", "off"]
                yield [*python, "uvicorn", *options, self._site.program]
        else:
            options = ["--preload", "--workers", str(self.workers), "--worker-class", "gthread"]
            options += ["--threads", "24", "--timeout", "60", "--log-level", "warning"]
            options += ["--config", f"python:{_PROGRAMS}.gunicorn_config"]
            options += ["--worker-tmp-dir", str(self._folder), "--no-control-socket"]
            for path in self._sockets:
                options += ["--bind", f"unix:{path}"]
            yield [*python, "gunicorn", *options, self._site.program]

    def _start(self, command: list[str]) -> None:
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, env=self._env, cwd=ROOT, stdout=log, stderr=log)
            )

    def _are_ready(self) -> bool:
        assert all(process.poll() is None for process in self._processes), self.log()
        try:
            for worker in range(self.workers):
                self.do("get", "nothing", worker=worker)
        except OSError:
            return False
        return True

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def terminate(self) -> None:
        """Have its processes stop, and do not wait for that."""
        for process in self._processes:
            process.terminate()

    def stop(self) -> None:
        """Stop its processes, whatever they do."""
        for process in self._processes:
            workers = children(process.pid) if process.poll() is None else set()
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                for worker in workers:
                    # One may have ended meanwhile.
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                process.kill()
                process.wait()
        self._pool.shutdown()
        shutil.rmtree(self._folder)

    def ask(
        self,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        worker: int = 0,
        cookies: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Get a page, or post to it if there is a `body`."""
        connection = self._connect(path, query, worker, cookies, body)
        try:
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        found: SimpleCookie = SimpleCookie()
        for header in response.headers.get_all("Set-Cookie") or ():
            found.load(header)
        given = {name: morsel.value for name, morsel in found.items()}
        return Answer(response.status, text, {**(cookies or {}), **given})

    def _connect(
        self,
        path: str,
        query: dict[str, Any] | None,
        worker: int,
        cookies: dict[str, str] | None,
        body: bytes | None = None,
    ) -> _Connection:
        connection = _Connection(self._sockets[worker % self.workers])
        headers = {"X-Forwarded-For": "192.0.2.1"}
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        target = f"/{path}" + (f"?{urlencode(query)}" if query else "")
        method = "GET" if body is None else "POST"
        connection.request(method, target, body=body, headers=headers)
        return connection

    def get(self, path: str, worker: int = 0, **query: Any) -> str:
        """Get a page that answers well."""
        answer = self.ask(path, query, worker=worker)
        assert answer.status == http.HTTPStatus.OK, f"{answer}\n{self.log()}"
        return answer.text

    def page(self, name: str) -> str:
        """Return the path of a program that several frameworks have."""
        return f"{self._site.pages}{name}/"

    def warm(self, path: str, visits: int = VISITS, **query: Any) -> None:
        """Visit a page until it is known: in the first process, where it will be under way."""
        for worker in range(self.workers):
            for _ in range(visits if worker == 0 else min(visits, FEW_VISITS)):
                self.get(path, worker, **query)

    def begin(
        self,
        path: str,
        *,
        worker: int = 0,
        cookies: dict[str, str] | None = None,
        body: bytes | None = None,
        **query: Any,
    ) -> Page:
        """Ask for a page that stops at its `meet()`, and return when it is there."""
        page = self.request(path, worker=worker, cookies=cookies, body=body, **query)
        page.wait()
        return page

    def request(
        self,
        path: str,
        *,
        worker: int = 0,
        cookies: dict[str, str] | None = None,
        body: bytes | None = None,
        **query: Any,
    ) -> Page:
        """Ask for a page, and wait for nothing."""
        meeting = Meeting(self._desk)
        query["meet"] = meeting.name

        def ask() -> Answer:
            try:
                return self.ask(path, query, worker=worker, cookies=cookies, body=body)
            finally:
                meeting.end()

        answer = self._pool.submit(ask)
        self._begun.append((meeting, answer))
        return Page(meeting, answer)

    def stream(self, path: str, *, cookies: dict[str, str] | None = None, **query: Any) -> Stream:
        """Ask for a stream that stops at its `meet()`."""
        meeting = Meeting(self._desk)
        query["meet"] = meeting.name
        self._begun.append((meeting, None))
        return Stream(meeting, self._connect(path, query, 0, cookies))

    def settle(self) -> None:
        """Let all pages end that a test left under way: they may still write."""
        for meeting, answer in self._begun:
            if answer is None or not answer.done():
                meeting.leave()
        wait([answer for _, answer in self._begun if answer is not None], PATIENCE)
        self._begun.clear()

    def at_once(self, asks: Iterable[Callable[[], Any]]) -> list[Any]:
        """Do all of these at the same time."""
        return [done.result() for done in [self._pool.submit(ask) for ask in asks]]

    def do(self, method: str, *arguments: Any, worker: int = 1, **options: Any) -> Any:
        """Call the cache in a request of its own, of the other process unless told otherwise."""
        body = json.dumps([method, arguments, options]).encode()
        answer = self.ask("do/", worker=worker, body=body)
        assert answer.status == http.HTTPStatus.OK, f"{answer}\n{self.log()}"
        return json.loads(answer.text)

    def source(self, value: str) -> None:
        """Change what stands in the program's database."""
        self._desk.set("source", value)


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on these sites, each as the control and with a scope."""
    params = [f"{name}-{kind}" for name in names for kind in KINDS]
    return pytest.mark.parametrize("site", params, indirect=True)


def on_each_process(*names: str) -> pytest.MarkDecorator:
    """Run a test on these sites, with what happens elsewhere in each of their processes.

    The page under way is in the first.
    """
    params = [
        pytest.param(f"{name}-{kind}", worker, id=f"{name}-{kind}-{process}")
        for name in names
        for worker, process in zip(range(SITES[name].workers), ("same", "other"), strict=False)
        for kind in KINDS
    ]
    return pytest.mark.parametrize(("site", "worker"), params, indirect=["site"])

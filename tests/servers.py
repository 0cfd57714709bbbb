"""Servers for tests and benchmarks: real ones, each on a free port of its own, surely stopped.

    with RedisServer() as server:
        cache = Cache(server.url)
        server.reset_stats()
        cache.get_many(["a", "b"])
        assert server.commandstats() == {"mget": 1}

The server's own counters are what trips are checked against.
"""

from __future__ import annotations

import atexit
import getpass
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

START_SECONDS = 10.0
STOP_SECONDS = 5.0
HOST = "127.0.0.1"

# What counting itself costs the server; never told as the work of the code under test.
OWN_COMMANDS = {"info", "config|resetstat"}


class ServerError(RuntimeError):
    """A server that is not installed, or does not start."""


class Server:
    """A program that listens on a port of its own, and surely stops.

    Start it on the main thread: the kernel stops it when the thread that started it ends, which is
    how it dies with a test run that was killed.
    """

    program: ClassVar[str]
    port: int

    def __init__(self, *args: str) -> None:
        self.port = 0
        self._args = args
        # Short, for a socket's path may have 107 bytes.
        self._folder = Path(tempfile.gettempdir()) / f"onetrip-{secrets.token_hex(4)}"
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = 0

    @property
    def url(self) -> str:
        """Its URL, as onetrip writes it."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Its process, to be stopped and continued."""
        if self._process is None:
            raise ServerError(f"this {self.program} does not run")
        return self._process.pid

    def start(self) -> None:
        """Return when it answers; its port is chosen at the first start."""
        if self._process is not None:
            raise ServerError(f"this {self.program} runs already")
        # Between finding a port free and listening on it, another program may take it.
        for attempts_left in (2, 1, 0) if self.port == 0 else (0,):
            port = self.port or _free_port()
            try:
                self._launch(port)
            except ServerError as error:
                if attempts_left == 0 or "already in use" not in str(error).lower():
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """Stop it, whatever state it is in. Stopping what does not run is no error."""
        # A forked child that leaves by way of `atexit` must not stop its parent's server.
        if self._process is None or self._starter != os.getpid():
            return
        self._hang_up()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def restart(self) -> None:
        """Stop it and start it again, empty, where it was."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self, port: int) -> None:
        program = shutil.which(self.program)
        if program is None:
            raise ServerError(
                f"{self.program} is not installed: `make test` installs it, or "
                f"`apt-get install {self.program}`"
            )
        self._folder.mkdir(mode=0o700)
        # A run that is killed cannot stop its server; the kernel does it then, where it can.
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self._log.open("wb") as log:
            # In a session of its own, Ctrl-C reaches the tests alone, and they stop it in order.
            self._process = subprocess.Popen(
                [*guard, program, *self._options(port)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._starter = os.getpid()
        atexit.register(self.stop)
        try:
            self._wait_until_ready(port, self._process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, port: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._greet(port)
            except OSError as error:
                said = self._log.read_text(errors="replace")
                if process.poll() is not None:
                    raise ServerError(f"{self.program} ended at its start:\n{said}") from error
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.program} does not answer:\n{said}") from error
                time.sleep(0.01)
            else:
                return

    def flush(self) -> None:
        """Remove every entry, and begin to count anew."""
        raise NotImplementedError

    def clients(self) -> set[int]:
        """The ports of those who are connected, without our own."""
        raise NotImplementedError

    def connections(self) -> int:
        """How many connections were opened to it so far, our own among them."""
        raise NotImplementedError

    def _options(self, port: int) -> list[str]:
        """What stands behind its name on the command line."""
        raise NotImplementedError

    def _greet(self, port: int) -> None:
        """Ask it something, and keep the connection; an OSError means that it is not there yet."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Close what `_greet` has opened."""
        raise NotImplementedError


class RedisServer(Server):
    """A `redis-server` of its own, empty at each start and kept in memory alone.

    `username` and `password` are asked from every client, `tls` makes it speak TLS alone (the
    certificate's authority is in `ca_file`), and `args` go to the command line as they are
    (`"--maxmemory", "1mb"`). `port`, `url` and `unix_socket` stay the same through `restart()`.
    """

    program = "redis-server"
    unix_socket: Path
    ca_file: Path

    def __init__(
        self,
        *args: str,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
    ) -> None:
        if username is not None and password is None:
            raise ValueError("a username needs a password")
        super().__init__(*args)
        self.unix_socket = self._folder / "redis.sock"
        self.ca_file = self._folder / "ca.pem"
        self._username = username
        self._password = password
        # Made once, so that a client which read the authority trusts the restarted server too.
        self._authority = trustme.CA() if tls else None
        self._admin: redis.Redis | None = None

    @property
    def url(self) -> str:
        """Its first database, as redis-py and onetrip write it, with what it takes to log in."""
        scheme = "redis" if self._authority is None else "rediss"
        login = ""
        if self._password is not None:
            login = f"{quote(self._username or '', safe='')}:{quote(self._password, safe='')}@"
        return f"{scheme}://{login}{HOST}:{self.port}/0"

    def flush(self) -> None:
        """Remove every entry, and begin to count anew."""
        self.admin.flushall()
        self.reset_stats()

    def commandstats(self) -> dict[str, int]:
        """How often each command was called since `reset_stats`, such as `{"mget": 1}`.

        A subcommand is told as `client|setinfo`. Our own questions are left out.
        """
        return {name: calls for name, calls in self._calls().items() if name not in OWN_COMMANDS}

    def reads(self) -> int:
        """How often it read from a socket since `reset_stats`: the trips that reached it.

        A pipeline of fifty commands is one read while it fits the 16 KiB that a read takes. The
        opening handshake of a connection and its end count too, so count on one that is open.
        """
        info = self._info("everything")
        # This very question is read already, but no call yet.
        own = 1 + _calls(info).get("info", 0)
        return int(info["total_reads_processed"]) - own

    def reset_stats(self) -> None:
        """Count anew."""
        self.admin.config_resetstat()

    def clients(self) -> set[int]:
        """The ports of those who are connected, without our own."""
        own = self.admin.client_id()
        told = self.admin.client_list()
        return {int(one["addr"].split(":")[-1]) for one in told if int(one["id"]) != own}

    def connections(self) -> int:
        """How many connections were opened to it so far, our own among them."""
        return int(self._info("stats")["total_connections_received"])

    @property
    def admin(self) -> redis.Redis:
        """A client that may do all. Used by one thread it keeps one connection: no handshakes."""
        if self._admin is None:
            raise ServerError("this redis-server does not run")
        return self._admin

    def _options(self, port: int) -> list[str]:
        options = ["--bind", HOST, "--unixsocket", str(self.unix_socket)]
        options += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        if self._authority is None:
            options += ["--port", str(port)]
        else:
            certificate = self._authority.issue_cert(HOST, "localhost")
            self._authority.cert_pem.write_to_path(self.ca_file)
            server_pem = self._folder / "server.pem"
            certificate.private_key_and_cert_chain_pem.write_to_path(server_pem)
            options += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(server_pem), "--tls-key-file", str(server_pem)]
            options += ["--tls-ca-cert-file", str(self.ca_file)]
        if self._username is not None:
            rights = [f">{self._password}", "~*", "&*", "+@all"]
            options += ["--user", self._username, "on", *rights, "--user", "default", "off"]
        elif self._password is not None:
            options += ["--requirepass", self._password]
        return [*options, *self._args]

    def _greet(self, port: int) -> None:
        if self._admin is None:
            security: dict[str, Any] = {}
            if self._authority is not None:
                security = {"ssl": True, "ssl_ca_certs": str(self.ca_file)}
            self._admin = redis.Redis(
                host=HOST,
                port=port,
                username=self._username,
                password=self._password,
                socket_timeout=START_SECONDS,
                # redis-py would wait longer and longer; a server is there within milliseconds.
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                **security,
            )
        try:
            self._admin.ping()
        except redis.ConnectionError as error:
            raise ConnectionError from error
        self.reset_stats()

    def _hang_up(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _info(self, section: str) -> dict[str, Any]:
        info: dict[str, Any] = self.admin.info(section)
        return info

    def _calls(self) -> dict[str, int]:
        return _calls(self._info("commandstats"))


class MemcachedServer(Server):
    """A `memcached` of its own, with `args` on its command line."""

    program = "memcached"

    def __init__(self, *args: str) -> None:
        super().__init__(*args)
        self._admin: socket.socket | None = None
        self._log_read = 0

    @property
    def url(self) -> str:
        """Its URL."""
        return f"memcached://{HOST}:{self.port}"

    def flush(self) -> None:
        """Remove every entry, and begin to count anew."""
        self.ask("flush_all", "OK\r\n")
        self.reset_stats()

    def reads(self) -> int:
        """How many batches of commands it read since `reset_stats`.

        The server does not count them. It tells each command in its log, and each batch of ours
        ends with one that does nothing, `mn`.
        """
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            return len(re.findall(rb"^<\d+ mn\r?$", log.read(), re.MULTILINE))

    def reset_stats(self) -> None:
        """Count anew."""
        self._log_read = self._log.stat().st_size

    def clients(self) -> set[int]:
        """The ports of those who are connected, without our own."""
        if self._admin is None:
            raise ServerError("this memcached does not run")
        # It tells the address that it listens on among those of its clients.
        own = {self.port, self._admin.getsockname()[1]}
        told = self._table("stats conns").items()
        return {int(value.split(":")[-1]) for name, value in told if name.endswith(":addr")} - own

    def connections(self) -> int:
        """How many connections were opened to it so far, our own among them."""
        return int(self._table("stats")["total_connections"])

    def _table(self, question: str) -> dict[str, str]:
        lines = self.ask(question, "END\r\n").decode().splitlines()[:-1]
        return dict(line.removeprefix("STAT ").split(" ", 1) for line in lines)

    def ask(self, question: str | bytes, end: str) -> bytes:
        """The answer to a command, as far as it goes when it ends as told."""
        if self._admin is None:
            raise ServerError("this memcached does not run")
        words = question.encode() if isinstance(question, str) else question
        self._admin.sendall(words + b"\r\n")
        answer = b""
        while not answer.endswith(end.encode()):
            part = self._admin.recv(1 << 16)
            if not part:
                raise ServerError(f"memcached hung up on {words!r}")
            answer += part
        return answer

    def _options(self, port: int) -> list[str]:
        options = ["-l", HOST, "-p", str(port), "-U", "0", "-t", "2", "-m", "64", "-I", "16m"]
        # As root it wants to be told that it is meant so.
        return [*options, "-vv", "-u", getpass.getuser(), *self._args]

    def _greet(self, port: int) -> None:
        if self._admin is None:
            self._admin = socket.create_connection((HOST, port), START_SECONDS)
            # The port might be answered by another.
            if self._table("stats")["pid"] != str(self.pid):
                self._hang_up()
                raise ConnectionError
        self.reset_stats()

    def _hang_up(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def _calls(info: dict[str, Any]) -> dict[str, int]:
    mark = "cmdstat_"
    return {
        name.removeprefix(mark): int(counts["calls"])
        for name, counts in info.items()
        if name.startswith(mark)
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

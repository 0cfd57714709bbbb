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
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
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


class RedisServer:
    """A `redis-server` of its own, empty at each start and kept in memory alone.

    `username` and `password` are asked from every client, `tls` makes it speak TLS alone (the
    certificate's authority is in `ca_file`), and `args` go to the command line as they are
    (`"--maxmemory", "1mb"`). `port`, `url` and `unix_socket` stay the same through `restart()`.

    Start it on the main thread: the kernel stops it when the thread that started it ends, which is
    how it dies with a test run that was killed.
    """

    port: int
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
        self.port = 0
        # Short, for a socket's path may have 107 bytes.
        self._folder = Path(tempfile.gettempdir()) / f"onetrip-{secrets.token_hex(4)}"
        self.unix_socket = self._folder / "redis.sock"
        self.ca_file = self._folder / "ca.pem"
        self._log = self._folder / "redis.log"
        self._args = args
        self._username = username
        self._password = password
        # Made once, so that a client which read the authority trusts the restarted server too.
        self._authority = trustme.CA() if tls else None
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = 0
        self._admin: redis.Redis | None = None

    @property
    def url(self) -> str:
        """Its first database, as redis-py and onetrip write it, with what it takes to log in."""
        scheme = "redis" if self._authority is None else "rediss"
        login = ""
        if self._password is not None:
            login = f"{quote(self._username or '', safe='')}:{quote(self._password, safe='')}@"
        return f"{scheme}://{login}{HOST}:{self.port}/0"

    def start(self) -> None:
        """Return when it answers; its port is chosen at the first start."""
        if self._process is not None:
            raise ServerError("this redis-server runs already")
        # Between finding a port free and listening on it, another program may take it.
        for attempts_left in (2, 1, 0) if self.port == 0 else (0,):
            port = self.port or _free_port()
            try:
                self._launch(port)
            except ServerError as error:
                if attempts_left == 0 or "already in use" not in str(error):
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """Stop it, whatever state it is in. Stopping what does not run is no error."""
        # A forked child that leaves by way of `atexit` must not stop its parent's server.
        if self._process is None or self._starter != os.getpid():
            return
        if self._admin is not None:
            self._admin.close()
            self._admin = None
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

    @property
    def admin(self) -> redis.Redis:
        """A client that may do all. Used by one thread it keeps one connection: no handshakes."""
        if self._admin is None:
            raise ServerError("this redis-server does not run")
        return self._admin

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
        program = shutil.which("redis-server")
        if program is None:
            raise ServerError(
                "redis-server is not installed: `make test` installs it, or "
                "`apt-get install redis-server`"
            )
        self._folder.mkdir(mode=0o700)
        # A run that is killed cannot stop its server; the kernel does it then, where it can.
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        command = [*guard, program, *self._options(port), *self._args]
        with self._log.open("wb") as log:
            # In a session of its own, Ctrl-C reaches the tests alone, and they stop it in order.
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._starter = os.getpid()
        atexit.register(self.stop)
        try:
            self._admin = self._wait_until_ready(port, self._process)
            self.reset_stats()
        except BaseException:
            self.stop()
            raise

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
        return options

    def _wait_until_ready(self, port: int, process: subprocess.Popen[bytes]) -> redis.Redis:
        security: dict[str, Any] = {}
        if self._authority is not None:
            security = {"ssl": True, "ssl_ca_certs": str(self.ca_file)}
        admin = redis.Redis(
            host=HOST,
            port=port,
            username=self._username,
            password=self._password,
            socket_timeout=START_SECONDS,
            # redis-py would wait longer and longer; a server is there within some milliseconds.
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            **security,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                admin.ping()
            except redis.ConnectionError as error:
                said = self._log.read_text(errors="replace")
                if process.poll() is not None:
                    raise ServerError(f"redis-server ended at its start:\n{said}") from error
                if time.monotonic() > deadline:
                    raise ServerError(f"redis-server does not answer:\n{said}") from error
                time.sleep(0.01)
            else:
                return admin

    def _info(self, section: str) -> dict[str, Any]:
        info: dict[str, Any] = self.admin.info(section)
        return info

    def _calls(self) -> dict[str, int]:
        return _calls(self._info("commandstats"))


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

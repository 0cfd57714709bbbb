"""The servers that the other tests stand on count truly and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import RedisServer, ServerError

ROOT = Path(__file__).parent.parent


def test_counts_exclude_the_admin_connection() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        client.ping()
        server.reset_stats()
        with client.pipeline(transaction=False) as pipeline:
            pipeline.set("a", 1).set("b", 2).execute()
        client.mget("a", "b")
        assert server.commandstats() == {"set": 2, "mget": 1}
        assert server.reads() == 2
        assert server.reads() == 2
        server.reset_stats()
        assert server.commandstats() == {}
        assert server.reads() == 0


def test_restart_is_empty_on_the_same_port() -> None:
    with RedisServer() as server:
        before = (server.url, server.unix_socket)
        server.admin.set("a", 1)
        server.restart()
        assert (server.url, server.unix_socket) == before
        assert server.admin.get("a") is None
        assert server.commandstats() == {"get": 1}


def test_unix_socket() -> None:
    with (
        RedisServer() as server,
        redis.Redis(unix_socket_path=str(server.unix_socket)) as client,
    ):
        assert client.ping()


@pytest.mark.parametrize("username", [None, "alice"])
def test_asks_for_user_and_password(username: str | None) -> None:
    with RedisServer(username=username, password="s3cret @/:") as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        with (
            redis.Redis("127.0.0.1", server.port, retry=Retry(NoBackoff(), 0)) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_speaks_tls() -> None:
    with (
        RedisServer(tls=True) as server,
        redis.Redis.from_url(server.url, ssl_ca_certs=str(server.ca_file)) as client,
    ):
        assert server.url.startswith("rediss://")
        assert client.ping()


def test_passes_arguments_on() -> None:
    with RedisServer("--maxmemory", "1mb") as server:
        assert server.admin.config_get("maxmemory") == {"maxmemory": "1048576"}


def test_failed_start_shows_the_reason() -> None:
    with pytest.raises(ServerError, match="no-such-option"):
        RedisServer("--no-such-option", "1").start()


def test_a_missing_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match="`make test` installs it"):
        RedisServer().start()


def test_removes_its_files() -> None:
    with RedisServer() as server:
        folder = server.unix_socket.parent
        assert folder.is_dir()
    assert not folder.exists()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_dies_with_the_run_that_started_it(end: signal.Signals) -> None:
    program = (
        "import time; from tests.servers import RedisServer; server = RedisServer();"
        "server.start(); print(server._process.pid, server._folder, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().decode().split()
        run.send_signal(end)
    deadline = time.monotonic() + 5
    while _is_alive(int(pid)):
        assert time.monotonic() < deadline, f"redis-server {pid} outlived its run"
        time.sleep(0.01)
    # Who is killed cannot tidy up.
    shutil.rmtree(folder, ignore_errors=True)


def test_a_forked_child_does_not_stop_it() -> None:
    with RedisServer() as server:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.admin.ping()


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Whoever adopts an orphan may be slow to bury it.
    return "State:\tZ" not in status

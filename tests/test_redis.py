"""Redis: every way to reach it, and what becomes of a connection when something happens to it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import trustme

from onetrip import (
    Cache,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from tests.servers import HOST, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# Where no server is: ports below 1024 are not given to clients.
NOBODY = f"redis://{HOST}:1"


def answers(url: str) -> None:
    """A round trip over the connection that `url` describes."""
    cache = Cache(url, on_error="raise")
    cache.set("a", [1])
    with cache.preload("a", "b"):
        assert cache["a"] == [1]
    assert cache.delete("a") is True
    cache.close()


class TestConnecting:
    @pytest.mark.usefixtures("redis_url")
    @pytest.mark.parametrize("scheme", ["redis", "valkey"])
    def test_url_without_database(self, redis_server: RedisServer, scheme: str) -> None:
        answers(f"{scheme}://{HOST}:{redis_server.port}")
        answers(f"{scheme}://{HOST}:{redis_server.port}/")
        assert redis_server.commandstats()["set"] == 2

    def test_url_with_database(self, redis_server: RedisServer) -> None:
        base = f"redis://{HOST}:{redis_server.port}"
        for url, number in [
            (f"{base}/3", 3),
            (f"{base}?db=4", 4),
            # As in redis-py, the option counts more than the path.
            (f"{base}/3?db=5", 5),
            (f"redis+unix://{redis_server.unix_socket}?db=6", 6),
            (base, 0),
        ]:
            redis_server.flush()
            Cache(url, on_error="raise").set("a", 1)
            assert list(redis_server.admin.info("keyspace")) == [f"db{number}"]

    def test_missing_database_raises(self, redis_url: str) -> None:
        cache = Cache(f"{redis_url}?db=9999", on_error="raise")
        with pytest.raises(StoreRefusedError, match="has no database of that number"):
            cache.get("a")

    @pytest.mark.parametrize("scheme", ["redis+unix", "valkey+unix"])
    def test_unix_socket(self, redis_server: RedisServer, scheme: str) -> None:
        answers(f"{scheme}://{redis_server.unix_socket}")

    def test_missing_unix_socket_raises(self, tmp_path: Path) -> None:
        cache = Cache(f"redis+unix://{tmp_path}/none.sock", on_error="raise")
        with pytest.raises(StoreUnavailableError, match=r"none\.sock cannot be reached"):
            cache.get("a")

    def test_unknown_host_raises(self) -> None:
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            Cache("redis://no-such-host.invalid", on_error="raise").get("a")


class TestLogging:
    """What a handler of the program's does is no part of a trip."""

    @pytest.fixture
    def handler(self) -> Iterator[logging.Handler]:
        handler, logger = logging.Handler(), logging.getLogger("onetrip")
        logger.addHandler(handler)
        yield handler
        logger.removeHandler(handler)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda cache: cache.get("a"),
            lambda cache: cache.add("a", 1) or None,
            lambda cache: cache.get_many(["a"]) or None,
            lambda cache: cache.preload("a").__enter__() and None,
            lambda cache: cache.cached(key="a")(lambda: None)(),
        ],
        ids=["get", "add", "get_many", "preload", "cached"],
    )
    def test_raising_log_handler_does_not_break_a_page(
        self,
        handler: logging.Handler,
        monkeypatch: pytest.MonkeyPatch,
        ask: Callable[[Cache], object],
    ) -> None:
        full, seen = RuntimeError("the disk is full"), []
        monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
        monkeypatch.setattr(handler, "emit", Mock(side_effect=full))
        assert ask(Cache(NOBODY)) is None
        assert seen
        assert set(seen) == {full}

    def test_interruption_while_logging_passes_through(
        self, handler: logging.Handler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handler, "emit", Mock(side_effect=KeyboardInterrupt))
        cache = Cache(NOBODY)

        def page() -> None:
            for _ in range(1000):
                assert cache.get("a") is None

        with pytest.raises(KeyboardInterrupt):
            page()


class TestLogin:
    def test_with_a_password(self) -> None:
        with RedisServer(password="s3cret @/:%") as server:
            answers(server.url)
            stranger = Cache(f"redis://{HOST}:{server.port}", on_error="raise")
            with pytest.raises(StoreRefusedError, match=r"give user and password.*NOAUTH"):
                stranger.get("a")
            guesser = Cache(f"redis://:guess@{HOST}:{server.port}", on_error="raise")
            with pytest.raises(StoreRefusedError, match="knows no such user") as caught:
                guesser.get("a")
            assert "guess" not in str(caught.value)
            # To a page, a server that lets nobody in is one that has nothing.
            assert Cache(f"redis://{HOST}:{server.port}").get("a") is None

    def test_with_user_and_password(self) -> None:
        with RedisServer(username="alice@home", password="s3cret @/:") as server:
            answers(server.url)
            login = f"{quote('alice@home', safe='')}:{quote('s3cret @/:', safe='')}"
            # The host of a socket's URL says nothing, and may say so.
            answers(f"redis+unix://{login}@localhost{server.unix_socket}?db=2")
            wrong = Cache(f"redis://bob:secret@{HOST}:{server.port}", on_error="raise")
            with pytest.raises(StoreRefusedError):
                wrong.get("a")


@pytest.fixture(scope="class")
def tls_server() -> Iterator[RedisServer]:
    """A server that does not ask for the certificate of a client, but checks one that is shown."""
    with RedisServer("--tls-auth-clients", "optional", tls=True) as server:
        yield server


def client_certificate(authority: trustme.CA, folder: Path) -> str:
    """The options of a URL that shows a certificate of `authority`."""
    certificate = authority.issue_cert("client.example")
    shown, key = folder / "client.pem", folder / "client.key"
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(shown)
    certificate.private_key_pem.write_to_path(key)
    return f"ssl_certfile={shown}&ssl_keyfile={key}"


class TestTls:
    @pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
    def test_trusts_the_given_authority(self, tls_server: RedisServer, scheme: str) -> None:
        answers(f"{scheme}://{HOST}:{tls_server.port}/0?ssl_ca_certs={tls_server.ca_file}")

    def test_unknown_authority_is_refused(self, tls_server: RedisServer, tmp_path: Path) -> None:
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        for query in ("", f"?ssl_ca_certs={other}"):
            cache = Cache(f"{tls_server.url}{query}", on_error="raise")
            with pytest.raises(StoreUnavailableError, match="certificate"):
                cache.get("a")

    def test_wrong_host_name_is_refused(self, tls_server: RedisServer) -> None:
        # The certificate is for 127.0.0.1 and localhost, and the server listens there alone.
        other = f"rediss://127.0.0.2:{tls_server.port}?ssl_ca_certs={tls_server.ca_file}"
        with pytest.raises(StoreUnavailableError):
            Cache(other, on_error="raise").get("a")

    def test_sends_the_client_certificate(self, tls_server: RedisServer, tmp_path: Path) -> None:
        trusted = f"{tls_server.url}?ssl_ca_certs={tls_server.ca_file}"
        assert tls_server._authority is not None
        answers(f"{trusted}&{client_certificate(tls_server._authority, tmp_path)}")
        # Were it not shown, the server could not refuse a stranger's.
        stranger = f"{trusted}&{client_certificate(trustme.CA(), tmp_path)}"
        with pytest.raises(StoreUnavailableError):
            Cache(stranger, on_error="raise").get("a")

    def test_plain_client_on_a_tls_server_raises(self, tls_server: RedisServer) -> None:
        plain = Cache(f"redis://{HOST}:{tls_server.port}", on_error="raise", trip_timeout=5)
        with pytest.raises(StoreUnavailableError):
            plain.get("a")

    def test_tls_client_on_a_plain_server_raises(self, redis_url: str) -> None:
        secure = Cache(redis_url.replace("redis", "rediss", 1), on_error="raise")
        with pytest.raises((StoreUnavailableError, StoreTimeoutError)):
            secure.get("a")


def eventually(ask: Callable[[], object]) -> object:
    """The first answer: a server that comes back is not asked at once, nor may it be quick."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return ask()
        except (KeyError, StoreError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server to stop, to hang and to restart."""
    with RedisServer() as server:
        yield server


class TestServerOutage:
    def test_first_request_after_a_restart_is_answered(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise")
        for call in (
            lambda: cache.set("a", 1),
            lambda: cache.get("a"),
            lambda: cache.get_many(["a", "b"]),
            lambda: cache.delete("a"),
            lambda: cache.touch("a", 60),
            lambda: cache.preload("a", "b").__enter__().__exit__(),
        ):
            cache.set("warm", 1)
            own_server.restart()
            call()

    def test_client_recovers_after_an_outage(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url)
        cache.set("a", 1)
        own_server.stop()
        assert cache.get("a", "gone") == "gone"
        cache.set("a", 2)
        own_server.start()

        def comes_back() -> object:
            cache.set("a", 3)
            return cache["a"]

        assert eventually(comes_back) == 3

    def test_scope_survives_a_restart(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url)
        cache.set("a", 1)
        with cache.preload("a", "b"):
            own_server.restart()
            assert cache["a"] == 1
            cache.set("b", 2)
        assert cache["b"] == 2

    def test_full_server_drops_writes(self) -> None:
        with RedisServer("--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as server:
            strict, lenient = Cache(server.url, on_error="raise"), Cache(server.url)
            full = {str(number): b"x" * 100_000 for number in range(100)}
            with pytest.raises(StoreRefusedError, match="OOM"):
                strict.set_many(full)
            lenient.set("a", b"x" * 1_000_000)
            assert "a" not in lenient
            assert lenient.stats().errors == 1
            server.admin.config_set("maxmemory", 0)
            lenient.set("a", 1)
            assert strict["a"] == 1


class TestHungServer:
    def test_late_answer_goes_to_nobody(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise", trip_timeout=0.05)
        cache.set_many({"a": "A", "b": "B"})
        assert own_server._process is not None
        pid = own_server._process.pid
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(StoreTimeoutError, match="see connect_timeout and trip_timeout"):
                    cache.get("a")
            finally:
                os.kill(pid, signal.SIGCONT)
            patient = Cache(own_server.url, on_error="raise", trip_timeout=30)
            assert patient["a"] == "A"
            # The answer about "a" is on its way, or here; it is not the answer about "b".
            assert eventually(lambda: cache["b"]) == "B"

    def test_raises_timeout_error(self) -> None:
        with socket.create_server((HOST, 0)) as silent:
            url = f"redis://{HOST}:{silent.getsockname()[1]}"
            strict = Cache(url, on_error="raise", connect_timeout=0.05, trip_timeout=0.05)
            with pytest.raises(TimeoutError):
                strict.get("a")
            lenient = Cache(url, connect_timeout=0.05, trip_timeout=0.05)
            assert lenient.get("a", "miss") == "miss"


class TestNonsenseServer:
    @pytest.mark.parametrize(
        "says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"+OK\r\n" * 64, b""]
    )
    def test_nonsense_reply_is_a_failure(self, says: bytes) -> None:
        with socket.create_server((HOST, 0)) as server:
            talker = threading.Thread(target=self.talk, args=(server, says))
            talker.start()
            url = f"redis://{HOST}:{server.getsockname()[1]}"
            try:
                assert Cache(url, trip_timeout=0.2, connect_timeout=0.2).get("a", "miss") == "miss"
            finally:
                # Wakes the talker, which then sees that it is to end.
                server.shutdown(socket.SHUT_RDWR)
                talker.join()

    @staticmethod
    def talk(server: socket.socket, says: bytes) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(1024)
                    client.sendall(says)
                except OSError:
                    continue


def test_forked_child_shares_no_connection(redis_server: RedisServer, redis_url: str) -> None:
    cache = Cache(redis_url, on_error="raise")
    cache.set_many({str(number): number for number in range(200)})
    child = os.fork()
    if child == 0:
        wrong = sum(cache[str(number)] != number for number in range(200))
        os._exit(1 if wrong else 0)
    right = [cache[str(number)] == number for number in range(200)]
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert all(right)

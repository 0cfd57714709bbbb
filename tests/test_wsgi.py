"""The WSGI middleware: when the scope of a request is open, and what its header tells."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import io
import re
import sys
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import gevent  # type: ignore[import-untyped] # it tells no types
import pytest

from onetrip import Cache, ConfigurationError, StoreError
from onetrip.wsgi import PageMiddleware
from tests.pieces import fetch, is_held, is_in_a_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.conftest import OpenCache

PLAIN = ("Content-Type", "text/plain")


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


def length(body: bytes) -> tuple[str, str]:
    return ("Content-Length", str(len(body)))


class Server:
    """The WSGI server of these tests, which can be stopped anywhere."""

    def __init__(self, app: WSGIApplication, **environ: Any) -> None:
        self.environ: dict[str, Any] = environ
        setup_testing_defaults(self.environ)
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self.body = app(self.environ, self.start_response)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], error: Any = None, /
    ) -> Callable[[bytes], object]:
        assert not self.status or error, "start_response was called twice"
        self.status, self.headers = status, headers
        return self.written.append

    def read(self) -> bytes:
        """Send the whole body and close it, as servers do."""
        try:
            self.written.extend(self.body)
        finally:
            self.close()
        return b"".join(self.written)

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    @property
    def timing(self) -> list[str]:
        return [value for name, value in self.headers if name == "Server-Timing"]


def app_of(body: Callable[[], Iterable[bytes]], *headers: tuple[str, str]) -> WSGIApplication:
    """An application that begins its response and returns what `body` does."""

    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [PLAIN, *headers])
        return body()

    return app


class TestTheScope:
    def test_list_body(self, cache: Cache, other: Cache) -> None:
        body = [b"one", b"two"]

        def page() -> list[bytes]:
            fetch(cache, "a")
            assert is_held(cache, "a")
            cache.set("b", 2)
            assert other["b"] == 2
            return body

        server = Server(PageMiddleware(app_of(page), cache))
        # What was posted has arrived before a byte is sent, and the server gets the list itself.
        assert server.body is body
        assert other["piece:a"] == "a"
        assert not is_in_a_scope(cache)

    def test_a_streamed_body(self, cache: Cache, other: Cache) -> None:
        def stream() -> Iterator[bytes]:
            for number in range(3):
                assert is_in_a_scope(cache)
                fetch(cache, number)
                cache.set("part", number)
                assert other["part"] == number
                yield b"."

        server = Server(PageMiddleware(app_of(stream), cache))
        assert server.read() == b"..."
        assert [other[f"piece:{number}"] for number in range(3)] == [0, 1, 2]
        assert not is_in_a_scope(cache)

    def test_posts_arrive_before_the_end_of_a_body_of_known_length(
        self, cache: Cache, other: Cache
    ) -> None:
        def stream() -> Iterator[bytes]:
            fetch(cache, "a")
            yield b"one"
            assert is_in_a_scope(cache)
            fetch(cache, "b")
            yield b"two"
            # What comes behind the page finds no scope, and is right all the same.
            assert not is_in_a_scope(cache)
            assert fetch(cache, "c") == "c"

        server = Server(PageMiddleware(app_of(stream, length(b"onetwo")), cache))
        chunks = iter(server.body)
        assert next(chunks) == b"one"
        assert next(chunks) == b"two"
        assert other.get_many(["piece:a", "piece:b"]) == {"piece:a": "a", "piece:b": "b"}
        assert list(chunks) == []
        assert other["piece:c"] == "c"

    def test_held_pieces_expire_quickly_while_the_body_is_sent(self, open_cache: OpenCache) -> None:
        cache = open_cache(read_max_age=0)

        def stream() -> Iterator[bytes]:
            assert is_in_a_scope(cache)
            yield b"one"
            assert not is_in_a_scope(cache)
            yield b"two"

        assert Server(PageMiddleware(app_of(stream), cache)).read() == b"onetwo"

    @pytest.mark.parametrize("told", ["", "-1", "many"])
    def test_invalid_content_length_is_ignored(self, cache: Cache, told: str) -> None:
        def stream() -> Iterator[bytes]:
            yield b"one"
            assert is_in_a_scope(cache)
            yield b"two"

        app = app_of(stream, ("content-length", told))
        assert Server(PageMiddleware(app, cache)).read() == b"onetwo"

    def test_early_close_by_the_server(self, cache: Cache, other: Cache) -> None:
        closed: list[bool] = []

        def stream() -> Iterator[bytes]:
            fetch(cache, "a")
            try:
                yield from (b"." for _ in range(1000))
            finally:
                closed.append(is_in_a_scope(cache))

        server = Server(PageMiddleware(app_of(stream), cache))
        next(iter(server.body))
        server.close()
        assert closed == [True]
        assert other["piece:a"] == "a"
        assert not is_in_a_scope(cache)

    def test_failing_close_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        class Body(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                return iter((b"one", b"two"))

            def close(self) -> None:
                cache.set("b", 2)
                raise RuntimeError("cannot close")

        def stream() -> Iterator[bytes]:
            cache.set("a", 1)
            with contextlib.closing(Body()) as body:
                yield from body

        server = Server(PageMiddleware(app_of(stream), cache))
        with pytest.raises(RuntimeError, match="cannot close"):
            server.close()
        assert other.get_many(["a", "b"]) == {"a": 1, "b": 2}

    def test_an_empty_body(self, cache: Cache, other: Cache) -> None:
        def nothing() -> Iterator[bytes]:
            cache.set("a", 1)
            yield from ()

        server = Server(PageMiddleware(app_of(nothing), cache))
        assert other["a"] == 1
        assert server.read() == b""

    def test_write_callable(self, cache: Cache, other: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [PLAIN, length(b"onetwo")])
            cache.set("a", 1)
            assert other["a"] == 1
            fetch(cache, "b")
            write(b"one")
            assert is_in_a_scope(cache)
            write(b"two")
            assert not is_in_a_scope(cache)
            assert other["piece:b"] == "b"
            return []

        server = Server(PageMiddleware(app, cache))
        assert server.written == [b"one", b"two"]
        assert server.read() == b"onetwo"

    def test_file_wrapper_is_passed_through(self, cache: Cache, other: Cache) -> None:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [PLAIN])
            cache.set("a", 1)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))
            return wrapped

        server = Server(PageMiddleware(app, cache), **{"wsgi.file_wrapper": FileWrapper})
        assert isinstance(server.body, FileWrapper)
        assert other["a"] == 1
        assert server.read() == b"a file"

    def test_file_wrapper_may_be_a_function(self, cache: Cache) -> None:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [PLAIN])
            lines: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))
            return lines

        server = Server(PageMiddleware(app, cache), **{"wsgi.file_wrapper": lambda file: file})
        assert server.read() == b"a file"

    def test_head_sent_with_the_first_part(self, cache: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
            start_response("201 Created", [PLAIN])
            yield b"late"

        server = Server(PageMiddleware(app, cache))
        assert server.status == "201 Created"
        assert server.read() == b"late"

    def test_each_cache_has_a_scope(self, open_cache: OpenCache) -> None:
        caches = [open_cache(prefix="a"), open_cache(prefix="b")]

        def page() -> list[bytes]:
            assert all(is_in_a_scope(cache) for cache in caches)
            return [b""]

        Server(PageMiddleware(app_of(page), caches)).read()
        assert not any(is_in_a_scope(cache) for cache in caches)

    def test_middleware_is_valid_wsgi(self, cache: Cache) -> None:
        """As wsgiref's validator sees it, from both sides."""

        def stream() -> Iterator[bytes]:
            yield b"one"
            yield b"two"

        inner = validator(app_of(stream))
        out, errors = io.BytesIO(), io.StringIO()
        environ: dict[str, Any] = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        handler = SimpleHandler(io.BytesIO(), out, errors, environ)
        app = PageMiddleware(inner, cache, server_timing=True)
        handler.run(validator(app))
        assert errors.getvalue() == ""
        told = out.getvalue()
        assert told.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"Server-Timing: cache;" in told
        assert told.endswith(b"\r\n\r\nonetwo")


class TestRequestsShareNothing:
    def test_unfinished_response(self, cache: Cache, other: Cache) -> None:
        def stream() -> Iterator[bytes]:
            fetch(cache, "a")
            yield b"one"
            yield b"two"

        app = PageMiddleware(app_of(stream), cache)
        first = Server(app)
        assert is_held(cache, "a")
        # The server goes on to the next request without closing it.
        second = Server(app)
        assert other["piece:a"] == "a"
        # Should it come back to the first, that is still served.
        assert first.read() == b"onetwo"
        assert second.read() == b"onetwo"
        assert not is_in_a_scope(cache)

    def test_response_that_is_never_closed(self, cache: Cache, other: Cache) -> None:
        def stream() -> Iterator[bytes]:
            cache.set("a", 1)
            yield b"one"
            yield b"two"

        server = Server(PageMiddleware(app_of(stream), cache))
        del server
        gc.collect()
        assert other["a"] == 1

    def test_scope_left_open_does_not_leak(self, cache: Cache, other: Cache) -> None:
        def page() -> list[bytes]:
            assert "a" not in cache
            cache.scope().__enter__()
            cache.set("a", 1)
            return [b"left"]

        app = PageMiddleware(app_of(page), cache)
        Server(app).read()
        assert other["a"] == 1
        assert not is_in_a_scope(cache)
        other.delete("a")
        Server(app).read()
        assert other["a"] == 1

    def test_body_read_after_its_request(self, cache: Cache, other: Cache) -> None:
        """A generator that somebody kept is right still, but has no scope any more."""
        parts = iter(range(1, 4))

        def stream() -> Iterator[bytes]:
            for part in parts:
                cache.set("part", part)
                yield str(cache["part"]).encode()

        kept = stream()
        server = Server(PageMiddleware(app_of(lambda: iter(lambda: next(kept), None)), cache))
        assert other["part"] == 1
        assert is_in_a_scope(cache)
        server.close()
        assert not is_in_a_scope(cache)
        assert next(kept) == b"2"
        assert other["part"] == 2
        other.set("part", "elsewhere")
        assert cache["part"] == "elsewhere"

    def test_thread_that_outlives_its_request(self, cache: Cache, other: Cache) -> None:
        over, done = threading.Event(), threading.Event()
        read: list[Any] = []

        def work() -> None:
            over.wait()
            for value in (1, 2):
                other.set("a", value)
                read.append(cache.get("a"))
            read.append(is_in_a_scope(cache))
            done.set()

        def page() -> list[bytes]:
            assert cache.get("a") is None
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(work,)).start()
            return [b"begun"]

        Server(PageMiddleware(app_of(page), cache)).read()
        over.set()
        assert done.wait(10)
        assert read == [1, 2, False]

    def test_close_in_another_thread(self, cache: Cache, other: Cache) -> None:
        def stream() -> Iterator[bytes]:
            cache.set("a", 1)
            yield b"one"
            yield b"two"

        app = PageMiddleware(app_of(stream), cache)
        servers: list[Server] = []
        begin = threading.Thread(target=lambda: servers.append(Server(app)))
        begin.start()
        begin.join()
        assert servers[0].read() == b"onetwo"
        assert other["a"] == 1

    def test_interleaved_greenlets(self, cache: Cache, other: Cache) -> None:
        """As a server of gevent's has them: many requests in one thread, each a little further."""

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
            name: str = environ["NAME"]
            start_response("200 OK", [PLAIN])
            others = [other for other in names if other != name]
            for part in range(3):
                fetch(cache, f"{name} {part}")
                gevent.sleep(0)
                assert is_held(cache, f"{name} {part}")
                assert not any(is_held(cache, f"{other} {part}") for other in others)
                yield name.encode()
                gevent.sleep(0)

        def serve(name: str) -> bytes:
            server = Server(PageMiddleware(app, cache), NAME=name)
            gevent.sleep(0)
            return server.read()

        names = ["one", "two", "three"]
        greenlets = [gevent.spawn(serve, name) for name in names]
        gevent.joinall(greenlets, raise_error=True)
        assert [greenlet.value for greenlet in greenlets] == [name.encode() * 3 for name in names]
        stored = [f"piece:{name} {part}" for name in names for part in range(3)]
        assert len(other.get_many(stored)) == 9
        assert not is_in_a_scope(cache)

    def test_nested_middlewares_act_as_one(self, cache: Cache, other: Cache) -> None:
        def stream() -> Iterator[bytes]:
            fetch(cache, "a")
            yield b"one"
            assert is_in_a_scope(cache)

        app = app_of(stream)
        for _ in range(3):
            app = PageMiddleware(app, cache, server_timing=True)
        for _ in range(2):
            server = Server(app)
            assert server.read() == b"one"
            assert len(server.timing) == 1
            assert other["piece:a"] == "a"
            assert not is_in_a_scope(cache)

    def test_nested_middlewares_with_an_unfinished_response(
        self, cache: Cache, other: Cache
    ) -> None:
        def stream() -> Iterator[bytes]:
            cache.set("a", 1)
            yield b"one"
            yield b"two"

        app = PageMiddleware(PageMiddleware(app_of(stream), cache), cache)
        first = Server(app)
        second = Server(PageMiddleware(app_of(list), cache))
        assert other["a"] == 1
        assert not is_in_a_scope(cache)
        assert (first.read(), second.read()) == (b"onetwo", b"")

    def test_nested_request(self, cache: Cache, other: Cache) -> None:
        inner = PageMiddleware(app_of(lambda: [str(cache.get("a")).encode()]), cache)

        def page() -> list[bytes]:
            cache.set("a", 1)
            return [Server(inner).read()]

        assert Server(PageMiddleware(app_of(page), cache)).read() == b"1"
        assert other["a"] == 1


class TestErrors:
    def test_raising_application_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        def page() -> list[bytes]:
            cache.set("a", 1)
            raise LookupError("no such page")

        with pytest.raises(LookupError, match="no such page"):
            Server(PageMiddleware(app_of(page), cache, server_timing=True))
        assert other["a"] == 1
        assert not is_in_a_scope(cache)

    @pytest.mark.parametrize("good", [0, 1, 2])
    def test_raising_body_closes_the_scope(self, cache: Cache, other: Cache, good: int) -> None:
        closed: list[bool] = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                cache.set("a", 1)
                yield from [b"."] * good
                raise LookupError("no more")

            def close(self) -> None:
                closed.append(True)

        def serve() -> None:
            Server(PageMiddleware(app_of(Body), cache)).read()

        with pytest.raises(LookupError, match="no more"):
            serve()
        assert closed == [True]
        assert other["a"] == 1
        assert not is_in_a_scope(cache)

    def test_response_restarted_with_exc_info(self, cache: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [length(b"Hello")])
            try:
                int("late")
            except ValueError:
                start_response("500 Sorry", [PLAIN], sys.exc_info())
            return iter([b"Sorry, this failed."])

        for timing in (False, True):
            server = Server(PageMiddleware(app, cache, server_timing=timing))
            assert server.status == "500 Sorry"
            assert server.read() == b"Sorry, this failed."
            assert len(server.timing) == timing

    def test_response_started_twice_raises(self, cache: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [PLAIN])
            start_response("200 OK", [PLAIN])
            return []

        for timing in (False, True):
            with pytest.raises(AssertionError, match="called twice"):
                Server(PageMiddleware(app, cache, server_timing=timing))

    def test_head_refused_by_the_server(self, cache: Cache) -> None:
        closed: list[bool] = []

        def stream() -> Iterator[bytes]:
            try:
                yield b"one"
                yield b"two"
            finally:
                closed.append(True)

        def refuse(*_head: object) -> Any:
            raise ValueError("no such status")

        for timing in (False, True):
            app = PageMiddleware(app_of(stream), cache, server_timing=timing)
            with pytest.raises(ValueError, match="no such status"):
                app({}, refuse)
        assert closed == [True]
        assert not is_in_a_scope(cache)

    @pytest.mark.parametrize("work", [lambda cache: cache.set("a", 1), fetch], ids=["set", "fetch"])
    def test_failing_write_raises_at_the_call(self, work: Callable[[Cache], object]) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")
        told: list[type[BaseException]] = []

        def stream() -> Iterator[bytes]:
            try:
                work(cache)
            except StoreError as error:
                told.append(type(error))
            yield b"one"

        assert Server(PageMiddleware(app_of(stream, length(b"one")), cache)).read() == b"one"
        assert Server(PageMiddleware(app_of(lambda: list(stream())), cache)).read() == b"one"
        assert len(told) == 2

    def test_unfinished_response_raises_nowhere(self) -> None:
        cache = Cache("redis://127.0.0.1:1")

        def stream() -> Iterator[bytes]:
            fetch(cache)
            yield b"one"
            yield b"two"

        unfinished = [Server(PageMiddleware(app_of(stream), cache)) for _ in range(2)]
        assert Server(PageMiddleware(app_of(lambda: [b"page"]), cache)).read() == b"page"
        # Warnings are errors, so this test fails if the end of one that is forgotten does.
        forgotten = Server(PageMiddleware(app_of(stream), cache))
        del forgotten, unfinished
        gc.collect()

    def test_broken_store_does_not_break_a_page(self) -> None:
        cache = Cache("redis://127.0.0.1:1")

        def stream() -> Iterator[bytes]:
            cache.set("a", 1)
            yield b"one"

        assert Server(PageMiddleware(app_of(stream), cache)).read() == b"one"

    @pytest.mark.parametrize("what", [None, "redis://127.0.0.1", [], [None], 5])
    def test_missing_cache_raises(self, what: Any) -> None:
        with pytest.raises(ConfigurationError) as failure:
            PageMiddleware(app_of(list), what)
        said = str(failure.value)
        assert "PageMiddleware(app, cache)" in said or "onetrip.Cache(url)" in said


class TestServerTiming:
    @pytest.fixture
    def local(self) -> Cache:
        return Cache("memory://?latency=2ms")

    def test_header_is_sent_on_request(self, local: Cache) -> None:
        app = app_of(lambda: [b""])
        assert Server(PageMiddleware(app, local)).timing == []
        assert Server(PageMiddleware(app, local, server_timing=True)).timing == [
            'cache;dur=0.0;desc="0 trips, 0 hits"'
        ]

        def asked(environ: WSGIEnvironment) -> bool:
            return bool(environ.get("HTTP_X_TIMING"))

        sometimes = PageMiddleware(app, local, server_timing=asked)
        assert Server(sometimes).timing == []
        assert len(Server(sometimes, HTTP_X_TIMING="1").timing) == 1

    def test_whole_page_is_counted_if_its_length_is_known(self, local: Cache) -> None:
        def page() -> Iterator[bytes]:
            assert local.get("a") is None
            local.set("a", 1)
            local.set("b", 2)
            yield b"page"

        app = PageMiddleware(app_of(page, length(b"page")), local, server_timing=True)
        (told,) = Server(app).timing
        found = re.fullmatch(r'cache;dur=(\d+\.\d);desc="3 trips, 0 hits"', told)
        assert found is not None
        assert float(found[1]) >= 6

    def test_whole_list_is_counted(self, local: Cache) -> None:
        def page() -> list[bytes]:
            local.set("a", 1)
            return [b"page"]

        server = Server(PageMiddleware(app_of(page), local, server_timing=True))
        assert server.timing[0].endswith('desc="1 trip, 0 hits"')

    def test_counts_hits_of_scope_and_store(self, local: Cache) -> None:
        local.set_many({"a": 1, "b": 2})

        def page() -> list[bytes]:
            with local.preload("a", "b", "c"):
                assert local.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
                assert local["a"] == 1
            assert "d" not in local
            return [b"page"]

        server = Server(PageMiddleware(app_of(page), local, server_timing=True))
        assert server.timing[0].endswith('desc="2 trips, 3 hits"')

    def test_header_in_a_late_head(self, local: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
            yield b""
            local.get("a")
            start_response("200 OK", [PLAIN])
            yield b"late"

        server = Server(PageMiddleware(app, local, server_timing=True))
        assert server.read() == b"late"
        assert server.timing[0].endswith('desc="1 trip, 0 hits"')

    def test_counts_trips_before_the_body(self, local: Cache) -> None:
        def page() -> Iterator[bytes]:
            local.get("a")
            yield b"one"
            local.get("b")
            yield b"two"

        server = Server(PageMiddleware(app_of(page), local, server_timing=True))
        assert server.timing[0].endswith('desc="1 trip, 0 hits"')
        assert server.read() == b"onetwo"

    def test_header_before_the_first_write(self, local: Cache) -> None:
        def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [PLAIN])
            local.get("a")
            write(b"one")
            local.get("b")
            return [b"two"]

        server = Server(PageMiddleware(app, local, server_timing=True))
        assert server.timing[0].endswith('desc="1 trip, 0 hits"')
        assert server.read() == b"onetwo"

    def test_headers_of_the_application_are_kept(self, local: Cache) -> None:
        app = app_of(lambda: [b""], ("Server-Timing", "db;dur=3"))
        server = Server(PageMiddleware(app, local, server_timing=True))
        assert server.timing == ["db;dur=3", 'cache;dur=0.0;desc="0 trips, 0 hits"']

    def test_middlewares_report_their_own_caches(self, local: Cache) -> None:
        another = Cache()

        def page() -> list[bytes]:
            local.get("a")
            another.get_many(["a"])
            another.get("b")
            return [b""]

        inner = PageMiddleware(app_of(page), another, server_timing=True)
        told = Server(PageMiddleware(inner, [local, another], server_timing=True)).timing
        assert [value.rpartition("=")[2] for value in told] == ['"3 trips, 0 hits"']
        told = Server(PageMiddleware(inner, local, server_timing=True)).timing
        assert [value.rpartition("=")[2] for value in told] == [
            '"2 trips, 0 hits"',
            '"1 trip, 0 hits"',
        ]

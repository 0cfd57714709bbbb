"""The ASGI middleware: when the scope of a request is open, and what its header tells."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, ConfigurationError, StoreError
from onetrip.asgi import PageMiddleware
from tests.pieces import afetch, ais_held, ais_in_a_scope, fetch, is_held, is_in_a_scope
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterator,
        MutableMapping,
    )

    from tests.conftest import OpenCache

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def start(*headers: tuple[bytes, bytes]) -> Message:
    return {**START, "headers": list(headers)}


def is_run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine, run in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Server:
    """The ASGI server of these tests."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sent: list[Message] = []
        self.on_send: Callable[[Message], Awaitable[None]] | None = None
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()

    async def __call__(self, kind: str = "http", **scope: Any) -> bytes:
        """Serve one request; the body of its response."""
        await self.app({"type": kind, "headers": [], **scope}, self.incoming.get, self.send)
        return b"".join(message.get("body", b"") for message in self.sent)

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.on_send is not None:
            await self.on_send(message)

    @property
    def timing(self) -> list[str]:
        headers = [pair for message in self.sent for pair in message.get("headers", ())]
        return [value.decode() for name, value in headers if name == b"server-timing"]


def app_of(page: Callable[[Send], Awaitable[None]]) -> App:
    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await page(send)

    return app


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server whose connections are those of one test."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


class TestTheScope:
    @is_run
    async def test_computed_values_are_stored_and_the_scope_closes(
        self, cache: Cache, other: Cache
    ) -> None:
        async def page(send: Send) -> None:
            await afetch(cache, "a")
            assert await ais_held(cache, "a")
            await cache.aset("b", 2)
            assert await other.aget("b") == 2
            await send(START)
            await send(body(b"page"))

        server = Server(PageMiddleware(app_of(page), cache))
        assert await server() == b"page"
        assert await other.aget("piece:a") == "a"
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_posts_arrive_before_the_end_of_the_body(
        self, cache: Cache, other: Cache
    ) -> None:
        stored: list[Any] = []

        async def page(send: Send) -> None:
            await send(START)
            for part in "abc":
                assert await ais_in_a_scope(cache)
                await afetch(cache, part)
                await send(body(part.encode(), more=True))
            await send(body(b""))

        async def look(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                stored.extend(await other.aget_many(["piece:a", "piece:b", "piece:c"]))

        server = Server(PageMiddleware(app_of(page), cache))
        server.on_send = look
        assert await server() == b"abc"
        assert stored == ["piece:a", "piece:b", "piece:c"]

    @is_run
    async def test_held_pieces_expire_quickly_while_the_body_is_sent(
        self, open_cache: OpenCache
    ) -> None:
        cache = open_cache(read_max_age=0)

        async def page(send: Send) -> None:
            await send(START)
            assert await ais_in_a_scope(cache)
            await send(body(b"one", more=True))
            assert not await ais_in_a_scope(cache)
            await send(body(b"two"))

        assert await Server(PageMiddleware(app_of(page), cache))() == b"onetwo"

    @pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
    def test_scope_closes_before_a_file_is_sent(
        self, cache: Cache, other: Cache, kind: str
    ) -> None:
        async def page(send: Send) -> None:
            await cache.aset("a", 1)
            await send(START)
            await send({"type": f"http.response.{kind}"})

        async def look(message: Message) -> None:
            if message["type"].endswith("send"):
                assert await other.aget("a") == 1

        async def serve() -> None:
            server = Server(PageMiddleware(app_of(page), cache))
            server.on_send = look
            await server()
            assert len(server.sent) == 2

        asyncio.run(serve())

    @is_run
    async def test_background_tasks_have_a_scope_of_their_own(
        self, cache: Cache, other: Cache
    ) -> None:
        async def page(send: Send) -> None:
            await afetch(cache, "page")
            await send(START)
            await send(body(b"page"))
            assert await other.aget("piece:page") == "page"
            assert not await ais_held(cache, "page")
            assert await ais_in_a_scope(cache)
            await afetch(cache, "a")

        await Server(PageMiddleware(app_of(page), cache))()
        assert await other.aget("piece:a") == "a"
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_tasks_and_threads_of_a_request_are_in_its_scope(self, cache: Cache) -> None:
        async def work(name: str) -> None:
            assert await ais_held(cache, "a")
            await afetch(cache, name)

        def blocking() -> None:
            assert is_held(cache, "a")
            fetch(cache, "b")

        async def page(send: Send) -> None:
            await afetch(cache, "a")
            await asyncio.gather(work("c"), work("d"), asyncio.to_thread(blocking))
            assert [await ais_held(cache, name) for name in "bcd"] == [True] * 3
            await send(START)
            await send(body(b"page"))

        await Server(PageMiddleware(app_of(page), cache))()

    @is_run
    async def test_scope_stays_open_if_another_task_sends_the_body(
        self, cache: Cache, other: Cache
    ) -> None:
        """As Starlette streams on servers of older versions of ASGI."""

        async def stream(send: Send) -> None:
            await afetch(cache, "a")
            await send(START)
            await send(body(b"page"))

        async def page(send: Send) -> None:
            await asyncio.create_task(stream(send))
            assert await ais_in_a_scope(cache)
            await afetch(cache, "b")

        assert await Server(PageMiddleware(app_of(page), cache))() == b"page"
        assert len(await other.aget_many(["piece:a", "piece:b"])) == 2
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_each_cache_has_a_scope(self, open_cache: OpenCache) -> None:
        caches = [open_cache(prefix="a"), open_cache(prefix="b")]

        async def page(send: Send) -> None:
            assert [await ais_in_a_scope(cache) for cache in caches] == [True, True]
            await send(START)
            await send(body(b""))

        await Server(PageMiddleware(app_of(page), caches))()
        assert [await ais_in_a_scope(cache) for cache in caches] == [False, False]


class TestRequestsShareNothing:
    @is_run
    async def test_concurrent_requests_share_nothing(self, cache: Cache) -> None:
        arrived: list[int] = []
        both = asyncio.Event()
        held: list[Any] = []

        async def page(send: Send) -> None:
            arrived.append(len(arrived))
            mine = arrived[-1]
            await afetch(cache, mine)
            if len(arrived) == 2:
                both.set()
            await both.wait()
            held.append([await ais_held(cache, name) for name in (mine, 1 - mine)])
            await send(START)
            await send(body(b""))

        app = PageMiddleware(app_of(page), cache)
        await asyncio.gather(Server(app)(), Server(app)())
        assert held == [[True, False]] * 2

    @is_run
    async def test_scope_left_open_does_not_leak(self, cache: Cache, other: Cache) -> None:
        async def page(send: Send) -> None:
            assert await cache.aget("a") is None
            await cache.scope().__aenter__()
            cache.scope().__enter__()
            await cache.aset("a", 1)
            await send(START)
            await send(body(b""))

        server = Server(PageMiddleware(app_of(page), cache))
        for _ in range(2):
            await server()
            assert await other.aget("a") == 1
            assert not await ais_in_a_scope(cache)
            await other.adelete("a")

    @is_run
    async def test_task_that_outlives_its_request(self, cache: Cache, other: Cache) -> None:
        over, tasks = asyncio.Event(), []
        read: list[Any] = []

        async def work() -> None:
            await over.wait()
            for value in (1, 2):
                await other.aset("a", value)
                read.append(await cache.aget("a"))
            read.append(await ais_in_a_scope(cache))

        async def page(send: Send) -> None:
            assert await cache.aget("a") is None
            tasks.append(asyncio.create_task(work()))
            await send(START)
            await send(body(b"begun"))

        await Server(PageMiddleware(app_of(page), cache))()
        over.set()
        await tasks[0]
        assert read == [1, 2, False]

    @is_run
    async def test_generator_read_after_its_request(self, cache: Cache, other: Cache) -> None:
        async def parts() -> AsyncIterator[Any]:
            for part in range(3):
                await cache.aset("part", part)
                yield await cache.aget("part")

        kept = parts()

        async def page(send: Send) -> None:
            assert await anext(kept) == 0
            assert await other.aget("part") == 0
            await send(START)
            await send(body(b""))

        await Server(PageMiddleware(app_of(page), cache))()
        assert await anext(kept) == 1
        assert await other.aget("part") == 1

    @is_run
    async def test_nested_middlewares_act_as_one(self, cache: Cache, other: Cache) -> None:
        async def page(send: Send) -> None:
            await afetch(cache, "a")
            await send(START)
            await send(body(b"page"))
            assert not await ais_held(cache, "a")
            assert await ais_in_a_scope(cache)

        app = app_of(page)
        for _ in range(3):
            app = PageMiddleware(app, cache, server_timing=True)
        server = Server(app)
        assert await server() == b"page"
        assert len(server.timing) == 1
        assert await other.aget("piece:a") == "a"
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_a_websocket_has_no_scope(self, cache: Cache, other: Cache) -> None:
        async def app(scope: Message, receive: Receive, send: Send) -> None:
            assert scope["type"] == "websocket"
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                assert not await ais_in_a_scope(cache)
                await cache.aset("a", 1)
                async with cache.scope():
                    assert await ais_in_a_scope(cache)
                await send({"type": "websocket.send", "text": str(await other.aget("a"))})

        server = Server(PageMiddleware(app, cache, server_timing=True))
        for message in ("receive", "receive", "disconnect"):
            server.incoming.put_nowait({"type": f"websocket.{message}"})
        await server("websocket")
        assert [message.get("text") for message in server.sent] == [None, "1", "1"]


class TestErrors:
    @pytest.mark.parametrize("sent", [[], [START], [START, body(b"one", more=True)]])
    def test_raising_application_closes_the_scope(
        self, cache: Cache, other: Cache, sent: list[Message]
    ) -> None:
        async def page(send: Send) -> None:
            await cache.aset("a", 1)
            for message in sent:
                await send(message)
            raise LookupError("no such page")

        async def serve() -> None:
            server = Server(PageMiddleware(app_of(page), cache))
            with pytest.raises(LookupError, match="no such page"):
                await server()
            assert server.sent == sent
            assert await other.aget("a") == 1
            assert not await ais_in_a_scope(cache)

        asyncio.run(serve())

    @is_run
    async def test_disconnected_client_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        async def page(send: Send) -> None:
            await cache.aset("a", 1)
            await send(START)
            await send(body(b"page"))

        async def refuse(_message: Message) -> None:
            raise OSError("the client left")

        server = Server(PageMiddleware(app_of(page), cache))
        server.on_send = refuse
        with pytest.raises(OSError, match="the client left"):
            await server()
        assert await other.aget("a") == 1
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_application_that_sees_the_disconnect(self, cache: Cache, other: Cache) -> None:
        async def app(_scope: Message, receive: Receive, _send: Send) -> None:
            await cache.aset("a", 1)
            assert (await receive())["type"] == "http.disconnect"

        server = Server(PageMiddleware(app, cache))
        server.incoming.put_nowait({"type": "http.disconnect"})
        await server()
        assert await other.aget("a") == 1
        assert not await ais_in_a_scope(cache)

    @is_run
    async def test_cancelled_request_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        begun = asyncio.Event()

        async def page(_send: Send) -> None:
            await cache.aset("a", 1)
            begun.set()
            await asyncio.Event().wait()

        request = asyncio.create_task(Server(PageMiddleware(app_of(page), cache))())
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert await other.aget("a") == 1

    @is_run
    async def test_failing_write_raises_at_the_call(self) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")

        async def page(send: Send) -> None:
            with pytest.raises(StoreError):
                await cache.aset("a", 1)
            with pytest.raises(StoreError):
                await afetch(cache, "a")
            await send(start((b"content-length", b"4")))
            await send(body(b"page"))

        server = Server(PageMiddleware(app_of(page), cache, server_timing=True))
        assert await server() == b"page"

    @pytest.mark.parametrize("what", [None, "redis://127.0.0.1", [], [None], 5])
    def test_missing_cache_raises(self, what: Any) -> None:
        async def page(_send: Send) -> None: ...

        with pytest.raises(ConfigurationError) as failure:
            PageMiddleware(app_of(page), what)
        said = str(failure.value)
        assert "PageMiddleware(app, cache)" in said or "onetrip.Cache(url)" in said


class TestLifespan:
    @is_run
    async def test_shutdown_closes_idle_connections(self, own_server: RedisServer) -> None:
        def connections() -> int:
            return len(own_server.admin.client_list())

        cache = Cache(own_server.url)
        before = connections()

        async def app(_scope: Message, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert not await asyncio.to_thread(is_in_a_scope, cache)
            assert connections() == before + 1
            assert (await receive())["type"] == "lifespan.shutdown"
            assert await asyncio.to_thread(cache.get, "a") is None
            assert connections() == before + 1
            await send({"type": "lifespan.shutdown.complete"})
            # The server sees the end of a connection when it comes to it.
            assert any(connections() == before for _ in range(10_000))

        server = Server(PageMiddleware(app, cache))
        for message in ("startup", "shutdown"):
            server.incoming.put_nowait({"type": f"lifespan.{message}"})
        await server("lifespan")
        assert len(server.sent) == 2
        # The cache has not ended: it connects when it is asked again.
        assert await asyncio.to_thread(cache.get, "piece:probe") == "probe"

    @is_run
    async def test_application_without_lifespan(self, cache: Cache) -> None:
        async def app(scope: Message, _receive: Receive, _send: Send) -> None:
            assert scope["type"] == "http", "there is no lifespan"

        with pytest.raises(AssertionError, match="there is no lifespan"):
            await Server(PageMiddleware(app, cache))("lifespan")


class TestServerTiming:
    @pytest.fixture
    def local(self) -> Cache:
        return Cache("memory://?latency=2ms")

    @is_run
    async def test_header_is_sent_on_request(self, local: Cache) -> None:
        async def page(send: Send) -> None:
            await send(start((b"server-timing", b"db;dur=3")))
            await send(body(b""))

        def asked(scope: Message) -> bool:
            return bool(scope.get("query_string"))

        for timing, told in ((False, False), (True, True), (asked, False)):
            server = Server(PageMiddleware(app_of(page), local, server_timing=timing))
            await server()
            expected = ['cache;dur=0.0;desc="0 trips, 0 hits"'] if told else []
            assert server.timing == ["db;dur=3", *expected]
        server = Server(PageMiddleware(app_of(page), local, server_timing=asked))
        await server(query_string=b"timing")
        assert len(server.timing) == 2

    @is_run
    async def test_whole_page_is_counted_if_its_length_is_known(self, local: Cache) -> None:
        async def page(send: Send) -> None:
            await local.aget("a")
            await local.aset("a", 1)
            await send(start((b"Content-Length", b"4")))
            await send(body(b"page"))

        server = Server(PageMiddleware(app_of(page), local, server_timing=True))
        assert await server() == b"page"
        (told,) = server.timing
        found = re.fullmatch(r'cache;dur=(\d+\.\d);desc="2 trips, 0 hits"', told)
        assert found is not None
        assert float(found[1]) >= 4
        assert [message["type"][14:] for message in server.sent] == ["start", "body"]

    @is_run
    async def test_stream_head_is_not_delayed(self, local: Cache) -> None:
        server: Server | None = None

        async def page(send: Send) -> None:
            await local.aget("a")
            await send(START)
            assert server is not None
            assert len(server.sent) == 1
            await local.aget("b")
            await send(body(b"one", more=True))
            await send(body(b"two"))

        server = Server(PageMiddleware(app_of(page), local, server_timing=True))
        assert await server() == b"onetwo"
        assert server.timing[0].endswith('desc="1 trip, 0 hits"')
        assert START["headers"] == []

    @is_run
    async def test_middlewares_report_their_own_caches(self, local: Cache) -> None:
        another = Cache()

        async def page(send: Send) -> None:
            await local.aget("a")
            await another.aget_many(["a"])
            await another.aget("b")
            await send(START)
            await send(body(b""))

        inner = PageMiddleware(app_of(page), another, server_timing=True)
        for outer, told in (
            (local, ['"2 trips, 0 hits"', '"1 trip, 0 hits"']),
            ([local, another], ['"3 trips, 0 hits"']),
        ):
            server = Server(PageMiddleware(inner, outer, server_timing=True))
            await server()
            assert [value.rpartition("=")[2] for value in server.timing] == told

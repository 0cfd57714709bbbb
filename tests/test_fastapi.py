"""FastAPI, as its users write it: dependencies, endpoints in threads, streams, cached functions."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from onetrip import Cache
from onetrip.asgi import PageMiddleware
from tests.pieces import afetch, ais_held, ais_in_a_scope, fetch, is_held, is_in_a_scope

with warnings.catch_warnings():
    # It would rather have httpx2, which is not locked yet.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import OpenCache
    from tests.servers import RedisServer


@pytest.fixture
def app(cache: Cache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(PageMiddleware, cache=cache, server_timing=True)
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


def test_dependencies_and_endpoints_share_a_scope(
    app: FastAPI, client: TestClient, cache: Cache, other: Cache
) -> None:
    async def awaited() -> bool:
        await afetch(cache, "a")
        return await ais_in_a_scope(cache)

    def blocking() -> bool:
        fetch(cache, "b")
        return is_in_a_scope(cache)

    def ending() -> Iterator[bool]:
        fetch(cache, "c")
        yield is_in_a_scope(cache)
        fetch(cache, "d")

    async def read(
        first: bool = Depends(awaited),
        second: bool = Depends(blocking),
        third: bool = Depends(ending),
    ) -> list[bool]:
        return [first, second, third, *[await ais_held(cache, name) for name in "abc"]]

    def read_in_a_thread(
        first: bool = Depends(awaited),
        second: bool = Depends(blocking),
    ) -> list[bool]:
        return [first, second, is_in_a_scope(cache), *[is_held(cache, name) for name in "ab"]]

    app.get("/")(read)
    app.get("/thread")(read_in_a_thread)
    assert client.get("/").json() == [True] * 6
    assert len(other.get_many(f"piece:{name}" for name in "abcd")) == 4
    assert client.get("/thread").json() == [True] * 5
    assert not is_in_a_scope(cache)


def test_streamed_response(app: FastAPI, client: TestClient, cache: Cache, other: Cache) -> None:
    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            assert await ais_in_a_scope(cache)
            await afetch(cache, part)
            yield part

    def blocking_parts() -> Iterator[str]:
        for part in "def":
            assert is_in_a_scope(cache)
            fetch(cache, part)
            yield part

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    @app.get("/thread")
    def stream_in_threads() -> StreamingResponse:
        return StreamingResponse(blocking_parts())

    for path, text in (("/", "abc"), ("/thread", "def")):
        assert client.get(path).text == text
        assert len(other.get_many(f"piece:{part}" for part in text)) == 3


def test_background_tasks(app: FastAPI, client: TestClient, cache: Cache, other: Cache) -> None:
    async def later() -> None:
        assert not await ais_held(cache, "page")
        assert await ais_in_a_scope(cache)

    def later_in_a_thread() -> None:
        fetch(cache, "b")
        assert is_in_a_scope(cache)

    @app.get("/")
    async def page(tasks: BackgroundTasks) -> str:
        tasks.add_task(later)
        tasks.add_task(later_in_a_thread)
        await afetch(cache, "page")
        return "page"

    client.get("/")
    assert other.get_many(["piece:b", "piece:page"]) == {"piece:b": "b", "piece:page": "page"}


def test_raising_endpoint(app: FastAPI, cache: Cache, other: Cache) -> None:
    @app.get("/")
    async def page() -> str:
        await cache.aset("a", 1)
        raise LookupError("no page")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 500
    assert other["a"] == 1


def test_websockets_have_no_scope(app: FastAPI, client: TestClient, cache: Cache) -> None:
    @app.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([await ais_in_a_scope(cache)])
        await websocket.close()

    with client.websocket_connect("/") as websocket:
        assert websocket.receive_json() == [False]


@pytest.mark.parametrize("is_async", [True, False])
def test_cached_functions_work_as_endpoints_and_dependencies(
    app: FastAPI, client: TestClient, cache: Cache, *, is_async: bool
) -> None:
    calls: list[int] = []

    if is_async:

        @app.get("/squares/{number}")
        @cache.cached(timeout=60)
        async def square(number: int, plus: int = 0) -> dict[str, int]:
            """Square a number."""
            calls.append(number)
            return {"square": number * number + plus}

        @cache.cached(timeout=60)
        async def settings(number: int) -> list[int]:
            calls.append(-number)
            return [number]

        @app.get("/settings/{number}")
        async def read(found: list[int] = Depends(settings)) -> list[int]:  # noqa: B008 - as FastAPI has it
            return found

        signature = inspect.signature(square)
    else:

        @app.get("/squares/{number}")
        @cache.cached(timeout=60)
        def square_in_a_thread(number: int, plus: int = 0) -> dict[str, int]:
            """Square a number."""
            calls.append(number)
            return {"square": number * number + plus}

        @cache.cached(timeout=60)
        def settings_in_a_thread(number: int) -> list[int]:
            calls.append(-number)
            return [number]

        @app.get("/settings/{number}")
        def read_in_a_thread(
            found: list[int] = Depends(settings_in_a_thread),  # noqa: B008 - as FastAPI has it
        ) -> list[int]:
            return found

        signature = inspect.signature(square_in_a_thread)

    assert list(signature.parameters) == ["number", "plus"]
    for _ in range(2):
        assert client.get("/squares/4?plus=1").json() == {"square": 17}
        assert client.get("/settings/5").json() == [5]
    assert client.get("/squares/four").status_code == 422
    assert calls == [4, -5]
    documented = client.get("/openapi.json").json()["paths"]["/squares/{number}"]["get"]
    assert documented["description"] == "Square a number."
    assert [one["name"] for one in documented["parameters"]] == ["number", "plus"]


@contextmanager
def uvicorn_of(app: FastAPI, loop: Literal["asyncio", "uvloop"]) -> Iterator[tuple[str, int]]:
    """A real server on another thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, loop=loop, log_level="warning"))
    # It listens already, so that nobody has to wait until it is ready.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
class TestUvicorn:
    def test_a_warm_page_is_one_trip(
        self, loop: Literal["asyncio", "uvloop"], redis_server: RedisServer
    ) -> None:
        redis_server.flush()
        cache = Cache(redis_server.url)
        app = FastAPI()
        app.add_middleware(PageMiddleware, cache=cache)

        @cache.cached(timeout=60, key="part:{number}")
        async def part(number: int) -> int:
            return number

        @cache.cached(timeout=60, key="last:{number}")
        def last(number: int) -> int:
            return number

        async def preloaded(number: int) -> None:
            async with cache.preload([part.key(number), last.key(number)]):
                pass

        @app.get("/{number}", dependencies=[Depends(preloaded)])
        def page(number: int, first: int = Depends(part)) -> list[int]:
            return [first, last(number)]

        with (
            uvicorn_of(app, loop) as (host, port),
            httpx.Client(base_url=f"http://{host}:{port}") as client,
        ):
            for _ in range(3):  # the third leaves what was learned for other workers
                assert client.get("/5").json() == [5, 5]
            redis_server.reset_stats()
            assert client.get("/5").json() == [5, 5]
            assert (redis_server.commandstats(), redis_server.reads()) == ({"mget": 1}, 1)
            with ThreadPoolExecutor(8) as readers:
                pages = list(readers.map(lambda n: client.get(f"/{n % 4}").json(), range(100)))
            assert pages == [[n % 4] * 2 for n in range(100)]

    def test_disconnected_client(
        self, loop: Literal["asyncio", "uvloop"], redis_server: RedisServer
    ) -> None:
        redis_server.flush()
        cache, other = Cache(redis_server.url), Cache(redis_server.url)

        async def parts() -> AsyncIterator[str]:
            await cache.aset("a", 1)
            while True:
                yield "more and more\n"
                await asyncio.sleep(0)

        app = FastAPI()

        @app.get("/")
        async def stream() -> StreamingResponse:
            return StreamingResponse(parts())

        served = threading.Event()
        page = PageMiddleware(app, cache)

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            try:
                await page(scope, receive, send)
            finally:
                if scope["type"] == "http":
                    served.set()

        with (
            uvicorn_of(cast("FastAPI", serve), loop) as (host, port),
            socket.create_connection((host, port)) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: notes\r\n\r\n")
            assert b"200 OK" in client.recv(1024)
            client.close()
            assert served.wait(30)
        assert other["a"] == 1

"""Pages that learn under FastAPI, Starlette and other ASGI applications."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, WebSocket
from fastapi.responses import Response, StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from onetrip import Cache, ConfigurationError
from onetrip.asgi import PageMiddleware
from tests.notes_pages import KEYS, filled, names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.servers import RedisServer


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    with filled(redis_url) as cache:
        yield cache


async def read_note(cache: Cache, number: object) -> str:
    return " ".join([str(await cache._apiece_get(key.format(number))) for key in KEYS])


def make_app(cache: Cache, **options: Any) -> FastAPI:
    """An application with one view, which reads three keys for a note."""
    app = FastAPI()
    app.add_middleware(PageMiddleware, cache=cache, **options)

    @app.get("/notes/{note_id}")
    @app.head("/notes/{note_id}")
    @app.post("/notes/{note_id}")
    async def note(note_id: int) -> str:
        return await read_note(cache, note_id)

    return app


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://notes")


def visit(app: Any, *paths: str, method: str = "GET", **options: Any) -> None:
    """Visit pages one after another."""

    async def visit_all() -> None:
        async with client_of(app) as client:
            for path in paths:
                await client.request(method, path, **options)

    asyncio.run(visit_all())


def templates(cache: Cache) -> set[str]:
    return {template for route in cache.pages() for template, _ in route.templates}


class TestTrips:
    def test_second_visit_and_unseen_pages_are_one_trip(
        self, cache: Cache, redis_server: RedisServer
    ) -> None:
        app = make_app(cache)

        async def visits() -> list[int]:
            trips = []
            async with client_of(app) as client:
                await cache._apiece_get("a connection")
                for number in (5, 5, 6, *range(7, 20)):
                    redis_server.reset_stats()
                    response = await client.get(f"/notes/{number}")
                    assert response.json() == f"{number} {number} menu"
                    trips.append(redis_server.reads())
                redis_server.reset_stats()
                await client.head("/notes/7")
                trips.append(redis_server.reads())
            await cache.aclose()
            return trips

        assert asyncio.run(visits())[:2] == [3, 1]
        assert names(cache) == {"/notes/{note_id}": 17}
        assert templates(cache) == {"note_markup:{note_id}", "note:{note_id}:tags", "menu"}
        trips = asyncio.run(visits())
        assert trips == [1] * 17

    def test_endpoints_in_threads(self, cache: Cache, redis_server: RedisServer) -> None:
        app = FastAPI()
        app.add_middleware(PageMiddleware, cache=cache)

        @app.get("/notes/{note_id}")
        def note(note_id: int) -> str:
            return " ".join(str(cache._piece_get(key.format(note_id))) for key in KEYS)

        visit(app, "/notes/5", "/notes/6")
        cache._piece_get("a connection")
        redis_server.reset_stats()
        visit(app, "/notes/7")
        assert redis_server.commandstats()["mget"] == 1

    def test_concurrent_requests_learn_separately(self, cache: Cache) -> None:
        app = FastAPI()
        app.add_middleware(PageMiddleware, cache=cache)
        waiting: list[asyncio.Event] = []

        async def both() -> None:
            """Wait until the other is here as well."""
            here = asyncio.Event()
            waiting.append(here)
            if len(waiting) == 2:
                for event in waiting:
                    event.set()
                waiting.clear()
            await asyncio.wait_for(here.wait(), 30)

        @app.get("/tags/{note_id}")
        async def tags(note_id: int) -> None:
            await both()
            await cache._apiece_get(f"note:{note_id}:tags")
            await both()
            await cache._apiece_get("tags")

        @app.get("/markup/{note_id}")
        async def markup(note_id: int) -> None:
            await both()
            await cache._apiece_get(f"note_markup:{note_id}")
            await both()
            await cache._apiece_get("styles")

        async def visits() -> None:
            async with client_of(app) as client:
                for number in range(5):
                    await asyncio.gather(
                        client.get(f"/tags/{number}"), client.get(f"/markup/{number}")
                    )

        asyncio.run(visits())
        learned = {route.name: dict(route.templates).keys() for route in cache.pages()}
        assert learned == {
            "/tags/{note_id}": {"note:{note_id}:tags", "tags"},
            "/markup/{note_id}": {"note_markup:{note_id}", "styles"},
        }


class TestNames:
    def test_included_routers(self, cache: Cache) -> None:
        app, outer, inner = FastAPI(), APIRouter(), APIRouter(prefix="/v1")
        app.add_middleware(PageMiddleware, cache=cache)

        @inner.get("/items/{item}")
        async def show(shop: str, item: int) -> None:
            await cache._apiece_get(f"item:{shop}:{item}")

        outer.include_router(inner)
        outer.mount("/old", Starlette(routes=[Route("/{item:int}", self.endpoint(cache))]))
        app.include_router(outer, prefix="/shops/{shop}")
        visit(app, "/shops/a/v1/items/5", "/shops/b/v1/items/6", "/shops/a/old/5")
        assert names(cache) == {"/shops/{shop}/v1/items/{item}": 2, "/shops/{shop}/old/{item}": 1}
        assert "item:{shop}:{item}" in templates(cache)

    def endpoint(self, cache: Cache) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            await cache._apiece_get("-".join(map(str, request.path_params.values())))
            return PlainTextResponse("page")

        return endpoint

    def starlette(self, cache: Cache, **options: Any) -> Starlette:
        end = self.endpoint(cache)
        notes = Starlette(routes=[Route("/", end), Route("/{note_id:int}", end)])
        return Starlette(
            routes=[
                Route("/only", end, methods=["POST"]),
                Route("/{page}", end),
                Mount("/static", StaticFiles(directory=".")),
                Mount("/tenants/{tenant}", routes=[Mount("/notes", notes)]),
                Host("{sub}.notes", app=Router([Route("/host/{n}", end)])),
            ],
            **options,
        )

    PATHS = (
        "/home",
        "/only",
        "/static/README.md",
        "/tenants/a/notes/",
        "/tenants/a/notes/5",
        "/tenants/a/notes/nothing",
        "http://sub.notes/host/5",
        "/host/5",
    )
    NAMES: ClassVar = {
        "/{page}": 2,
        "/tenants/{tenant}/notes/": 1,
        "/tenants/{tenant}/notes/{note_id}": 1,
        "{sub}.notes/host/{n}": 1,
    }

    def test_starlette(self, cache: Cache) -> None:
        app = self.starlette(cache, middleware=[Middleware(PageMiddleware, cache=cache)])
        visit(app, *self.PATHS)
        assert names(cache) == self.NAMES

    def test_middleware_around_the_application_and_root_path(self, cache: Cache) -> None:
        app = PageMiddleware(self.starlette(cache), cache)

        async def below(scope: Any, receive: Any, send: Any) -> None:
            scope = {**scope, "root_path": "/app", "path": "/app" + scope["path"]}
            await app(scope, receive, send)

        visit(below, *self.PATHS)
        assert names(cache) == self.NAMES

    def test_mounted_application_names_its_pages(self, cache: Cache) -> None:
        one = PageMiddleware(self.starlette(cache), cache)

        inner = self.starlette(cache)

        async def hidden(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)

        # Behind another middleware the outer application would be asked, which has run already.
        two = PageMiddleware(hidden, cache)
        three = make_app(cache)
        mounts = [Mount("/one", one), Mount("/two", two), Mount("/three", three)]
        app = FastAPI(routes=[*mounts, Route("/{other}", self.endpoint(cache))])
        visit(app, "/one/home", "/two/home", "/three/notes/5")
        assert names(cache) == {"/{page}": 1, "/notes/{note_id}": 1}

    def test_one_cache_in_two_middlewares_is_named_once(self, cache: Cache) -> None:
        app = make_app(cache)
        app.add_middleware(PageMiddleware, cache=cache)
        visit(app, "/notes/5", "/notes/6")
        assert names(cache) == {"/notes/{note_id}": 2}
        assert [(route.reads, route.trips) for route in cache.pages()] == [(6, 4)]

    def test_query_and_facets(self, cache: Cache) -> None:
        app = FastAPI()
        app.add_middleware(
            PageMiddleware,
            cache=cache,
            query=["page", "absent"],
            facets=lambda scope: {"user": dict(scope["headers"])[b"x-user"].decode()},
        )

        @app.get("/list")
        async def listing(request: Request, page: str) -> None:
            await cache._apiece_get(f"list:{page}")
            await cache._apiece_get(f"basket:{request.headers['x-user']}")

        for page, user in (("3", "ada"), ("4 Ü", "grace"), ("7", "mary")):
            params = {"page": page, "session": f"{page}00"}
            visit(app, "/list", params=params, headers={"X-User": user})
        assert {"list:{page}", "basket:{user}"} <= templates(cache)
        assert not any("session" in template for template in templates(cache))
        (route,) = cache.pages()
        assert (route.visits, route.trips) == (3, 4)

    def test_custom_names(self, cache: Cache) -> None:
        async def app(scope: Any, _receive: Any, send: Any) -> None:
            await read_note(cache, scope["path"][1:])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"page"})

        visit(PageMiddleware(app, cache), "/5")
        assert names(cache) == {}

        def name(scope: Any) -> Any:
            return None if scope["path"] == "/" else ("note", {"n": scope["path"][1:]})

        named = PageMiddleware(app, cache, name=name)
        visit(named, "/5", "/6", "/", "/7")
        (route,) = cache.pages()
        assert (route.name, route.visits, route.trips) == ("note", 3, 5)


class TestNotLearned:
    def test_unsafe_methods_and_unknown_paths(self, cache: Cache) -> None:
        app = make_app(cache)
        visit(app, "/notes/5", method="POST")
        visit(app, "/notes/5", method="OPTIONS")
        visit(app, "/nowhere", "/notes/5/")
        assert names(cache) == {}

    def test_websockets(self, cache: Cache) -> None:
        app = make_app(cache)

        @app.websocket("/live/{note_id}")
        async def live(socket: WebSocket, note_id: int) -> None:
            await socket.accept()
            await read_note(cache, note_id)
            await socket.close()

        async def connect() -> list[Any]:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(message: Any) -> None:
                sent.append(message["type"])

            scope = {"type": "websocket", "path": "/live/5", "headers": [], "query_string": b""}
            await app(scope, receive, send)
            return sent

        assert asyncio.run(connect()) == ["websocket.accept", "websocket.close"]
        assert names(cache) == {}

    def test_errors(self, cache: Cache) -> None:
        app = make_app(cache)

        @app.get("/denied/{note_id}")
        async def denied(note_id: int) -> None:
            await read_note(cache, note_id)
            raise HTTPException(403)

        @app.get("/gone/{note_id}")
        async def gone(note_id: int) -> Response:
            return Response(await read_note(cache, note_id), 410)

        @app.get("/broken/{note_id}")
        async def broken(note_id: int) -> None:
            await read_note(cache, note_id)
            raise LookupError("no page")

        visit(app, "/denied/5", "/gone/5", "/broken/5", "/notes/text")
        assert names(cache) == {}
        visit(app, "/notes/5")
        assert names(cache) == {"/notes/{note_id}": 1}

    def test_cancelled_requests(self, cache: Cache) -> None:
        app = make_app(cache)

        @app.get("/slow/{note_id}")
        async def slow(note_id: int) -> None:
            await read_note(cache, note_id)
            waiting.set()
            await asyncio.Event().wait()

        async def cancel() -> None:
            async with client_of(app) as client:
                request = asyncio.ensure_future(client.get("/slow/5"))
                await asyncio.wait_for(waiting.wait(), 30)
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request

        waiting = asyncio.Event()
        asyncio.run(cancel())
        assert names(cache) == {}

    @pytest.mark.parametrize("spec", ["2.3", "2.4"])
    def test_streams_cut_short(self, cache: Cache, spec: str) -> None:
        app = make_app(cache)

        @app.get("/stream/{note_id}")
        async def stream(note_id: int) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for key in KEYS:
                    yield str(await cache._apiece_get(key.format(note_id)))

            return StreamingResponse(parts())

        async def read(*, leaves: bool) -> bytes:
            """Read a stream; a client that leaves does so after its first part."""
            left = asyncio.Event()
            body = []

            async def receive() -> Any:
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                body.append(message.get("body", b""))
                if leaves and body[-1]:
                    left.set()
                    if spec == "2.4":
                        raise OSError("the client left")
                    await asyncio.Event().wait()

            scope = {
                "type": "http",
                "asgi": {"spec_version": spec},
                "method": "GET",
                "path": "/stream/5",
                "headers": [],
                "query_string": b"",
            }
            # Starlette tells by an exception that the client left.
            with suppress(ClientDisconnect) if leaves else nullcontext():
                await app(scope, receive, send)
            return b"".join(body)

        assert asyncio.run(read(leaves=True)) == b"5"
        assert names(cache) == {}
        assert asyncio.run(read(leaves=False)) == b"55menu"
        assert names(cache) == {"/stream/{note_id}": 1}

    @pytest.mark.parametrize(
        "bots", ["BOT|spider", lambda scope: (b"user-agent", b"Spider/1") in scope["headers"]]
    )
    def test_bots_are_served_fast_but_not_learned(self, cache: Cache, bots: Any) -> None:
        app, bot = make_app(cache, bots=bots), {"User-Agent": "Spider/1"}
        visit(app, "/notes/4", "/notes/4", headers=bot)
        assert names(cache) == {}
        visit(app, "/notes/5", "/notes/6")
        with cache.watch() as seen:
            visit(app, "/notes/7", headers=bot)
        assert seen.trips == 1
        assert names(cache) == {"/notes/{note_id}": 2}

    @pytest.mark.parametrize("streams", [False, True])
    def test_background_tasks(self, cache: Cache, streams: bool) -> None:
        app = Starlette(middleware=[Middleware(PageMiddleware, cache=cache)])

        async def later() -> None:
            await cache._apiece_get("later")

        async def page(_request: Request) -> Response:
            await cache._apiece_get("menu")
            background = BackgroundTask(later)
            if streams:
                # Sent by a task of its own where the server cannot tell that the client left.
                return StreamingResponse(parts(), background=background)
            return PlainTextResponse("page", background=background)

        async def parts() -> AsyncIterator[str]:
            yield str(await cache._apiece_get("part"))

        app.add_route("/", page)
        visit(app, "/", "/")
        assert names(cache) == {"/": 2}
        assert templates(cache) == ({"menu", "part"} if streams else {"menu"})

    def test_arguments_that_are_not_plain_values(self, cache: Cache) -> None:
        class Made:
            def __str__(self) -> str:
                msg = "lazy load outside of a session"
                raise RuntimeError(msg)

        class MadeConvertor(StringConvertor):
            def convert(self, value: str) -> Any:
                del value
                return Made()

        async def page(request: Request) -> Response:
            assert isinstance(request.path_params["made"], Made)
            return PlainTextResponse(str(await cache._apiece_get("menu")))

        register_url_convertor("made", MadeConvertor())
        app = Starlette(routes=[Route("/made/{made:made}", page)])
        app.add_middleware(PageMiddleware, cache=cache)

        async def ask() -> int:
            async with client_of(app) as client:
                return (await client.get("/made/5")).status_code

        assert asyncio.run(ask()) == 200
        assert names(cache) == {"/made/{made}": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query": "page"}, "query='page' must list query parameters"),
        ({"facets": {"a": 1}}, "facets={'a': 1} is not a function"),
        ({"name": "home"}, "name='home' is not a function"),
        ({"bots": "("}, "bots='\\(' is not a regular expression"),
    ],
)
def test_wrong_options_raise(cache: Cache, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PageMiddleware(FastAPI(), cache, **options)


def test_it_needs_no_starlette() -> None:
    program = "import sys, onetrip.asgi; sys.exit('starlette' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

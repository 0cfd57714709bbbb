"""Pages that learn under Flask and other WSGI applications: their names, and what is learned."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask, Response, abort, g, request
from werkzeug.routing import BaseConverter
from werkzeug.test import EnvironBuilder, run_wsgi_app

from onetrip import Cache, ConfigurationError
from onetrip.flask import OneTrip
from onetrip.wsgi import PageMiddleware
from tests.notes_pages import KEYS, filled, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.servers import RedisServer


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    with filled(redis_url) as cache:
        yield cache


def read_note(cache: Cache, number: object) -> str:
    return " ".join(str(cache._piece_get(key.format(number))) for key in KEYS)


def make_app(cache: Cache, app: Flask | None = None, **config: Any) -> Flask:
    """An application with one view, which reads three keys for a note."""
    app = app or Flask("app", static_folder=Path(__file__).parent, static_url_path="/static")
    app.testing = True
    app.config.update(config)
    OneTrip(app, cache)

    @app.route("/notes/<int:note_id>", methods=["GET", "POST"])
    def note(note_id: int) -> str:
        return read_note(cache, note_id)

    return app


class Visits:
    """Visits an application; each tells how many trips reached the server."""

    def __init__(self, app: Flask, server: RedisServer) -> None:
        self.client = app.test_client()
        self._server = server

    def __call__(self, path: str, method: str = "GET", **options: Any) -> int:
        self._server.reset_stats()
        self.client.open(path, method=method, **options)
        return self._server.reads()


class Note:
    """What a converter makes of a URL; its text is a question to the database, which is gone."""

    def __init__(self, number: str) -> None:
        self.number = number

    def __str__(self) -> str:
        msg = "lazy load outside of a session"
        raise RuntimeError(msg)


class NoteConverter(BaseConverter):
    def to_python(self, value: str) -> Note:
        return Note(value)


class TestUnusableNames:
    """No page fails for its name."""

    def test_arguments_that_are_not_plain_values_are_left_out(self, cache: Cache) -> None:
        app = make_app(cache)
        app.url_map.converters["a_note"] = NoteConverter

        @app.get("/made/<a_note:note>/<int:part>")
        def made(note: Note, part: int) -> str:
            markup = cache._piece_get(f"note_markup:{note.number}")
            return f"{markup} {cache._piece_get(f'part:{part}')}"

        client = app.test_client()
        assert [client.get(f"/made/5/{part}").text for part in range(2)] == ["5 None"] * 2
        [route] = cache.pages()
        assert dict(route.templates).keys() == {"note_markup:5", "part:{part}"}

    def test_facets_whose_str_fails_are_left_out(self, cache: Cache) -> None:
        app = make_app(cache, ONETRIP_PAGE_FACETS=lambda: {"note": Note("5"), "bad": "\ud800"})
        assert app.test_client().get("/notes/5").status_code == 200
        assert names(cache) == {"note": 1}


class TestTrips:
    def test_second_visit_and_unseen_pages_are_one_trip(
        self, cache: Cache, redis_server: RedisServer
    ) -> None:
        visit = Visits(make_app(cache), redis_server)
        assert [visit("/notes/5"), visit("/notes/5")] == [3, 1]
        visit("/notes/6")
        assert [visit(f"/notes/{number}") for number in range(7, 20)] == [1] * 13
        assert visit("/notes/7", "HEAD") == 1
        assert visit.client.get("/notes/8").text == "8 8 menu"
        (route,) = cache.pages()
        assert (route.name, route.visits) == ("note", 18)
        assert dict(route.templates).keys() == {
            "note_markup:{note_id}",
            "note:{note_id}:tags",
            "menu",
        }

    def test_concurrent_requests_learn_separately(self, cache: Cache) -> None:
        app, together = make_app(cache), threading.Barrier(2)

        @app.get("/tags/<int:note_id>")
        def tags(note_id: int) -> str:
            together.wait(30)
            cache._piece_get(f"note:{note_id}:tags")
            together.wait(30)
            cache._piece_get("tags")
            return ""

        @app.get("/markup/<int:note_id>")
        def markup(note_id: int) -> str:
            together.wait(30)
            cache._piece_get(f"note_markup:{note_id}")
            together.wait(30)
            cache._piece_get("styles")
            return ""

        with ThreadPoolExecutor(2) as readers:
            for number in range(5):
                paths = (f"/{page}/{number}" for page in ("tags", "markup"))
                list(readers.map(lambda path: app.test_client().get(path), paths))
        learned = {route.name: dict(route.templates).keys() for route in cache.pages()}
        assert learned == {
            "tags": {"note:{note_id}:tags", "tags"},
            "markup": {"note_markup:{note_id}", "styles"},
        }


class TestNames:
    def test_blueprints_and_arguments_removed_by_preprocessors(self, cache: Cache) -> None:
        shop = Blueprint("shop", __name__, url_prefix="/<tenant>/<lang>")

        @shop.url_value_preprocessor
        def take(_endpoint: str | None, values: dict[str, Any] | None) -> None:
            g.lang = (values or {}).pop("lang")

        @shop.get("/<int:item>")
        def item(item: int) -> str:
            return str(cache._piece_get(f"item:{item}:{g.lang}:{g.tenant}"))

        app = Flask("app")

        @app.url_value_preprocessor
        def take_early(_endpoint: str | None, values: dict[str, Any] | None) -> None:
            g.tenant = (values or {}).pop("tenant")

        make_app(cache, app).register_blueprint(shop)
        for path in ("/a/de/5", "/b/en/6", "/c/fr/7"):
            app.test_client().get(path)
        (route,) = cache.pages()
        assert route.name == "shop.item"
        assert "item:{item}:{lang}:{tenant}" in dict(route.templates)

    def test_declared_query_parameters(self, cache: Cache, redis_server: RedisServer) -> None:
        app = make_app(cache, ONETRIP_PAGE_QUERY=["page"])

        @app.get("/list")
        def listing() -> str:
            page = request.args.get("page", "1")
            return f"{cache._piece_get('menu')} {cache._piece_get(f'list:{page}')}"

        visit = Visits(app, redis_server)
        visit("/list?page=3&session=300")
        visit("/list?page=4&session=301")
        assert visit("/list?page=7&session=302") == 1
        (route,) = cache.pages()
        assert "list:{page}" in dict(route.templates)
        assert not any("session" in template for template, _ in route.templates)

    def test_facets(self, cache: Cache, redis_server: RedisServer) -> None:
        app = make_app(cache, ONETRIP_PAGE_FACETS=lambda: {"user": request.headers["X-User"]})

        @app.get("/home")
        def home() -> str:
            user = request.headers["X-User"]
            return f"{cache._piece_get('menu')} {cache._piece_get(f'basket:{user}')}"

        visit = Visits(app, redis_server)
        for user in ("ada", "grace"):
            visit("/home", headers={"X-User": user})
        assert visit("/home", headers={"X-User": "mary"}) == 1
        assert "basket:{user}" in dict(cache.pages()[0].templates)

    def test_custom_names(self, cache: Cache, redis_server: RedisServer) -> None:
        def name() -> tuple[str, dict[str, str]] | None:
            kind, _, rest = request.path[1:].partition("/")
            return (kind, {"id": rest}) if rest else None

        app = make_app(cache, ONETRIP_PAGE_NAME=name)

        @app.get("/<path:path>")
        def everything(path: str) -> str:
            return read_note(cache, path.rpartition("/")[2])

        visit = Visits(app, redis_server)
        for path in ("/note/5", "/note/6", "/note"):
            visit(path)
        assert visit("/note/7") == 1
        assert names(cache) == {"note": 3}

    def test_name_reaches_all_caches_of_a_request(self, cache: Cache, redis_url: str) -> None:
        sessions = Cache(redis_url, prefix="sessions")
        app = make_app(cache)
        inner = app.wsgi_app

        def between(environ: Any, start_response: Any) -> Any:
            body = inner(environ, start_response)
            cache._piece_get("late")
            return body

        # Of two with one cache the outer one is open longer.
        app.wsgi_app = PageMiddleware(between, [sessions, cache])  # type: ignore[method-assign]

        @app.get("/session/<name>")
        def session(name: str) -> str:
            return f"{sessions.get('a')} {cache._piece_get(name)}"

        for name in ("a", "b"):
            app.test_client().get(f"/session/{name}")
        assert names(sessions) == names(cache) == {"session": 2}
        assert "late" in dict(cache.pages()[0].templates)
        sessions.close()

    def test_unnamed_application_beside_a_named_one(self, cache: Cache, redis_url: str) -> None:
        sessions = Cache(redis_url, prefix="sessions")
        first, second = Flask("first"), make_app(cache)
        OneTrip(first, cache)

        @first.get("/<path:_path>")
        def missing(_path: str) -> str:
            abort(404)

        def cascade(environ: Any, start_response: Any) -> Any:
            list(first.wsgi_app(environ, lambda *_: lambda _: None))
            sessions.get("a")
            return second.wsgi_app(environ, start_response)

        app = PageMiddleware(cascade, sessions)
        for number in (5, 6):
            run_wsgi_app(app, EnvironBuilder(f"/notes/{number}").get_environ())
        assert names(sessions) == names(cache) == {"note": 2}
        sessions.close()


class TestNotLearned:
    def test_unsafe_methods_and_unknown_paths_and_files(self, cache: Cache) -> None:
        client = make_app(cache).test_client()
        client.post("/notes/5")
        client.options("/notes/5")
        client.get("/nowhere")
        with client.get(f"/static/{Path(__file__).name}") as file:
            assert "learned" in file.get_data(as_text=True)
        assert names(cache) == {}

    @pytest.mark.parametrize("testing", [True, False])
    def test_errors(self, cache: Cache, redis_server: RedisServer, testing: bool) -> None:
        app = make_app(cache)
        app.testing = testing
        app.logger.disabled = True

        @app.get("/denied/<int:note_id>")
        def denied(note_id: int) -> str:
            read_note(cache, note_id)
            abort(403)

        @app.get("/broken/<int:note_id>")
        def broken(note_id: int) -> str:
            read_note(cache, note_id)
            raise LookupError("no page")

        @app.get("/gone/<int:note_id>")
        def gone(note_id: int) -> Response:
            return Response(read_note(cache, note_id), 410)

        visit = Visits(app, redis_server)
        for _ in range(2):
            assert [visit("/denied/5"), visit("/gone/5")] == [3, 3]
            if testing:
                with pytest.raises(LookupError):
                    visit("/broken/5")
            else:
                assert visit("/broken/5") == 3
        assert names(cache) == {}

    def test_streams_cut_short(self, cache: Cache) -> None:
        app = make_app(cache)

        @app.get("/stream/<int:note_id>")
        def stream(note_id: int) -> Response:
            def parts() -> Iterator[str]:
                for key in KEYS:
                    yield str(cache._piece_get(key.format(note_id)))

            return Response(parts())

        client = app.test_client()
        response = client.get("/stream/5", buffered=False)
        assert next(response.iter_encoded()) == b"5"
        response.close()
        assert names(cache) == {}
        assert client.get("/stream/5").text == "55menu"
        assert names(cache) == {"stream": 1}

    @pytest.mark.parametrize(
        "bots", ["bot|spider", lambda: request.headers["User-Agent"] == "Spider/1"]
    )
    def test_bots_are_served_fast_but_not_learned(
        self, cache: Cache, redis_server: RedisServer, bots: Any
    ) -> None:
        visit = Visits(make_app(cache, ONETRIP_PAGE_BOTS=bots), redis_server)
        for _ in range(2):
            assert visit("/notes/4", headers={"User-Agent": "Spider/1"}) == 3
        assert names(cache) == {}
        visit("/notes/5")
        visit("/notes/6")
        assert visit("/notes/7", headers={"User-Agent": "Spider/1"}) == 1
        assert names(cache) == {"note": 2}

    def test_bots_are_learned_by_default(self, cache: Cache) -> None:
        client = make_app(cache).test_client()
        client.get("/notes/5", headers={"User-Agent": "Spider/1"})
        assert names(cache) == {"note": 1}

    def test_pages_off(self, redis_url: str) -> None:
        cache = Cache(redis_url, pages="off")
        make_app(cache).test_client().get("/notes/5")
        assert names(cache) == {}
        cache.close()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"ONETRIP_PAGE_QUERY": "page"}, "ONETRIP_PAGE_QUERY='page' must list query parameters"),
        ({"ONETRIP_PAGE_QUERY": 5}, "ONETRIP_PAGE_QUERY=5 must list"),
        ({"ONETRIP_PAGE_FACETS": {"a": 1}}, "ONETRIP_PAGE_FACETS={'a': 1} is not a function"),
        ({"ONETRIP_PAGE_NAME": "home"}, "ONETRIP_PAGE_NAME='home' is not a function"),
        ({"ONETRIP_PAGE_BOTS": "("}, "ONETRIP_PAGE_BOTS='\\(' is not a regular expression"),
        ({"ONETRIP_PAGE_BOTS": True}, "ONETRIP_PAGE_BOTS=True is neither a pattern"),
    ],
)
def test_wrong_options_raise(cache: Cache, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_app(cache, **config)


class TestAnyWsgiApplication:
    def visit(
        self,
        app: Callable[..., Iterable[bytes]],
        path: str,
        environ: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        environ = {} if environ is None else environ
        environ.update({"REQUEST_METHOD": "GET", "PATH_INFO": path, **more})
        body = app(environ, lambda *_: None)
        list(body)
        if hasattr(body, "close"):
            body.close()

    def test_name_option_names_pages(self, cache: Cache) -> None:
        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            path = environ["PATH_INFO"]
            start_response("500 Broken" if path == "/0" else "200 OK", [])
            read_note(cache, path[1:])
            return [b"page"]

        def name(environ: dict[str, Any]) -> Any:
            return (
                None if environ["PATH_INFO"] == "/" else ("note", {"n": environ["PATH_INFO"][1:]})
            )

        environ: dict[str, Any] = {}
        named = PageMiddleware(app, cache, name=name)
        for path in ("/5", "/6", "/0", "/"):
            # The same environment again is another request.
            self.visit(named, path, environ)
        self.visit(named, "/5", REQUEST_METHOD="POST")
        with cache.watch() as seen:
            self.visit(named, "/7")
        assert seen.trips == 1
        assert names(cache) == {"note": 3}

    @pytest.mark.parametrize("given", ["note", ("note",), ("note", [5]), (5, {})])
    def test_wrong_name_raises(self, cache: Cache, given: Any) -> None:
        named = PageMiddleware(lambda *_: [], cache, name=lambda _environ: given)
        with pytest.raises(ConfigurationError, match="a route and its arguments, not"):
            self.visit(named, "/")
        with pytest.raises(ConfigurationError, match="name='home' is not a function"):
            PageMiddleware(lambda *_: [], cache, name="home")  # type: ignore[arg-type]

"""The Flask extension: its configuration, decorators that come early, a scope for each request."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
import pytest
from flask import Flask, g, render_template_string, request, stream_with_context

from onetrip import Cache, Cached, ConfigurationError
from onetrip.flask import OneTrip
from onetrip.wsgi import PageMiddleware
from tests.pieces import afetch, ais_in_a_scope, fetch, is_in_a_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onetrip.pytest_plugin import AssertTrips
    from tests.conftest import OpenCache


def make_app(name: str = "app", **config: Any) -> Flask:
    app = Flask(name)
    app.testing = True
    app.config.update(config)
    return app


@pytest.fixture
def app(cache: Cache) -> Flask:
    """An application whose cache was ready before it."""
    app = make_app()
    OneTrip(app, cache)
    return app


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


class TestRequests:
    def test_computed_values_are_stored_and_the_scope_closes(
        self, app: Flask, cache: Cache, other: Cache
    ) -> None:
        @app.get("/")
        def view() -> str:
            cache.set("a", 1)
            assert other["a"] == 1
            assert is_in_a_scope(cache)
            return str(fetch(cache, "b"))

        response = app.test_client().get("/")
        # Before anybody reads the response, as it is with a browser's next request.
        assert response.status_code == 200
        assert other["piece:b"] == "b"
        assert response.text == "b"
        assert not is_in_a_scope(cache)

    def test_hooks_run_in_the_scope(self, app: Flask, cache: Cache, other: Cache) -> None:
        told: dict[str, bool] = {}

        @app.before_request
        def before() -> None:
            told["before"] = is_in_a_scope(cache)

        @app.after_request
        def after(response: flask.Response) -> flask.Response:
            told["after"] = is_in_a_scope(cache)
            return response

        @app.teardown_request
        def teardown(_error: BaseException | None) -> None:
            told["teardown"] = is_in_a_scope(cache)
            cache.set("torn down", 1)

        @app.get("/")
        def view() -> str:
            told["view"] = is_in_a_scope(cache)
            return "page"

        app.test_client().get("/")
        assert told == dict.fromkeys(["before", "view", "after", "teardown"], True)
        assert other["torn down"] == 1

    def test_raising_view_closes_the_scope(self, app: Flask, cache: Cache, other: Cache) -> None:
        @app.get("/")
        def view() -> str:
            cache.set("a", 1)
            raise LookupError("no page")

        with pytest.raises(LookupError):
            app.test_client().get("/")
        assert other["a"] == 1
        app.testing = False
        cache.delete("a")
        assert app.test_client().get("/").status_code == 500
        assert other["a"] == 1
        assert not is_in_a_scope(cache)

    @pytest.mark.parametrize("wrap", [stream_with_context, iter])
    def test_stream_runs_in_the_scope(
        self,
        app: Flask,
        cache: Cache,
        other: Cache,
        wrap: Callable[[Iterator[str]], Iterator[str]],
    ) -> None:
        @app.get("/")
        def view() -> flask.Response:
            def stream() -> Iterator[str]:
                for part in "abc":
                    assert is_in_a_scope(cache)
                    fetch(cache, part)
                    yield part

            return flask.Response(wrap(stream()))

        assert app.test_client().get("/").text == "abc"
        assert len(other.get_many(["piece:a", "piece:b", "piece:c"])) == 3
        assert not is_in_a_scope(cache)

    def test_stream_with_preserved_context(self, app: Flask, cache: Cache) -> None:
        @app.get("/<name>")
        def view(name: str) -> flask.Response:
            def stream() -> Iterator[str]:
                cache.set("a", 1)
                yield "Hello "
                yield request.path

            g.name = name
            return flask.Response(stream_with_context(stream()))

        with app.test_client() as client:
            response = client.get("/you")
            assert g.name == "you"
            assert response.text == "Hello /you"
            assert client.get("/me").text == "Hello /me"
            assert g.name == "me"
        assert not is_in_a_scope(cache)

    def test_responses_read_out_of_order(self, app: Flask, cache: Cache, other: Cache) -> None:
        @app.get("/<name>")
        def view(name: str) -> flask.Response:
            def stream() -> Iterator[str]:
                cache.set(name, 1)
                yield name
                yield str(cache.get(name))

            return flask.Response(stream())

        client = app.test_client()
        first, second = client.get("/first"), client.get("/second")
        assert (first.text, second.text) == ("first1", "second1")
        assert other.get_many(["first", "second"]) == {"first": 1, "second": 1}
        assert not is_in_a_scope(cache)

    def test_async_view_runs_in_the_scope(self, app: Flask, cache: Cache, other: Cache) -> None:
        @app.get("/")
        async def view() -> str:
            assert is_in_a_scope(cache)
            assert await ais_in_a_scope(cache)
            await afetch(cache, "a")
            return str(fetch(cache, "b"))

        assert app.test_client().get("/").text == "b"
        # What its tasks posted has arrived as well.
        assert len(other.get_many(["piece:a", "piece:b"])) == 2

    def test_test_request_context_has_no_scope(self, app: Flask, cache: Cache) -> None:
        with app.test_request_context(), app.app_context(), app.test_request_context("/else"):
            assert not is_in_a_scope(cache)

    def test_nested_request_has_its_own_scope(self, app: Flask, cache: Cache, other: Cache) -> None:
        @app.get("/outer")
        def outer() -> str:
            cache.set("a", 1)
            return app.test_client().get("/inner").text

        @app.get("/inner")
        def inner() -> str:
            return str(cache.get("a"))

        with app.test_request_context():
            assert app.test_client().get("/outer").text == "1"
        assert other["a"] == 1

    def test_second_middleware_does_no_harm(self, app: Flask, cache: Cache) -> None:
        app.wsgi_app = PageMiddleware(app.wsgi_app, cache)  # type: ignore[method-assign]

        @app.get("/")
        def view() -> str:
            assert is_in_a_scope(cache)
            return ""

        assert app.test_client().get("/").status_code == 200
        assert not is_in_a_scope(cache)

    def test_static_files(self, cache: Cache) -> None:
        app = Flask("app", static_folder=Path(__file__).parent)
        OneTrip(app, cache)
        with app.test_client().get("/tests/test_flask.py") as response:
            assert "def test_static_files" in response.get_data(as_text=True)

    def test_fragments(self, app: Flask, cache: Cache, assert_trips: AssertTrips) -> None:
        @app.get("/")
        def view() -> str:
            fragments = '{% cache 60, "a" %}<a>{% endcache %}{% cache 60, "b" %}<b>{% endcache %}'
            return render_template_string(fragments)

        with assert_trips(at_most=4):  # of a server, two of them are posts
            assert app.test_client().get("/").text == "<a><b>"
        with assert_trips(1):  # both are known to be read
            assert app.test_client().get("/").text == "<a><b>"
        assert cache["a"] == "<a>"

    def test_server_timing(self, cache: Cache) -> None:
        def asked(environ: dict[str, Any]) -> bool:
            return bool(environ["QUERY_STRING"])

        app = make_app(ONETRIP_SERVER_TIMING=asked)
        OneTrip(app, cache)

        @app.get("/")
        def view() -> str:
            cache.set("a", 1)
            return ""

        client = app.test_client()
        assert "Server-Timing" not in client.get("/").headers
        assert client.get("/?timing").headers["Server-Timing"].endswith('desc="1 trip, 0 hits"')


class TestConfiguration:
    def test_every_option_has_a_setting(self, store_url: str) -> None:
        given: dict[str, Any] = {
            "URL": store_url,
            "PREFIX": "blog",
            "TIMEOUT": 60,
            "SERIALIZER": "pickle",
            "SECRET": ["new", "old"],
            "COMPRESSION": "zstd",
            "COMPRESSION_MIN": 10,
            "ON_ERROR": "raise",
            "CONNECT_TIMEOUT": 2.5,
            "TRIP_TIMEOUT": 2.5,
            "SCOPE_MAX_AGE": 5,
            "READ_MAX_AGE": 0.5,
            "DEBUG": False,
            "PAGES": "shadow",
            "PAGE_KEYS": 100,
            "PAGE_BYTES": 100_000,
        }
        assert [name.lower() for name in given] == list(inspect.signature(Cache).parameters)
        app = make_app(**{f"ONETRIP_{name}": value for name, value in given.items()})
        onetrip = OneTrip(app)
        assert app.extensions["onetrip"] is onetrip.cache
        assert 'prefix="blog"' in repr(onetrip.cache)
        onetrip.cache.set("a", object)
        reader = Cache(store_url, prefix="blog", serializer="pickle", secret="new")
        assert reader["a"] is object

    def test_no_setting_is_required(self) -> None:
        onetrip = OneTrip(make_app())
        assert repr(onetrip.cache).startswith("<onetrip.Cache memory://")

    def test_settings_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLASK_ONETRIP_URL", "memory://")
        monkeypatch.setenv("FLASK_ONETRIP_TIMEOUT", "60.5")
        monkeypatch.setenv("FLASK_ONETRIP_DEBUG", "true")
        app = make_app()
        app.config.from_prefixed_env()
        cache = OneTrip(app).cache
        cache.set("a", 1)
        assert "a" not in cache

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"ONETRIP_TIMEOUTS": 60}, "no ONETRIP_TIMEOUTS; it has ONETRIP_URL, ONETRIP_PREFIX"),
            ({"ONETRIP_TIMEOUTS": 60}, "ONETRIP_PAGE_FACETS and ONETRIP_PAGE_BOTS"),
            ({"ONETRIP_URL": "nosuch://"}, "'shop': no store is named nosuch://"),
            ({"ONETRIP_TIMEOUT": "60"}, "'60' is not a timeout"),
        ],
    )
    def test_wrong_setting_raises(self, config: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigurationError) as failure:
            OneTrip(make_app("shop", **config))
        assert said in str(failure.value)

    def test_setting_without_effect_raises(self) -> None:
        app = make_app(ONETRIP_URL="memory://", ONETRIP_PREFIX="blog")
        with pytest.raises(ConfigurationError, match=r"ONETRIP_PREFIX in .* has no effect"):
            OneTrip(app, Cache())

    def test_second_init_app_raises(self) -> None:
        app = make_app("shop")
        onetrip = OneTrip(app)
        for extension in (onetrip, OneTrip()):
            with pytest.raises(ConfigurationError, match="'shop' has a OneTrip already"):
                extension.init_app(app)

    @pytest.mark.parametrize("what", [Cache(), "shop", flask.Blueprint("shop", __name__)])
    def test_non_application_raises(self, what: Any) -> None:
        with pytest.raises(ConfigurationError, match="takes a Flask application"):
            OneTrip(what)


class Catalogue:
    """Functions decorated as modules do it: before any application is there."""

    def __init__(self, onetrip: OneTrip) -> None:
        self.calls: list[Any] = []
        calls = self.calls

        @onetrip.cached(timeout=60, key="square:{number}")
        def square(number: int) -> int:
            """The square of a number."""
            calls.append(number)
            return number * number

        @onetrip.cached
        def bare(word: str) -> str:
            return word.upper()

        class Note:
            def __init__(self, id: int) -> None:  # noqa: A002 - as the key says it
                self.id = id

            @onetrip.cached(key_fn=lambda args, _kwargs: args[0].id)
            def markup(self) -> str:
                calls.append(self.id)
                return f"<p>{self.id}</p>"

            @onetrip.cached_property(key="size:{self.id}")
            def size(self) -> int:
                calls.append("size")
                return self.id * 10

        self.square, self.bare, self.note = square, bare, Note


@pytest.fixture
def onetrip() -> OneTrip:
    return OneTrip()


@pytest.fixture
def early(onetrip: OneTrip) -> Catalogue:
    return Catalogue(onetrip)


class TestDecoratedBeforeInitApp:
    def test_functions(self, onetrip: OneTrip, early: Catalogue, store_url: str) -> None:
        onetrip.init_app(make_app(ONETRIP_URL=store_url))
        assert [early.square(4), early.square(number=4), early.square(5)] == [16, 16, 25]
        assert early.calls == [4, 5]
        assert early.square.key(4) == "square:4"
        assert onetrip.cache["square:4"] == 16
        assert early.square.bust(4) is True
        assert early.square.uncached(6) == 36
        assert early.square.refresh(4) == 16
        assert early.square.many([4, 5]) == [16, 25]
        assert early.calls == [4, 5, 6, 4]
        assert early.bare("a") == "A"
        assert early.bare.bust("a") is True

    def test_methods(self, onetrip: OneTrip, early: Catalogue, assert_trips: AssertTrips) -> None:
        onetrip.init_app(make_app())
        note = early.note(5)
        assert isinstance(note.markup, Cached)
        assert note.markup == note.markup
        assert note.markup() == "<p>5</p>"
        with assert_trips(1), onetrip.cache.preload(note.markup, early.square.key(4)):
            assert note.markup() == "<p>5</p>"
        assert note.markup.key() == "markup:5"
        assert early.note.markup.many([note, early.note(6)]) == ["<p>5</p>", "<p>6</p>"]
        assert early.calls == [5, 6]

    def test_properties(self, onetrip: OneTrip, early: Catalogue) -> None:
        onetrip.init_app(make_app())
        note = early.note(5)
        assert [note.size, note.size] == [50, 50]
        assert early.calls == ["size"]
        assert early.note.size.key(note) == "size:5"

    def test_attributes_are_those_of_the_function(self, early: Catalogue) -> None:
        assert early.square.__name__ == "square"
        assert early.note.markup.__name__ == "markup"
        assert early.square.__doc__ == "The square of a number."
        assert str(inspect.signature(early.square)) == "(number: 'int') -> 'int'"

    def test_cached_view(self, onetrip: OneTrip) -> None:
        app = make_app()
        calls: list[int] = []

        @app.get("/<int:number>")
        @onetrip.cached(timeout=60)
        def view(number: int) -> str:
            calls.append(number)
            return str(number)

        onetrip.init_app(app)
        client = app.test_client()
        assert [client.get("/5").text, client.get("/5").text] == ["5", "5"]
        assert calls == [5]

    def test_wrong_decoration_raises_at_once(self, onetrip: OneTrip) -> None:
        with pytest.raises(ConfigurationError, match="names 'nose'"):

            @onetrip.cached(key="{nose}")
            def function(note: int) -> int:
                return note

        with pytest.raises(ConfigurationError, match="static"):
            onetrip.cached(staticmethod(len))

    def test_use_without_application_raises(self, onetrip: OneTrip, early: Catalogue) -> None:
        for use in (lambda: onetrip.cache, lambda: early.square(4), lambda: early.note(5).size):
            with pytest.raises(ConfigurationError, match="no application has a cache yet"):
                use()

    def test_ready_cache_needs_no_application(self, cache: Cache) -> None:
        onetrip = OneTrip(cache=cache)
        assert onetrip.cache is cache
        early = Catalogue(onetrip)
        assert isinstance(early.square, Cached)
        assert early.square(4) == 16
        assert early.note(5).size == 50
        assert onetrip.cached(len)("four") == 4
        assert cache["square:4"] == 16


class TestSeveralApplications:
    def test_each_application_has_its_own_cache(self, onetrip: OneTrip, early: Catalogue) -> None:
        apps = [make_app(name, ONETRIP_PREFIX=name) for name in ("one", "two")]
        for app in apps:
            onetrip.init_app(app)

            @app.get("/")
            def view() -> str:
                return str(early.square(4))

        for app in (*apps, *apps):
            assert app.test_client().get("/").text == "16"
        assert early.calls == [4, 4]
        with apps[0].app_context():
            assert onetrip.cache is apps[0].extensions["onetrip"]
            assert early.square.bust(4) is True
        with apps[1].app_context():
            assert onetrip.cache is apps[1].extensions["onetrip"]
            assert "square:4" in onetrip.cache
            with apps[0].test_request_context():
                assert "square:4" not in onetrip.cache

    def test_use_outside_of_a_context_raises(self, onetrip: OneTrip) -> None:
        first, second = make_app("one"), make_app("two")
        onetrip.init_app(first)
        assert onetrip.cache is first.extensions["onetrip"]
        onetrip.init_app(second)
        with pytest.raises(ConfigurationError, match=r"within app.app_context\(\)"):
            _ = onetrip.cache

    def test_application_without_cache_raises(self, onetrip: OneTrip) -> None:
        onetrip.init_app(make_app("one"))
        with (
            make_app("two").app_context(),
            pytest.raises(ConfigurationError, match="'two' has no cache yet"),
        ):
            _ = onetrip.cache

    def test_applications_can_share_a_cache(self, cache: Cache) -> None:
        onetrip = OneTrip(cache=cache)
        apps = [make_app("one"), make_app("two")]
        for app in apps:
            onetrip.init_app(app)
            assert app.extensions["onetrip"] is cache

"""The backend of Flask-Caching: its own tests, run on ours, and how it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response
from flask_caching import Cache as FlaskCache

from onetrip import Cache, ConfigurationError, SerializationError
from onetrip.cachelib import OneTripCache
from onetrip.wsgi import PageMiddleware
from tests import peers

if TYPE_CHECKING:
    from onetrip.pytest_plugin import AssertTrips

PLUGIN = "tests.flask_caching_plugin"
MODULES = ["cache", "memoize", "view", "templates", "signals", "subclassing"]


# Each test of theirs begins with an empty store; cachelib's have run on the other stores.
@pytest.mark.parametrize("store_url", ["memory", "redis"], indirect=True)
def test_flask_caching_suite_passes(store_url: str, tmp_path: Path) -> None:
    tests = peers.sdist("flask-caching") / "tests"
    # Releases for older Pythons have fewer of them.
    modules = [path for name in MODULES if (path := tests / f"test_{name}.py").exists()]
    suite = Path(__file__).with_name("flask_caching_suite.py")
    assert peers.run(tests, tmp_path, [suite, *modules], plugin=PLUGIN, STORE=store_url) >= 90


def make_app(url: str, **config: Any) -> Flask:
    app = Flask("app")
    app.testing = True
    app.config.update(
        CACHE_TYPE="onetrip.flask.caching_backend", CACHE_OPTIONS={"url": url}, **config
    )
    return app


def backend(app: Flask) -> OneTripCache:
    backend = FlaskCache(app).cache
    assert isinstance(backend, OneTripCache)
    return backend


def test_configuration_is_passed_on(store_url: str) -> None:
    ours = backend(
        make_app(store_url, CACHE_DEFAULT_TIMEOUT=60, CACHE_KEY_PREFIX="blog", SECRET_KEY="secret")
    )
    assert ours.default_timeout == 60
    ours.set("a", Flask)
    assert Cache(store_url, prefix="blog", serializer="pickle", secret="secret")["a"] is Flask


def test_secret_key_rotation_keeps_entries_readable(store_url: str) -> None:
    # A memory lasts as long as somebody has it.
    old = backend(make_app(store_url, SECRET_KEY="old"))
    old.set("a", Flask)
    config = {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]}
    assert backend(make_app(store_url, **config)).get("a") is Flask
    assert backend(make_app(store_url, SECRET_KEY="new")).get("a") is None


def test_without_a_secret_key_nothing_is_pickled(store_url: str) -> None:
    ours = backend(make_app(store_url))
    ours.set("a", ["data"])
    assert ours.get("a") == ["data"]
    with pytest.raises(SerializationError):
        ours.set("a", Response("page"))
    app = make_app(store_url, SECRET_KEY="secret")
    app.config["CACHE_OPTIONS"]["serializer"] = "native"
    with pytest.raises(SerializationError):
        backend(app).set("a", Response("page"))


def test_unknown_option_raises() -> None:
    app = make_app("memory://")
    app.config["CACHE_OPTIONS"]["threshold"] = 500
    with pytest.raises(ConfigurationError, match='no option "threshold"; it has prefix'):
        FlaskCache(app)


def test_cached_views_are_exact_within_a_request(store_url: str, assert_trips: AssertTrips) -> None:
    app = make_app(store_url, SECRET_KEY="secret")
    cache = FlaskCache(app)
    ours = cache.cache
    assert isinstance(ours, OneTripCache)
    app.wsgi_app = PageMiddleware(app.wsgi_app, ours.cache)  # type: ignore[method-assign]

    @cache.memoize(60)
    def square(number: int) -> int:
        return number * number

    @app.get("/")
    def view() -> str:
        return str([square(2), square(2), square(2)])

    client = app.test_client()
    texts = [client.get("/").text]
    # Its own protocol is plain calls: two versions and a value, each time.
    with assert_trips(at_most=6):
        texts.append(client.get("/").text)
    assert texts == ["[4, 4, 4]"] * 2

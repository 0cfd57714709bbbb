"""A plugin for Flask-Caching's own tests: their fixtures, with onetrip in SimpleCache's place.

The store is the one that `STORE` names; see `peers`.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import flask
import flask_caching
import pytest

from onetrip.cachelib import OneTripCache
from onetrip.flask import caching_backend

sys.modules["xprocess"] = ModuleType("xprocess")
sys.modules["xprocess"].ProcessStarter = object  # type: ignore[attr-defined] # it has what we give


def backend(
    app: flask.Flask, config: dict[str, Any], args: list[Any], options: dict[str, Any]
) -> OneTripCache:
    cache = caching_backend(app, config, args, {"url": os.environ["STORE"], **options})
    cache.clear()
    return cache


# Wherever they ask for the one that they take everywhere, they get ours: as new, and empty.
flask_caching.backends.SimpleCache = backend


@pytest.fixture
def app(request: pytest.FixtureRequest) -> flask.Flask:
    folder = Path(request.path).parent
    app = flask.Flask("their_tests", template_folder=folder)
    app.testing = True
    # They store responses, which Flask-Caching pickles.
    app.secret_key = "a secret"
    app.config["CACHE_TYPE"] = "SimpleCache"
    return app


@pytest.fixture
def cache(app: flask.Flask) -> flask_caching.Cache:
    cache = flask_caching.Cache(app)
    assert isinstance(cache.cache, OneTripCache)
    return cache


@pytest.fixture(params=flask_caching.SUPPORTED_HASH_FUNCTIONS, ids=lambda param: param.__name__)
def hash_method(request: pytest.FixtureRequest) -> Any:
    return request.param


class Clock:
    """Their clock, which goes on at once: what it has passed is removed from our store."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ends: dict[tuple[OneTripCache, str], float] = {}

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for (cache, key), end in list(self.ends.items()):
            if end <= self.now:
                cache.delete(key)
                del self.ends[cache, key]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, write = Clock(), OneTripCache.set

    def set_until(self: OneTripCache, key: str, value: Any, timeout: Any = None) -> bool:
        end = clock.now + (self._normalize_timeout(timeout) or float("inf"))
        clock.ends[self, key] = end
        return write(self, key, value, timeout)

    def set_many_until(
        self: OneTripCache, mapping: dict[str, Any], timeout: Any = None
    ) -> list[str]:
        return [key for key, value in mapping.items() if set_until(self, key, value, timeout)]

    monkeypatch.setattr(OneTripCache, "set", set_until)
    monkeypatch.setattr(OneTripCache, "set_many", set_many_until)
    return clock


@pytest.fixture(autouse=True)
def _no_waiting(
    request: pytest.FixtureRequest, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases for older Pythons wait until a second has passed; one test really shall."""
    if "sleep" not in request.fixturenames:
        monkeypatch.setattr(time, "sleep", clock.advance)


# The release for Python 3.10 wants a key that is missing to end a deletion; later ones do not.
MENDED = {"test_cache_delete_many"} if version("flask-caching") < "2.5" else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is about their own backends: they need a server on a fixed port."""
    items[:] = [
        item
        for item in items
        if "redis_server" not in getattr(item, "fixturenames", ()) and item.name not in MENDED
    ]

"""Django set up for these tests alone, and its caches on each store in turn."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Protocol

import django
import pytest
from django.core.cache import caches
from django.test import override_settings

from onetrip.django import Cache
from tests.django.servers import memcached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import RedisServer

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django.settings"
django.setup()

STORES = ["memory", "disk", "redis", "memcached"]

_names = itertools.count()


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[str]:
    with memcached() as url:
        yield url


@pytest.fixture(params=STORES)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The LOCATION of each store in turn, empty."""
    if request.param == "memory":
        return f"memory://django-{next(_names)}"
    if request.param == "disk":
        return f"disk://{tmp_path}/store"
    if request.param == "memcached":
        url = request.getfixturevalue("memcached_server")
        assert isinstance(url, str)
        with configured(default=on(url)):
            caches["default"].clear()
        return url
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return server.url


def on(location: str | list[str], **params: Any) -> dict[str, Any]:
    """An alias in CACHES."""
    return {"BACKEND": "onetrip.django.Cache", "LOCATION": location, **params}


def configured(**aliases: dict[str, Any]) -> override_settings:
    """CACHES within a block."""
    return override_settings(CACHES=aliases)


class OpenBackend(Protocol):
    """The fixture `open_backend`."""

    def __call__(self, **params: Any) -> Cache:
        """Open one more backend on the store."""


@pytest.fixture
def open_backend(location: str) -> OpenBackend:
    return lambda **params: Cache(location, params)


@pytest.fixture
def cache(open_backend: OpenBackend) -> Cache:
    """A backend on each store in turn."""
    return open_backend()

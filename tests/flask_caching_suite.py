"""The generic tests of Flask-Caching's own suite, on the store that `STORE` names; see `peers`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import flask_caching
import pytest
from test_backend_cache import (  # type: ignore[import-not-found] # from their sdist
    GenericCacheTests,
)

from onetrip.cachelib import OneTripCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask


class TestOneTripCache(GenericCacheTests):  # type: ignore[misc] # it is of any type
    @pytest.fixture
    def make_cache(self, app: Flask) -> Callable[[], OneTripCache]:
        def make_cache() -> OneTripCache:
            cache = flask_caching.Cache(app).cache
            assert isinstance(cache, OneTripCache)
            return cache

        return make_cache

    @pytest.fixture
    def sleep(self) -> Callable[[float], None]:
        return time.sleep

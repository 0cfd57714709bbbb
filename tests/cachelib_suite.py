"""The generic tests of cachelib's own suite, on the store that `STORE` names; see `peers`."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

# Their conftest starts servers with it, which these tests do not need.
sys.modules["xprocess"] = ModuleType("xprocess")
sys.modules["xprocess"].ProcessStarter = object  # type: ignore[attr-defined] # it has what we give

from clear import ClearTests  # type: ignore[import-not-found] # noqa: E402 - from their sdist
from common import CommonTests  # type: ignore[import-not-found] # noqa: E402
from delete_many_with_prefix import (  # type: ignore[import-not-found] # noqa: E402
    DeleteManyWithPrefixTests,
)
from has import HasTests  # type: ignore[import-not-found] # noqa: E402

from onetrip.cachelib import OneTripCache  # noqa: E402


class Factory:
    def cache_factory(self, **options: Any) -> OneTripCache:
        cache = OneTripCache(os.environ["STORE"], **options)
        cache.clear()
        return cache


class TestOneTripCache(
    Factory,
    CommonTests,  # type: ignore[misc] # these are of any type
    ClearTests,  # type: ignore[misc]
    HasTests,  # type: ignore[misc]
    DeleteManyWithPrefixTests,  # type: ignore[misc]
):
    pass


class TestOneTripCacheWithPrefix(
    Factory,
    CommonTests,  # type: ignore[misc]
    ClearTests,  # type: ignore[misc]
    HasTests,  # type: ignore[misc]
):
    # That takes seconds, and has nothing to do with a prefix.
    test_expiration = None

    def cache_factory(self, **options: Any) -> OneTripCache:
        return super().cache_factory(key_prefix="test-key-prefix:", **options)

"""Django's suite for cache backends, over onetrip."""

from __future__ import annotations

from cache import tests as django_tests
from django.conf import settings
from django.core.cache import cache
from django.test import TestCase, override_settings

PARAMS = settings.CACHES["default"]
CULLS = {"cull", "zero_cull"}
IS_MEMCACHED = PARAMS["LOCATION"].startswith("memcached")

caches = override_settings(CACHES=django_tests.caches_setting_for_tests(base=PARAMS, exclude=CULLS))


@caches
class OneTripTests(
    django_tests.BaseMemcachedTests if IS_MEMCACHED else django_tests.BaseCacheTests, TestCase
):
    base_params = PARAMS

    def test_the_store_is_the_one_that_was_named(self) -> None:
        assert PARAMS["LOCATION"] in repr(cache.onetrip)

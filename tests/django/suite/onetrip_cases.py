"""Django's suite for cache backends, over onetrip."""

from __future__ import annotations

from typing import Any

from cache import tests as django_tests  # type: ignore[import-not-found] # of Django's own tests
from django.conf import settings
from django.test import TestCase, override_settings

from onetrip.django import cache_of

PARAMS = settings.CACHES["default"]
CULLS = {"cull", "zero_cull"}
IS_MEMCACHED = PARAMS["LOCATION"].startswith("memcached")

Suite: Any = django_tests.BaseMemcachedTests if IS_MEMCACHED else django_tests.BaseCacheTests


@override_settings(CACHES=django_tests.caches_setting_for_tests(base=PARAMS, exclude=CULLS))
class OneTripTests(Suite, TestCase):  # type: ignore[misc] # chosen when it runs
    base_params = PARAMS

    def test_the_store_is_the_one_that_was_named(self) -> None:
        assert f" {PARAMS['LOCATION']}" in repr(cache_of())

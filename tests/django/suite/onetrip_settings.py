"""Settings for Django's own tests: every cache that they ask for is one of onetrip.

`STORE_URL` in the environment names the store. Where a test asks for Django's memory backend, to
test what stands upon a cache, it gets onetrip's instead.
"""

from __future__ import annotations

import os
from typing import Any

from django.core.cache.backends import locmem
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from onetrip.django import Cache

STORE_URL = os.environ["STORE_URL"]

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "the secret of tests, which is none"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "onetrip_runner.Runner"
# The machine may be busy: a trip that takes long is no miss, and one that fails is told of.
OPTIONS = {"connect_timeout": 60, "trip_timeout": 60, "on_error": "raise"}
CACHES = {
    "default": {"BACKEND": "onetrip.django.Cache", "LOCATION": STORE_URL, "OPTIONS": OPTIONS},
}


class Named(Cache):
    """The store, where LOCATION is the name of a memory: of its own by a prefix."""

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        prefix = f"{name}{params.get('KEY_PREFIX', '')}"
        super().__init__(STORE_URL, {**params, "KEY_PREFIX": prefix, "OPTIONS": OPTIONS})

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> Any:
        seconds = super().get_backend_timeout(timeout)
        # Memcached counts the seconds of its own clock, the first of which may end at once. These
        # tests are of what stands upon a cache, and read at once what they keep for a second.
        if STORE_URL.startswith("memcached") and seconds in (1, 2):
            return seconds + 1
        return seconds


locmem.LocMemCache = Named  # type: ignore[misc, assignment] # in place of what settings name

"""Settings for Django's own tests: every cache that they ask for is one of onetrip.

`STORE_URL` in the environment names the store. Where a test asks for Django's memory backend, to
test what stands upon a cache, it gets onetrip's instead.
"""

from __future__ import annotations

import os
from typing import Any

from django.core.cache.backends import locmem

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
CACHES = {"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": STORE_URL}}


class Named(Cache):
    """The store, where LOCATION is the name of a memory: of its own by a prefix."""

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        prefix = f"{name}{params.get('KEY_PREFIX', '')}"
        super().__init__(STORE_URL, {**params, "KEY_PREFIX": prefix})


locmem.LocMemCache = Named  # type: ignore[misc, assignment] # in place of what settings name

"""A Django site on a Redis: on Django's own backend, or on onetrip's with its middleware."""

from __future__ import annotations

import os
from typing import Any

IS_ONETRIP = os.environ["ROWS_KIND"] == "onetrip"
SITE = os.environ["ROWS_SITE"]

SECRET_KEY = "the secret of the rows, which is none"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.rows.programs.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "rest_framework",
    "tests.rows.programs",
    *(["cachalot"] if SITE == "cachalot" else []),
]
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": (
            "onetrip.django.Cache" if IS_ONETRIP else "django.core.cache.backends.redis.RedisCache"
        ),
        "LOCATION": os.environ["ROWS_STORE"],
    }
}
MIDDLEWARE = [
    *(["onetrip.django.PageMiddleware"] if IS_ONETRIP else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
SESSION_ENGINE = f"django.contrib.sessions.backends.{os.environ['ROWS_SESSIONS']}"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["ROWS_DATABASE"],
        # A transaction locks the database, as one of a server does a row with `FOR UPDATE`.
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            # Nothing here needs to outlive a power cut.
            "init_command": "PRAGMA synchronous = OFF",
        },
    }
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.locmem.Loader",
                    {"part.html": "{% load cache %}{% cache 300 part %}{{ source }}{% endcache %}"},
                )
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
REST_FRAMEWORK = {
    "DEFAULT_THROTTLE_RATES": {"anon": "5/min"},
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

"""Settings of the tests; each test sets CACHES as it needs them."""

from __future__ import annotations

SECRET_KEY = "the secret of tests, which is none"
DEBUG = False
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.django.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.staticfiles", "debug_toolbar"]
INTERNAL_IPS = ["127.0.0.1"]
STATIC_URL = "static/"
MIDDLEWARE = ["onetrip.django.PageMiddleware"]
CACHES = {"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": "memory://settings"}}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                "django.template.loaders.app_directories.Loader",
                (
                    "django.template.loaders.locmem.Loader",
                    {
                        "page.html": (
                            "{% load cache %}\n"
                            "{% cache 60 note note.id %}<p>{{ note.text }}</p>{% endcache %}\n"
                            "{% cache 60 footer %}<hr>{% endcache %}\n"
                        ),
                        "notes.html": (
                            "{% load cache %}<html><body><h1>Notes</h1>\n"
                            "{% for note in notes %}\n"
                            "{% cache 60 note note %}<p>Note {{ note }}</p>{% endcache %}\n"
                            "{% endfor %}\n"
                            "{% cache 60 footer %}<hr>{% endcache %}</body></html>\n"
                        ),
                    },
                ),
            ],
        },
    },
]

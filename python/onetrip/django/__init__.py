"""Django: a cache backend, and a scope for each request.

MIDDLEWARE = ["onetrip.django.PageMiddleware", ...]
CACHES = {"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": "redis://127.0.0.1:6379/0"}}
"""

from onetrip.django.cache import Cache
from onetrip.django.middleware import PageMiddleware
from onetrip.django.page import cache_of, fragment_key, preload

__all__ = ["Cache", "PageMiddleware", "cache_of", "fragment_key", "preload"]

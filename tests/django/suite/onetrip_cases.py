"""Django's suite for cache backends, over onetrip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache import tests as django_tests  # type: ignore[import-not-found] # of Django's own tests
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse, StreamingHttpResponse
from django.template import engines
from django.test import RequestFactory, SimpleTestCase, TestCase, override_settings

from onetrip.django import PageMiddleware, cache_of, fragment_key, preload

if TYPE_CHECKING:
    from django.http import HttpRequest

    from onetrip import Watch

PARAMS = settings.CACHES["default"]
CULLS = {"cull", "zero_cull"}
IS_MEMCACHED = PARAMS["LOCATION"].startswith("memcached")

Suite: Any = django_tests.BaseMemcachedTests if IS_MEMCACHED else django_tests.BaseCacheTests


@override_settings(CACHES=django_tests.caches_setting_for_tests(base=PARAMS, exclude=CULLS))
class OneTripTests(Suite, TestCase):  # type: ignore[misc] # chosen when it runs
    base_params = PARAMS

    def test_store_is_the_configured_one(self) -> None:
        assert f" {PARAMS['LOCATION']}" in repr(cache_of())


@override_settings(CACHES={"default": PARAMS})
class PageTests(SimpleTestCase):
    """What is onetrip's own works in each Django."""

    def setUp(self) -> None:
        cache.clear()
        cache.set("there", "here")
        # Python 3.10 has no `enterContext`.
        watch = cache_of().watch()
        self.seen: Watch = watch.__enter__()
        self.addCleanup(watch.__exit__, None, None, None)
        self.request = RequestFactory().get("/")

    def trips(self) -> int:
        return self.seen.trips

    def test_a_page(self) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            cache.set_many({"a": 1, "b": 2})
            return HttpResponse(cache.get("there") + cache.get("there"))

        response: Any = PageMiddleware(view)(self.request)
        assert response.content == b"herehere"
        # Plain calls are exact: one write and two reads.
        assert self.trips() == 3

    def test_a_page_of_fragments(self) -> None:
        template = engines["django"].from_string(
            "{% load cache %}{% cache 60 name a %}{{ a }}{% endcache %}"
        )

        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(template.render({"a": 5}) + template.render({"a": 5}))

        cache.set(fragment_key("name", 5), "5")
        before = self.trips()
        response: Any = PageMiddleware(view)(self.request)
        assert response.content == b"55"
        assert self.trips() == before + 1

    def test_a_streamed_page(self) -> None:
        def view(request: HttpRequest) -> StreamingHttpResponse:
            return StreamingHttpResponse(str(cache.get("there")) for _ in range(3))

        response: Any = PageMiddleware(view)(self.request)
        assert self.trips() == 0
        assert b"".join(response.streaming_content) == b"hereherehere"
        assert self.trips() == 3

    async def test_an_asynchronous_page(self) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            await cache.aset_many({"a": 1, "b": 2})
            return HttpResponse(await cache.aget("there") + await cache.aget("there"))

        with cache_of().watch() as seen:
            middleware: Any = PageMiddleware(view)
            response = await middleware(self.request)
            assert response.content == b"herehere"
            assert seen.trips == 3

    def test_a_fragment_is_preloaded_by_its_key(self) -> None:
        template = engines["django"].from_string(
            "{% load cache %}{% cache 60 name a b %}{{ a }}{{ b }}{% endcache %}"
        )
        variables = {"a": 5, "b": "x&"}
        assert template.render(variables) == "5x&amp;"
        before = self.trips()
        with preload(fragment_key("name", 5, "x&")):
            assert template.render(variables) == "5x&amp;"
        assert self.trips() == before + 1

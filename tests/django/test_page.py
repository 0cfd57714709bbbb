"""What a page knows beforehand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.core.exceptions import ImproperlyConfigured
from django.template import engines
from django.test import Client

from onetrip.django import Cache, cache_of, fragment_key, preload
from tests.django.conftest import configured, on

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def test_a_page_of_fragments_is_one_trip(location: str, assert_trips: Any) -> None:
    with configured(default=on(location, OPTIONS={"pages": "off"})):
        with assert_trips(at_most=3):  # of a server, two of them are posts
            cold = Client().get("/page/").content
        with assert_trips(1) as seen:
            assert Client().get("/page/").content == cold
    assert b"<p>Hello</p>" in cold
    [trip] = seen.records
    assert [name for _, name in trip.ops] == [
        f":1:{make_template_fragment_key('note', [5])}",
        f":1:{make_template_fragment_key('footer')}",
        ":1:there",
    ]


def test_fragment_key_matches_djangos_key() -> None:
    with configured(default=on("memory://fragment"), other=LOCMEM):
        template = engines["django"].from_string(
            "{% load cache %}{% cache 60 name a b %}{{ a }}-{{ b }}{% endcache %}"
        )
        assert template.render({"a": 5, "b": "x&"}) == "5-x&amp;"
        assert caches["default"].get(fragment_key("name", 5, "x&")) == "5-x&amp;"
        assert caches["default"].get(fragment_key("name", 5)) is None


class TestPreload:
    def test_accepts_keys_of_get(self, location: str, assert_trips: Any) -> None:
        with configured(default=on(location, KEY_PREFIX="p", VERSION=3)):
            cache = caches["default"]
            cache.set_many({"a": 1, "b": 2, "c": 3})
            cache.set("v", 4, version=5)
            with assert_trips(1), preload("a", ["b"], (key for key in "cd")):
                assert [cache.get(key) for key in "abcd"] == [1, 2, 3, None]
            with assert_trips(1), preload("v", version=5):
                assert cache.get("v", version=5) == 4

    def test_accepts_cached_functions(self, location: str, assert_trips: Any) -> None:
        with configured(default=on(location)):
            cache = cache_of("default")

            class Note:
                id = 5

                @cache.cached(timeout=60, key_fn=lambda args, _: args[0].id)
                def markup(self) -> str:
                    return "<p>"

                @cache.cached_property(key="title:{self.id}")
                def title(self) -> str:
                    return "Title"

            note = Note()
            assert (note.markup(), note.title) == ("<p>", "Title")
            caches["default"].set("a", 1)
            with assert_trips(1), preload(note.markup, "a"):
                assert (note.markup(), caches["default"].get("a")) == ("<p>", 1)

    def test_works_with_async_with(self, location: str, assert_trips: Any) -> None:
        async def view() -> None:
            async with preload("a", "b"):
                assert await caches["default"].aget("a") == 1
                assert await caches["default"].aget("b") is None

        with configured(default=on(location)):
            caches["default"].set("a", 1)
            with assert_trips(1):
                asyncio.run(view())

    def test_using_another_alias(self, location: str, assert_trips: Any) -> None:
        with configured(default=on("memory://default"), other=on(location)):
            caches["other"].set("a", 1)
            with assert_trips(1), preload("a", using="other"):
                assert caches["other"].get("a") == 1

    def test_other_backend_raises(self) -> None:
        with (
            configured(default=LOCMEM),
            pytest.raises(ImproperlyConfigured, match=r'LocMemCache; give it "BACKEND": "onetrip'),
        ):
            preload("a")


class TestCacheOf:
    def test_returns_the_cache_behind_the_alias(self) -> None:
        with configured(default=on("memory://cache-of")):
            backend = caches["default"]
            assert isinstance(backend, Cache)
            assert cache_of() is cache_of("default") is backend.onetrip

    def test_alias_with_key_prefix_raises(self) -> None:
        with configured(default=on("memory://", KEY_PREFIX="site")):
            with pytest.raises(ImproperlyConfigured) as told:
                cache_of()
            assert '"OPTIONS": {"prefix": \'site\'} instead' in str(told.value)
        with configured(default=on("memory://", OPTIONS={"prefix": "site"})):
            cache_of()

    def test_other_backend_raises(self) -> None:
        with (
            configured(default=LOCMEM),
            pytest.raises(ImproperlyConfigured, match="or name another alias"),
        ):
            cache_of()

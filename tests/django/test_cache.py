"""What the backend does beyond the suites: settings, secrets, errors and trips."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.safestring import SafeString, mark_safe

import onetrip
from onetrip.django import Cache
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from tests.django.conftest import OpenBackend


class Unpicklable:
    def __getstate__(self) -> object:
        raise pickle.PickleError


class TestOptions:
    def test_onetrip_options_are_accepted(self) -> None:
        options = {"compression": "zstd", "on_error": "raise", "prefix": "p", "trip_timeout": 2}
        cache = Cache("memory://options", {"OPTIONS": options})
        cache.set("a", [1])
        assert cache.onetrip.get(":1:a") == [1]
        assert repr(cache.onetrip) == '<onetrip.Cache memory://options prefix="p">'

    @pytest.mark.parametrize("name", ["MAX_ENTRIES", "url", "timeout", "CLIENT_CLASS", "db"])
    def test_unknown_option_lists_the_known_ones(self, name: str) -> None:
        with pytest.raises(ImproperlyConfigured) as told:
            Cache("memory://options", {"OPTIONS": {name: 1}})
        text = str(told.value)
        assert f"OPTIONS of onetrip.django.Cache has no {name!r}" in text
        assert "it has prefix, serializer, secret, compression, " in text
        assert ", timeout" not in text

    def test_django_option_names_its_replacement(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="set TIMEOUT, beside OPTIONS"):
            Cache("", {"OPTIONS": {"timeout": 1}})
        with pytest.raises(ImproperlyConfigured, match=r"memory://\?size=64MiB"):
            Cache("", {"OPTIONS": {"MAX_ENTRIES": 1}})

    @pytest.mark.parametrize(
        "options",
        [
            {"compression": "zip"},
            {"trip_timeout": 0},
            {"serializer": "raw", "compression": "lz4"},
            {"secret": ""},
        ],
    )
    def test_wrong_value_raises(self, options: dict[str, Any]) -> None:
        with pytest.raises(ImproperlyConfigured, match="an alias in CACHES is wrong: ") as told:
            Cache("memory://options", {"OPTIONS": options})
        assert isinstance(told.value.__cause__, onetrip.ConfigurationError)

    def test_timeout_applies_to_cached_functions(self, open_backend: OpenBackend) -> None:
        cache = open_backend(TIMEOUT=0)

        @cache.onetrip.cached
        def function() -> list[int]:
            calls.append(1)
            return calls

        calls: list[int] = []
        function()
        function()
        assert calls == [1, 1]


class TestSecrets:
    def test_rotation_keeps_entries_readable(self, location: str) -> None:
        def backend(secret: str, *fallbacks: str) -> Cache:
            with override_settings(SECRET_KEY=secret, SECRET_KEY_FALLBACKS=fallbacks):
                return Cache(location, {})

        backend("old").set("a", [1])
        assert backend("new", "old").get("a") == [1]
        assert backend("new").get("a") is None
        backend("new", "old").set("a", [2])
        assert backend("new").get("a") == [2]
        assert backend("old").get("a") is None

    def test_signature_is_checked_before_unpickling(self, location: str) -> None:
        strange = Cache(location, {"OPTIONS": {"secret": "of somebody else"}})
        strange.set("a", SafeString("evil"))
        unsigned = Cache(location, {"OPTIONS": {"serializer": "native"}})
        unsigned.set("b", [1])
        cache = Cache(location, {})
        assert cache.get_many(["a", "b"]) == {}

    def test_native_serializer_needs_no_secret(self, location: str) -> None:
        with override_settings(SECRET_KEY=""):
            native = Cache(location, {"OPTIONS": {"serializer": "native"}})
            native.set("a", [1])
            assert native.get("a") == [1]
            with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
                Cache(location, {})

    def test_secret_may_be_bytes(self, location: str) -> None:
        with override_settings(SECRET_KEY=b"\xff\x00"):
            cache = Cache(location, {})
            cache.set("a", {1})
            assert cache.get("a") == {1}

    def test_secret_is_never_shown(self, cache: Cache) -> None:
        assert "the secret of tests" not in repr(cache.onetrip)


class TestValues:
    def test_unpicklable_value_raises_in_every_write(self, cache: Cache) -> None:
        for write in (
            lambda: cache.set("a", Unpicklable()),
            lambda: cache.add("a", Unpicklable()),
            lambda: cache.set_many({"a": Unpicklable()}),
            lambda: cache.get_or_set("a", Unpicklable),
        ):
            with pytest.raises(pickle.PickleError) as told:
                write()
            assert isinstance(told.value, onetrip.SerializationError)
        assert "a" not in cache

    def test_safe_string_stays_safe(self, cache: Cache) -> None:
        cache.set("a", mark_safe("<b>"))
        assert type(cache.get("a")) is SafeString

    def test_error_of_a_callable_default_reaches_the_caller(self, cache: Cache) -> None:
        def fails() -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            cache.get_or_set("a", fails)

    def test_an_awaited_default_is_awaited(self, cache: Cache) -> None:
        async def default() -> list[int]:
            return [1]

        async def page() -> None:
            assert await cache.aget_or_set("a", default) == [1]
            assert await cache.aget("a") == [1]

        asyncio.run(page())


class TestSetManyReturnsFailedKeys:
    def test_unreachable_server(self) -> None:
        cache = Cache("redis://127.0.0.1:1/0", {})
        assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
        # The breaker is open by now: no trip is even made.
        assert cache.set_many({"c": 1}, version=2) == ["c"]
        assert asyncio.run(cache.aset_many({"a": 1})) == ["a"]
        assert cache.set_many({"a": 1}, timeout=0) == []

    def test_too_large_entry(self, memcached_server: str) -> None:
        cache = Cache(memcached_server, {})
        cache.clear()
        data = {"small": 1, "large": b"x" * (2 << 20)}
        assert cache.set_many(data) == ["large"]
        assert asyncio.run(cache.aset_many(data)) == ["large"]
        assert cache.get_many(["small", "large"]) == {"small": 1}

    def test_within_a_scope(self) -> None:
        cache = Cache("redis://127.0.0.1:1/0", {})
        with cache.onetrip.scope():
            assert cache.set_many({"a": 1}) == ["a"]


class TestClear:
    def test_empties_the_store(self, open_backend: OpenBackend) -> None:
        cache, prefixed = open_backend(), open_backend(KEY_PREFIX="p")
        cache.set("a", 1)
        prefixed.set("a", 1)
        prefixed.clear()
        assert (cache.get("a"), prefixed.get("a")) == (None, None)

    def test_prefix_option_limits_it(self, open_backend: OpenBackend, location: str) -> None:
        cache, prefixed = open_backend(), open_backend(OPTIONS={"prefix": "p"})
        cache.set("a", 1)
        prefixed.set("a", 2)
        if location.startswith("memcached"):
            with pytest.raises(onetrip.UnsupportedError, match="change the cache's prefix"):
                prefixed.clear()
        else:
            prefixed.clear()
            assert prefixed.get("a") is None
        assert cache.get("a") == 1


class TestTrips:
    def test_many_keys_are_one_trip(self, cache: Cache, assert_trips: Any) -> None:
        keys = [f"key-{number}" for number in range(50)]
        for call in (
            lambda: cache.set_many(dict.fromkeys(keys, 1)),
            lambda: cache.get_many(keys),
            lambda: cache.delete_many(keys),
        ):
            with assert_trips(1):
                call()

    def test_get_or_set_is_two_trips_cold_and_one_warm(
        self, cache: Cache, assert_trips: Any
    ) -> None:
        with assert_trips(2):
            cache.get_or_set("a", 1)
        with assert_trips(1):
            cache.get_or_set("a", 1)

    def test_concurrent_tasks_share_one_trip(
        self, cache: Cache, assert_trips: Any, location: str
    ) -> None:
        async def page() -> None:
            await asyncio.gather(*(cache.aget(f"key-{number}") for number in range(50)))

        asyncio.run(page())
        # What is in this process is answered at once, each for itself.
        with assert_trips(50 if location.startswith(("memory", "disk")) else 1):
            asyncio.run(page())


def test_unreachable_store_is_a_miss_not_an_error() -> None:
    cache = Cache("redis://127.0.0.1:1/0", {})
    cache.set("a", 1)
    assert cache.get("a", 5) == 5
    assert cache.get_many(["a"]) == {}
    assert cache.add("a", 1) is False
    assert cache.delete("a") is False
    assert cache.touch("a") is False
    assert "a" not in cache
    assert cache.get_or_set("a", 7) == 7
    with pytest.raises(ValueError, match="not found"):
        cache.incr("a")
    cache.clear()


def test_backend_opens_the_configured_store() -> None:
    with configured(default=on("memory://settings"), other=on("memory://other", KEY_PREFIX="x")):
        assert isinstance(caches["default"], Cache)
        caches["other"].set("a", 1)
        assert caches["default"].get("a") is None
        assert (
            onetrip.Cache("memory://other", secret="the secret of tests, which is none").get(
                "x:1:a"
            )
            == 1
        )

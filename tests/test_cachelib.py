"""The cachelib face: cachelib's own generic tests, and what they leave open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cachelib import BaseCache

from onetrip import Cache, ConfigurationError, SerializationError, UnsupportedError
from onetrip.cachelib import OneTripCache
from tests import peers
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from onetrip.pytest_plugin import AssertTrips
    from tests.conftest import ExpectTrips


@stores_that_clear
def test_cachelib_suite_passes(store_url: str, tmp_path: Path) -> None:
    tests = peers.sdist("cachelib") / "tests"
    suite = Path(__file__).with_name("cachelib_suite.py")
    passed = peers.run(tests, tmp_path, [suite], STORE=store_url)
    assert passed >= 20


@pytest.fixture
def shared(cache: Cache) -> OneTripCache:
    return OneTripCache(cache, default_timeout=60)


def test_has_every_method_of_cachelib() -> None:
    for name, method in vars(BaseCache).items():
        if not name.startswith("_") and name != "get_dict":
            assert getattr(OneTripCache, name) is not method


def test_many_keys_are_one_trip(shared: OneTripCache, assert_trips: AssertTrips) -> None:
    with assert_trips(1):
        assert shared.set_many({"a": 1, "b": None}, timeout=60) == ["a", "b"]
    with assert_trips(1):
        assert shared.get_many("b", "c", "a", "a") == [None, None, 1, 1]
    with assert_trips(1):
        assert shared.get_dict("a", "c") == {"a": 1, "c": None}
    with assert_trips(1):
        assert shared.delete_many("a", "c") == ["a", "c"]
    assert shared.get("a") is None


def test_reads_use_the_scope(shared: OneTripCache, cache: Cache, expect_trips: ExpectTrips) -> None:
    with expect_trips(2), cache.preload("a", "b"):
        assert shared.get_many("a", "b") == [None, None]
        shared.set("c", 1)
        assert shared.get("a") is None


def test_timeouts(shared: OneTripCache, cache: Cache) -> None:
    with cache.watch():
        shared.set("for ever", 1, timeout=0)
        shared.set("over", 1, timeout=-1)
        shared.add("over too", 1, timeout=-1)
    assert cache.get_many(["for ever", "over", "over too"]) == {"for ever": 1}


def test_a_cached_none(shared: OneTripCache) -> None:
    assert shared.has("a") is False
    shared.set("a", None)
    assert shared.get("a") is None
    assert shared.has("a") is True


def test_numbers(shared: OneTripCache, cache: Cache) -> None:
    assert [shared.inc("n"), shared.inc("n", 5), shared.dec("n", 2)] == [1, 6, 4]
    assert shared.dec("m") == -1
    assert cache["n"] == 4
    cache.delete("n")
    with cache.scope():
        assert shared.inc("n") == 1
        shared.set("n", 10)
        assert shared.inc("n") == 11


def test_inc_on_a_failing_store_returns_none() -> None:
    assert OneTripCache("redis://127.0.0.1:1").inc("n") is None


def test_inc_adds_to_a_number_created_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = OneTripCache()

    def add(key: str, _value: int) -> bool:
        shared.set(key, 100)
        return False

    monkeypatch.setattr(shared, "add", add)
    assert shared.inc("n", 5) == 105


def test_clear_deletes_only_the_prefix() -> None:
    mine = OneTripCache("memory://test-cachelib", key_prefix="mine")
    yours = OneTripCache("memory://test-cachelib", key_prefix="yours")
    mine.set("a", 1)
    yours.set("a", 2)
    assert mine.clear() is True
    assert (mine.get("a"), yours.get("a")) == (None, 2)


def test_clear_of_a_memcached_prefix_raises() -> None:
    with pytest.raises(UnsupportedError):
        OneTripCache("memcached://127.0.0.1:1", key_prefix="mine").clear()


def test_unencodable_value_raises() -> None:
    with pytest.raises(SerializationError):
        OneTripCache().set("a", object())
    pickled = OneTripCache(serializer="pickle", secret="a secret")
    assert pickled.set("a", OneTripCache)
    assert pickled.get("a") is OneTripCache


def test_pickled_objects_are_stored() -> None:
    shared = OneTripCache(default_timeout=60, ignore_delete_many_errors=False)
    assert (shared.default_timeout, shared.ignore_delete_many_errors) == (60, False)


def test_options_with_a_ready_cache_raise() -> None:
    for options in ({"key_prefix": "blog"}, {"secret": "a secret"}):
        with pytest.raises(ConfigurationError, match="pass them where it is made"):
            OneTripCache(Cache(), **options)  # type: ignore[arg-type] # any options
    with pytest.raises(ConfigurationError, match='no option "tiemout"'):
        OneTripCache("memory://", tiemout=5)

"""The counters of a cache."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, NotANumberError, Stats

if TYPE_CHECKING:
    from tests.conftest import OpenCache, Raw

NAMES = [
    *["trips", "hits", "misses", "scope_hits", "writes", "posted", "deletes", "errors"],
    *["bad_entries", "bytes_in", "bytes_out"],
]


def counted(cache: Cache) -> dict[str, int]:
    """What is not zero; and everything is, afterwards."""
    stats = dict(cache.stats())
    cache.reset_stats()
    assert not any(dict(cache.stats()).values())
    return {name: count for name, count in stats.items() if count}


class TestCounters:
    def test_counters_start_at_zero(self, cache: Cache) -> None:
        assert counted(cache) == {}

    def test_reads(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="raw")
        cache.set("a", b"123")
        assert counted(cache) == {"trips": 1, "writes": 1, "bytes_out": 3}
        cache.get("a")
        assert counted(cache) == {"trips": 1, "hits": 1, "bytes_in": 3}
        cache.get("b")
        assert counted(cache) == {"trips": 1, "misses": 1}
        cache.get_many(["a", "b", "a", "c", "d"])
        assert counted(cache) == {"trips": 1, "hits": 2, "misses": 3, "bytes_in": 6}
        assert "a" in cache
        assert counted(cache) == {"trips": 1, "hits": 1, "bytes_in": 3}
        cache.get_or_set("e", b"1")
        found = counted(cache)
        # What the store holds by then comes back with it.
        assert found.pop("bytes_in", 0) <= 1
        assert found == {"trips": 2, "misses": 1, "writes": 1, "bytes_out": 1}

    def test_writes_and_deletes(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="raw")
        cache.set_many({"a": b"1", "b": b"22", "n": b"5"})
        assert counted(cache) == {"trips": 1, "writes": 3, "bytes_out": 4}
        cache.add("a", b"1")
        cache.incr("n")
        cache.touch("a", 60)
        found = counted(cache)
        assert (found["trips"], found["writes"]) == (3, 1)
        cache.delete_many(["a", "x"])
        cache.set("b", b"1", 0)
        assert counted(cache) == {"trips": 2, "deletes": 3}

    def test_scopes(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="raw")
        cache.set("a", b"1")
        cache.reset_stats()
        with cache.preload("a", "b"):
            # What a preload holds is counted when it is read.
            assert counted(cache) == {"trips": 1, "bytes_in": 1}
            cache.get("a")
            cache.get("a")
            assert counted(cache) == {"hits": 2, "scope_hits": 2}
            cache.get("b")
            assert counted(cache) == {"misses": 1}
            cache.set("b", b"22")
            assert counted(cache) == {"trips": 1, "writes": 1, "bytes_out": 2}
            cache.get("b")
            assert counted(cache) == {"trips": 1, "hits": 1, "bytes_in": 2}
            cache.get("b")
            assert counted(cache) == {"hits": 1, "scope_hits": 1}
        assert counted(cache) == {}

    def test_posts(self, redis_url: str) -> None:
        cache = Cache(redis_url, serializer="raw")
        with cache.scope():
            cache.cached(key="a")(lambda: b"1")()
        assert counted(cache) == {"trips": 1, "misses": 1, "posted": 1, "writes": 1, "bytes_out": 1}

    def test_bad_entries(self, cache: Cache, raw: Raw) -> None:
        raw["test:a"] = b"\xc1nonsense"
        cache.get_many(["a", "b"])
        found = counted(cache)
        assert (found["bad_entries"], found["misses"]) == (1, 2)
        assert "errors" not in found

    def test_incr_on_text_is_not_a_store_error(self, cache: Cache) -> None:
        cache.set("a", "text")
        with pytest.raises(NotANumberError):
            cache.incr("a")
        assert cache.stats().errors == 0

    def test_errors(self) -> None:
        cache = Cache("redis://127.0.0.1:1")
        cache.get_many(["a", "b"])
        assert counted(cache) == {"trips": 1, "misses": 2, "errors": 2}

    def test_all_threads(self, cache: Cache) -> None:
        cache.set("a", 1)
        cache.reset_stats()

        def work() -> None:
            for _ in range(200):
                cache.get("a")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = cache.stats()
        assert (stats.trips, stats.hits, stats.misses) == (1600, 1600, 0)


class TestStatsObject:
    def test_is_a_mapping(self, cache: Cache) -> None:
        cache.set("a", 1)
        stats = cache.stats()
        assert list(stats) == stats.keys() == NAMES
        assert len(stats) == len(NAMES)
        assert dict(stats) == {**dict.fromkeys(NAMES, 0), "trips": 1, "writes": 1, "bytes_out": 1}
        for name in NAMES:
            assert getattr(stats, name) == stats[name]
        assert repr(stats).startswith("Stats(trips=1, hits=0, ")

    def test_is_a_snapshot(self, cache: Cache) -> None:
        before = cache.stats()
        cache.get("a")
        assert before.trips == 0
        assert cache.stats().trips == 1
        cache.reset_stats()
        assert cache.stats().trips == 0

    @pytest.mark.parametrize("name", ["nothing", "", "\ud800", "trips\x00", "TRIPS", "é"])
    def test_unknown_counter_raises(self, cache: Cache, name: str) -> None:
        stats = cache.stats()
        with pytest.raises(AttributeError, match="there is no counter"):
            getattr(stats, name)
        with pytest.raises(KeyError) as caught:
            stats[name]
        assert caught.value.args == (name,)
        assert not hasattr(stats, name)
        assert name not in stats

    @pytest.mark.parametrize("name", [0, None, b"trips", ("trips",)])
    def test_other_types_as_names_raise(self, cache: Cache, name: Any) -> None:
        with pytest.raises(KeyError):
            cache.stats()[name]

    def test_is_read_only(self, cache: Cache) -> None:
        with pytest.raises(TypeError):
            Stats()  # type: ignore[call-arg]  # types say so too
        stats = cache.stats()
        with pytest.raises(AttributeError):
            stats.trips = 5
        with pytest.raises(TypeError):
            stats["trips"] = 5  # type: ignore[index]  # that is the mistake
        with pytest.raises(TypeError):
            copy.copy(stats)

"""Caches of other prefixes over the same connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onetrip import Cache

if TYPE_CHECKING:
    from tests.servers import RedisServer


def test_prefixes_compose() -> None:
    cache = Cache(prefix="blog")
    notes = cache.prefixed("notes")
    assert repr(notes) == '<onetrip.Cache memory:// prefix="blog:notes">'
    assert 'prefix="notes"' in repr(Cache().prefixed("notes"))
    notes.set("5", "Milk")
    assert cache.get("notes:5") == "Milk"
    assert (cache.stats().writes, notes.stats().writes) == (0, 1)


def test_options_are_shared() -> None:
    cache = Cache(serializer="raw", prefix="blog").prefixed("raw")
    cache.set("a", b"bytes")
    assert cache.get("a") == b"bytes"


def test_clear_leaves_the_other_keys() -> None:
    cache = Cache(prefix="blog")
    notes, pages = cache.prefixed("notes"), cache.prefixed("pages")
    for each in (cache, notes, pages):
        each.set("a", 1)
    assert notes.clear() == 1
    assert (cache.get("a"), notes.get("a"), pages.get("a")) == (1, None, 1)


def test_scopes_and_watches_are_each_its_own() -> None:
    cache = Cache("memory://?latency=10us", prefix="blog")
    notes = cache.prefixed("notes")
    with cache.watch() as seen, cache.preload("a"):
        notes.get("a")
        assert cache.get("a") is None
    assert seen.trips == 1


def test_connection_is_shared(redis_server: RedisServer, redis_url: str) -> None:
    def connections() -> int:
        return len(redis_server.admin.client_list())

    cache = Cache(redis_url, prefix="blog", on_error="raise")
    cache.set("a", 1)
    before = connections()
    notes = cache.prefixed("notes")
    notes.set("a", 2)
    assert notes.get("a") == 2
    assert connections() == before
    other = Cache(redis_url, on_error="raise")
    assert other.get("a") is None
    assert connections() == before + 1

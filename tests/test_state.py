"""Law 1: plain calls are exact, whatever scope or learned page they are made in.

The other is a cache of another process where the store has a server: this process knows of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import redis

from onetrip import Cache
from tests.awaited import Awaited
from tests.conftest import PREFIX
from tests.pieces import afetch, ais_held, fetch, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import ExpectTrips, OpenCache
    from tests.servers import RedisServer


@pytest.fixture(params=[Cache, Awaited], ids=["blocking", "asynchronous"])
def face(request: pytest.FixtureRequest) -> Any:
    """Both faces of a cache."""
    return request.param


class Elsewhere:
    """Another process that writes to the same Redis: this one hears nothing of it."""

    def __init__(self, url: str) -> None:
        # Of a raw serializer an entry is its value.
        self.client = redis.Redis.from_url(url)

    def set(self, key: str, value: bytes) -> None:
        self.client.set(f"{PREFIX}:{key}", value)

    def get(self, key: str) -> Any:
        return self.client.get(f"{PREFIX}:{key}")

    def delete(self, key: str) -> None:
        self.client.delete(f"{PREFIX}:{key}")


@pytest.fixture
def elsewhere(redis_url: str) -> Iterator[Elsewhere]:
    elsewhere = Elsewhere(redis_url)
    yield elsewhere
    elsewhere.client.close()


@pytest.fixture
def shared(redis_url: str, face: type[Cache]) -> Cache:
    """A cache whose entries another program reads and writes."""
    return face(redis_url, prefix=PREFIX, serializer="raw", on_error="raise")


SCOPES: dict[str, Callable[[Cache], Any]] = {
    "none": lambda _: nullcontext(),
    "scope": lambda cache: cache.scope(),
    "preload of others": lambda cache: cache.preload("other"),
    "page": lambda cache: cache.page("page"),
}

every_scope = pytest.mark.parametrize("enter", SCOPES.values(), ids=SCOPES)


class TestWrites:
    @every_scope
    @pytest.mark.parametrize(
        ("call", "left"),
        [
            (lambda cache: cache.set("a", b"2"), b"2"),
            (lambda cache: cache.set_many({"a": b"2"}), b"2"),
            (lambda cache: cache.__setitem__("a", b"2"), b"2"),
            (lambda cache: cache.incr("a"), b"2"),
            (lambda cache: cache.delete("a"), None),
            (lambda cache: cache.delete_many(["a"]), None),
            (lambda cache: cache.touch("a", 0), None),
            (lambda cache: cache.set("a", b"2", 0), None),
            (lambda cache: cache.clear(), None),
        ],
        ids=[
            *("set", "set_many", "item", "incr"),
            *("delete", "delete_many", "touch 0", "set 0", "clear"),
        ],
    )
    def test_write_is_stored_when_it_returns(
        self,
        shared: Cache,
        elsewhere: Elsewhere,
        enter: Callable[[Cache], Any],
        call: Callable[[Cache], object],
        left: bytes | None,
    ) -> None:
        elsewhere.set("a", b"1")
        with enter(shared):
            assert shared.get("a") == b"1"
            call(shared)
            assert elsewhere.get("a") == left
            assert shared.get("a") == left

    @every_scope
    def test_writes_keep_their_order(
        self, shared: Cache, elsewhere: Elsewhere, enter: Callable[[Cache], Any]
    ) -> None:
        with enter(shared):
            for number in range(5):
                shared.set("version", b"%d" % number)
                assert elsewhere.get("version") == b"%d" % number
                shared.set("data", b"of %d" % number)
                assert elsewhere.get("data") == b"of %d" % number

    def test_each_write_is_one_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(4), cache.scope():
            for number in range(3):
                cache.set("a", number)
            cache.set_many({"a": 1, "b": 2})

    def test_page_end_does_not_undo_writes_of_others(
        self, shared: Cache, elsewhere: Elsewhere
    ) -> None:
        """Set "first", another process sets "second" later."""
        with shared.page("page"):
            shared.set("a", b"first")
            elsewhere.set("a", b"second")
        assert elsewhere.get("a") == b"second"

    def test_failing_write_raises_at_the_call(self) -> None:
        cache = Cache("redis://127.0.0.1:1", on_error="raise")
        with cache.scope(), pytest.raises(ConnectionError):
            cache.set("a", 1)


class TestReads:
    @every_scope
    def test_read_sees_writes_of_others(
        self, shared: Cache, elsewhere: Elsewhere, enter: Callable[[Cache], Any]
    ) -> None:
        with enter(shared):
            assert shared.get("a") is None
            for number in range(5):
                elsewhere.set("a", b"%d" % number)
                assert shared.get("a") == b"%d" % number
                assert shared.get_many(["a", "b"]) == {"a": b"%d" % number}
                assert "a" in shared
            elsewhere.delete("a")
            assert "a" not in shared

    def test_key_changed_by_each_visit_stays_exact(
        self, shared: Cache, elsewhere: Elsewhere
    ) -> None:
        """What every visit changes never earns a place in what the first trip brings."""
        for visit in range(8):
            elsewhere.set("status", b"pending")
            with shared.page("page"):
                assert shared.get("status") == b"pending", visit
                elsewhere.set("status", b"done")
                assert shared.get("status") == b"done", visit

    def test_alternating_writers_see_each_other(self, shared: Cache, elsewhere: Elsewhere) -> None:
        """Two who set their own and get the other's: one of them sees the other."""
        for _ in range(8):
            elsewhere.client.flushdb()
            with shared.page("page"):
                shared.set("me", b"1")
                elsewhere.set("you", b"1")
                assert shared.get("you") == b"1"

    def test_key_preloaded_by_name_may_be_old(self, shared: Cache, elsewhere: Elsewhere) -> None:
        elsewhere.set("a", b"1")
        with shared.preload("a", "b"):
            elsewhere.set("a", b"2")
            elsewhere.set("b", b"2")
            assert shared.get("a") == b"1"
            assert "b" not in shared
            shared.set("a", b"3")
            elsewhere.set("a", b"4")
            assert shared.get("a") == b"4"

    def test_plain_read_of_a_fetched_key_is_exact(
        self, shared: Cache, elsewhere: Elsewhere
    ) -> None:
        piece = Cache.cached(shared, key="a")(lambda: b"piece")
        with shared.scope():
            assert piece() == b"piece"
            elsewhere.set("a", b"news")
            assert piece() == b"piece"
            assert shared.get("a") == b"news"


class TestInvalidationWithinTheProcess:
    """State that is written anywhere in the process ends what all scopes hold of that key."""

    @pytest.fixture
    def face(self) -> type[Cache]:
        """Threads and loops of their own drive no other loop."""
        return Cache

    @pytest.mark.parametrize(
        "write",
        [
            lambda cache: cache.set("piece:a", "news"),
            lambda cache: cache.delete("piece:a"),
            lambda cache: cache.touch("piece:a", 0),
        ],
        ids=["set", "delete", "touch"],
    )
    def test_write_by_another_thread_drops_the_held_value(
        self, cache: Cache, write: Callable[[Cache], object]
    ) -> None:
        with cache.scope():
            fetch(cache, "a")
            assert is_held(cache, "a")
            thread = threading.Thread(target=write, args=(cache,))
            thread.start()
            thread.join()
            with cache.watch() as seen:
                cache.cached(key="piece:{name}")(lambda name: f"{name} anew")("a")
            assert seen.trips > 0

    def test_write_by_another_cache_drops_the_held_value(
        self, cache: Cache, open_cache: OpenCache
    ) -> None:
        with cache.preload("a"):
            open_cache().set("a", 1)
            assert cache["a"] == 1

    def test_write_by_another_task_drops_the_held_value(self, cache: Cache) -> None:
        async def main() -> None:
            async with cache.scope():
                await afetch(cache, "a")
                assert await ais_held(cache, "a")
                await asyncio.to_thread(
                    lambda: threading.Thread(target=cache.delete, args=("piece:a",)).run()
                )
                assert not await ais_held(cache, "a")

        asyncio.run(main())

    def test_clear_by_another_thread_drops_the_held_value(
        self, open_cache: OpenCache, store_url: str
    ) -> None:
        if store_url.startswith("memcached"):
            pytest.skip("cannot clear")
        cache = open_cache()
        with cache.scope():
            fetch(cache, "a")
            thread = threading.Thread(target=cache.clear)
            thread.start()
            thread.join()
            assert not is_held(cache, "a")

    def test_answer_raced_by_a_write_is_not_held(self, cache: Cache) -> None:
        """A write that returns between a read's departure and its return ends what it brought."""
        stop = threading.Event()
        seen: list[int] = []

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                cache.set("n", number)
                seen.append(number)

        cache.set("n", 0)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                with cache.preload("n"):
                    for _ in range(3):
                        least = seen[-1] if seen else 0
                        assert cache["n"] >= least
        finally:
            stop.set()
            writer.join()

    def test_write_of_another_key_keeps_the_held_value(self, cache: Cache) -> None:
        with cache.scope():
            fetch(cache, "a")
            for number in range(20):
                cache.set(f"other:{number}", 1)
            assert is_held(cache, "a")


class TestFresh:
    def test_drops_plain_answers(self, shared: Cache, elsewhere: Elsewhere) -> None:
        with Cache.scope(shared, max_age=60):
            assert Cache.get(shared, "a") is None
            elsewhere.set("a", b"1")
            assert Cache.get(shared, "a") is None
            shared.fresh()
            assert Cache.get(shared, "a") == b"1"

    def test_keeps_pieces(self, cache: Cache) -> None:
        with cache.scope():
            fetch(cache, "a")
            cache.fresh()
            assert is_held(cache, "a")

    def test_without_a_scope_does_nothing(self, cache: Cache) -> None:
        cache.fresh()


class TestScopeMaxAge:
    @pytest.fixture
    def face(self) -> type[Cache]:
        """The blocking one: both share what is meant."""
        return Cache

    def test_holds_plain_answers(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(2), cache.scope(max_age=60):
            for _ in range(3):
                assert cache["a"] == 1
                assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
                assert "b" in cache

    def test_holds_absences(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(1), cache.scope(max_age=60):
            for _ in range(3):
                assert "a" not in cache

    def test_holds_for_the_given_time(self, shared: Cache, elsewhere: Elsewhere) -> None:
        with shared.scope(max_age=0.2):
            assert shared.get("a") is None
            elsewhere.set("a", b"1")
            time.sleep(0.25)
            assert shared.get("a") == b"1"

    def test_sees_its_own_writes(self, cache: Cache) -> None:
        with cache.scope(max_age=60):
            for number in range(3):
                cache.set("a", number)
                assert cache["a"] == number
                cache.delete("a")
                assert "a" not in cache

    def test_ends_with_its_block(self, shared: Cache, elsewhere: Elsewhere) -> None:
        with shared.scope():
            with shared.scope(max_age=60):
                assert shared.get("a") is None
            elsewhere.set("a", b"1")
            assert shared.get("a") == b"1"

    def test_within_a_page(self, shared: Cache, elsewhere: Elsewhere) -> None:
        with shared.page("page"), shared.scope(max_age=60):
            assert shared.get("a") is None
            elsewhere.set("a", b"1")
            assert shared.get("a") is None

    @pytest.mark.parametrize("wrong", ["1s", True, [], float("nan")], ids=repr)
    def test_wrong_type_raises(self, cache: Cache, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            cache.scope(max_age=wrong)


class TestWhileSending:
    """Once a response has begun to be sent, what is held is at most `read_max_age` old."""

    @pytest.fixture
    def face(self) -> type[Cache]:
        """What holds is the same."""
        return Cache

    def test_pieces_expire_quickly(self, open_cache: OpenCache) -> None:
        cache = open_cache(read_max_age=0.2)
        with cache._request_scope(True) as scope:
            fetch(cache, "a")
            time.sleep(0.25)
            assert is_held(cache, "a")
            scope._begin_sending()
            assert not is_held(cache, "a")

    def test_preloaded_keys_expire_quickly(self, redis_url: str, elsewhere: Elsewhere) -> None:
        cache = Cache(redis_url, prefix=PREFIX, serializer="raw", read_max_age=0)
        with cache._request_scope(True) as scope, cache.preload("a"):
            elsewhere.set("a", b"1")
            assert cache.get("a") is None
            scope._begin_sending()
            assert cache.get("a") == b"1"


def test_each_plain_read_asks_the_server(redis_server: RedisServer, redis_url: str) -> None:
    cache = Cache(redis_url, pages="off")
    cache.get("warm")
    redis_server.reset_stats()
    with cache.scope():
        for _ in range(5):
            cache.get("a")
    assert redis_server.commandstats() == {"get": 5}

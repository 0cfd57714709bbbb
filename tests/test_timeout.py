"""How long entries live, in every way that Python says a span of time."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import OpenCache
    from tests.servers import RedisServer

# Each writes `value` under "a", with a timeout as its last argument.
WRITES: dict[str, Callable[[Cache, Any], object]] = {
    "set": lambda cache, timeout: cache.set("a", 1, timeout),
    "set by name": lambda cache, timeout: cache.set("a", 1, timeout=timeout),
    "set_many": lambda cache, timeout: cache.set_many({"a": 1}, timeout),
    "set_many by name": lambda cache, timeout: cache.set_many({"a": 1}, timeout=timeout),
    "add": lambda cache, timeout: cache.add("a", 1, timeout),
    "add by name": lambda cache, timeout: cache.add("a", 1, timeout=timeout),
    "get_or_set": lambda cache, timeout: cache.get_or_set("a", 1, timeout),
    "get_or_set by name": lambda cache, timeout: cache.get_or_set("a", 1, timeout=timeout),
    "cached": lambda cache, timeout: cache.cached(timeout, key="a")(lambda: 1)(),
    "cached by name": lambda cache, timeout: cache.cached(timeout=timeout, key="a")(lambda: 1)(),
    "refresh": lambda cache, timeout: cache.cached(timeout, key="a")(lambda: 1).refresh(),
    "many": lambda cache, timeout: cache.cached(timeout, key="a")(lambda: 1).many([()]),
    "touch": lambda cache, timeout: (cache.add("a", 1), cache.touch("a", timeout)),
    "touch_many": lambda cache, timeout: (cache.add("a", 1), cache.touch_many(["a"], timeout)),
}

each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())

FOREVER = -1


def seconds_left(server: RedisServer, cache: Cache) -> float:
    """What the server says of the entry that `write` made."""
    left: int = server.admin.pttl("test:a")
    return left if left < 0 else left / 1000


@pytest.fixture
def on_redis(redis_url: str) -> Cache:
    return Cache(redis_url, prefix="test")


class TestTimeoutsOnTheServer:
    @each_write
    @pytest.mark.parametrize(
        ("timeout", "seconds"),
        [
            (60, 60),
            (60.5, 60.5),
            (timedelta(minutes=2), 120),
            (timedelta(days=40), 40 * 86400),
            (Decimal("90.25"), 90.25),
            (Fraction(181, 2), 90.5),
            (10**7, 10**7),
        ],
        ids=repr,
    )
    def test_seconds_and_timedelta(
        self,
        redis_server: RedisServer,
        on_redis: Cache,
        write: Callable[[Cache, Any], object],
        timeout: object,
        seconds: float,
    ) -> None:
        write(on_redis, timeout)
        # Room for a machine that stands still for a while.
        assert seconds - 30 < seconds_left(redis_server, on_redis) <= seconds

    @each_write
    @pytest.mark.parametrize(
        "timeout",
        [None, math.inf, 1e300, 10**40, timedelta.max, timedelta(days=200 * 365)],
        ids=repr,
    )
    def test_none_never_expires(
        self,
        redis_server: RedisServer,
        on_redis: Cache,
        write: Callable[[Cache, Any], object],
        timeout: object,
    ) -> None:
        write(on_redis, timeout)
        assert seconds_left(redis_server, on_redis) == FOREVER

    def test_default_timeout(self, redis_server: RedisServer, redis_url: str) -> None:
        options: list[tuple[dict[str, Any], float]] = [
            ({}, 300),
            ({"timeout": 60}, 60),
            ({"timeout": timedelta(hours=1)}, 3600),
        ]
        writes: list[Callable[[Cache], object]] = [
            lambda cache: cache.set("a", 1),
            lambda cache: cache.__setitem__("a", 1),
            lambda cache: cache.set_many({"a": 1}),
            lambda cache: cache.add("a", 1),
            lambda cache: cache.get_or_set("a", 1),
            lambda cache: cache.cached(key="a")(lambda: 1)(),
            lambda cache: cache.cached(key="a")(lambda: 1).refresh(),
            lambda cache: cache.cached(key="a")(lambda: 1).many([()]),
        ]
        for given, seconds in options:
            cache = Cache(redis_url, prefix="test", **given)
            for write in writes:
                redis_server.flush()
                write(cache)
                assert seconds - 30 < seconds_left(redis_server, cache) <= seconds

    def test_default_of_none_never_expires(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url, prefix="test", timeout=None)
        cache.set("a", 1)
        assert seconds_left(redis_server, cache) == FOREVER
        cache.set("a", 1, 60)
        assert 30 < seconds_left(redis_server, cache) <= 60

    def test_posted_values_have_their_timeout(
        self, redis_server: RedisServer, redis_url: str
    ) -> None:
        cache = Cache(redis_url, prefix="test")
        for timeout in (60, None):
            with cache.watch() as seen, cache.scope():
                cache.cached(timeout, key="a")(lambda: 1)()
            assert seen.posted == 1
            left = seconds_left(redis_server, cache)
            assert left == FOREVER if timeout is None else 30 < left <= 60
            cache.delete("a")

    def test_incr_keeps_the_timeout(self, redis_server: RedisServer, on_redis: Cache) -> None:
        on_redis.set("a", 1, 60)
        on_redis.incr("a")
        assert 30 < seconds_left(redis_server, on_redis) <= 60
        on_redis.set("a", 1, None)
        on_redis.decr("a")
        assert seconds_left(redis_server, on_redis) == FOREVER

    def test_failed_add_keeps_the_timeout(self, redis_server: RedisServer, on_redis: Cache) -> None:
        on_redis.set("a", 1, None)
        assert on_redis.add("a", 2, 60) is False
        assert seconds_left(redis_server, on_redis) == FOREVER


class TestZeroOrNegative:
    over = pytest.mark.parametrize(
        "timeout",
        [0, 0.0, -0.0, -1, -1e300, -math.inf, timedelta(0), timedelta.min, Decimal(0)],
        ids=repr,
    )

    @over
    @pytest.mark.parametrize("call", ["set", "set_many", "touch", "touch_many", "refresh"])
    def test_deletes_the_entry(self, cache: Cache, call: str, timeout: object) -> None:
        cache.set("a", "old")
        WRITES[call](cache, timeout)
        assert "a" not in cache

    @over
    @each_write
    def test_stores_nothing(
        self, cache: Cache, write: Callable[[Cache, Any], object], timeout: object
    ) -> None:
        write(cache, timeout)
        assert "a" not in cache
        with cache.scope():
            write(cache, timeout)
            assert cache.get("a") is None
        assert "a" not in cache

    def test_return_values_are_unchanged(self, cache: Cache) -> None:
        assert cache.get_or_set("a", [1], 0) == [1]
        assert cache.cached(0, key="b")(lambda: [2])() == [2]
        assert cache.add("a", 1, 0) is True
        cache.set("a", 1)
        assert cache.add("a", 1, 0) is False
        assert cache["a"] == 1
        assert cache.touch("a", 0) is True
        assert cache.touch("a", 0) is False
        cache.set_many({"a": 1, "b": 2})
        assert cache.touch_many(["a", "b", "x"], -1) == 2

    @over
    def test_default_of_zero_stores_nothing(self, open_cache: OpenCache, timeout: object) -> None:
        open_cache().set("a", "old")
        cache = open_cache(timeout=timeout)
        cache.set("a", 1)
        cache["b"] = 1
        cache.set_many({"c": 1})
        assert cache.add("d", 1) is True
        assert cache.get_many(["a", "b", "c", "d"]) == {}
        cache.set("a", 1, 60)
        assert cache["a"] == 1


class TestWrongTimeouts:
    @each_write
    @pytest.mark.parametrize(
        "timeout",
        [math.nan, True, False, "60", b"60", [60], {}, 10**400, 1j, Decimal("nan")],
        ids=lambda value: repr(value)[:20],
    )
    def test_wrong_timeout_raises(
        self, write: Callable[[Cache, Any], object], timeout: object
    ) -> None:
        cache = Cache(prefix="test")
        with pytest.raises(
            ConfigurationError, match="is not a timeout; give seconds as a number, a timedelta, or"
        ):
            write(cache, timeout)

    @pytest.mark.parametrize("timeout", [math.nan, True, "60", [60]], ids=repr)
    def test_wrong_default_raises(self, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match="is not a timeout"):
            Cache(timeout=timeout)


class TestExpiry:
    """The clock of the real world: what has expired is waited for, and nothing is timed."""

    @staticmethod
    def wait_until(gone: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not gone():
            assert time.monotonic() < deadline, "an entry outlived its timeout"
            time.sleep(0.005)

    def test_every_kind_of_write_expires(self, open_cache: OpenCache) -> None:
        # All at once: some stores count in seconds.
        caches = [open_cache(prefix=f"{number}") for number in range(len(WRITES))]
        for cache, write in zip(caches, WRITES.values(), strict=True):
            write(cache, 0.02)
        self.wait_until(lambda: not any("a" in cache for cache in caches))
        for cache in caches:
            assert cache.get("a") is None
            assert cache.add("a", 2) is True

    def test_tiny_timeouts_expire(self, cache: Cache) -> None:
        spans: list[float | timedelta] = [1e-3, 1e-6, 1e-9, timedelta(microseconds=1)]
        for span in spans:
            cache.set(repr(span), 1, span)
        self.wait_until(lambda: cache.get_many(map(repr, spans)) == {})

    def test_held_values_expire(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1, 0.02)
            self.wait_until(lambda: "a" not in cache)
        assert "a" not in cache

    def test_replaced_value_does_not_come_back(self, cache: Cache) -> None:
        cache.set("a", "old")
        with cache.scope():
            cache.set("a", "new", 0.01)
            # Memcached lets entries live for whole seconds.
            self.wait_until(lambda: "a" not in cache)

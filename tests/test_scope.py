"""Scopes: what they hold, what that saves, and what changes it."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import BadKeyError, Cache
from tests.awaited import Awaited
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from tests.conftest import ExpectTrips, OpenCache
    from tests.servers import RedisServer

MISSING = object()


@pytest.fixture(params=[Cache, Awaited], ids=["blocking", "asynchronous"])
def face(request: pytest.FixtureRequest) -> Any:
    """Both faces of a cache."""
    return request.param


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


class TestTransparency:
    """Law 1: a program means the same with a scope and without one."""

    def test_reads_see_writes(self, cache: Cache) -> None:
        cache.set("a", "old")
        with cache.preload("a"):
            cache.set("a", "new")
            assert cache["a"] == "new"
            assert "a" in cache
            assert cache.get_many(["a"]) == {"a": "new"}
            cache["a"] = "newer"
            assert cache.get_or_set("a", "newest") == "newer"
            cache.set_many({"a": 1, "b": 2})
            assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
            assert cache.incr("a") == 2
            assert cache["a"] == 2
            assert cache.add("a", 5) is False
            assert cache.add("d", 5) is True
            assert cache["d"] == 5
        assert cache.get_many(["a", "b", "d"]) == {"a": 2, "b": 2, "d": 5}

    def test_reads_see_deletes(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        with cache.preload("a", "b", "c"):
            assert cache.delete("a") is True
            assert "a" not in cache
            assert cache.delete("a") is False
            cache.set("x", 1)
            assert cache.delete("x") is True
            assert "x" not in cache
            assert cache.delete_many(["b", "y"]) == 1
            assert cache.get_many(["a", "b", "c"]) == {"c": 3}
            assert cache.touch("c", 0) is True
            assert "c" not in cache
        assert cache.get_many(["a", "b", "c", "x"]) == {}

    @stores_that_clear
    def test_clear_removes_held_values(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2})
        with cache.preload("a", "c"):
            cache.set("d", 4)
            assert cache.clear() >= 2
            assert cache.get_many(["a", "b", "c", "d"]) == {}
            cache.set("e", 5)
        assert cache.get_many(["a", "b", "c", "d", "e"]) == {"e": 5}

    @stores_that_clear
    def test_clear_of_another_prefix_keeps_held_values(
        self, cache: Cache, open_cache: OpenCache
    ) -> None:
        cache.set("a", 1)
        with cache.preload("a"):
            assert open_cache(prefix="else").clear() == 0
            assert cache["a"] == 1

    def test_add_sees_a_write(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            assert cache.add("a", 2) is False
            assert cache["a"] == 1
        assert cache["a"] == 1

    def test_incr_sees_a_write(self, cache: Cache) -> None:
        cache.set("n", 1)
        with cache.preload("n"):
            cache.set("n", 10)
            assert cache.incr("n") == 11
            assert cache.decr("n", 2) == 9
            assert cache["n"] == 9
        assert cache["n"] == 9

    def test_touch_sees_a_write(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            assert cache.touch("a", 60) is True
            assert cache.touch_many(["a", "b"], None) == 1
        assert cache["a"] == 1

    def test_write_in_an_inner_scope_is_kept(self, cache: Cache, other: Cache) -> None:
        with cache.scope():
            with cache.scope():
                cache.set("a", 1)
                with cache.preload("a", "b"):
                    cache.set("b", 2)
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            with cache.preload("a"):
                assert cache["a"] == 1
        assert other.get_many(["a", "b"]) == {"a": 1, "b": 2}

    def test_delete_in_an_inner_scope_is_seen_outside(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        with cache.preload("a", "b"):
            with cache.preload("a"):
                cache.delete("a")
            assert "a" not in cache
            with cache.scope():
                cache.set("b", 3, 0)
                cache.set("c", 4)
            assert cache.get_many(["a", "b", "c"]) == {"c": 4}

    @stores_that_clear
    def test_clear_in_an_inner_scope_is_seen_outside(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2})
        with cache.preload("a"):
            cache.set("c", 3)
            with cache.scope():
                cache.clear()
            assert cache.get_many(["a", "b", "c"]) == {}

    def test_outer_write_is_seen_inside(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            with cache.preload("a"):
                assert cache["a"] == 1
                cache.set("a", 2)
            assert cache["a"] == 2

    def test_later_write_wins(self, cache: Cache, other: Cache) -> None:
        with cache.scope():
            for number in range(5):
                cache.set("a", number)
        assert other["a"] == 4
        with cache.scope():
            cache.set("a", 5)
            cache.delete("a")
        assert "a" not in other
        with cache.scope():
            cache.delete("a")
            cache.set("a", 6)
        assert other["a"] == 6

    def test_polling_loop_sees_a_new_key(self, cache: Cache, other: Cache) -> None:
        with cache.preload("flag"):
            assert "flag" not in cache
            other.set("flag", 1)
            assert cache["flag"] == 1

    def test_unencodable_value_raises_at_the_call(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            with pytest.raises(TypeError):
                cache.set("a", object())
            assert cache["a"] == 1

    @staticmethod
    def fail_within(cache: Cache) -> None:
        """A page that writes and then fails."""
        # `raises` would have the failing line to itself, but what counts is what comes before it.
        with contextlib.suppress(ZeroDivisionError), cache.scope():
            cache.set("a", 1)
            raise ZeroDivisionError

    def test_exception_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        self.fail_within(cache)
        assert other["a"] == 1

    def test_next_scope_starts_empty(self, cache: Cache, other: Cache) -> None:
        cache.set("a", 1)
        with cache.preload("a", "b"):
            assert cache["a"] == 1
        other.set_many({"a": 2, "b": 2})
        with cache.scope():
            assert cache.get_many(["a", "b"]) == {"a": 2, "b": 2}


class TestOneTrip:
    """Law 2: what a page needs comes in one trip."""

    def test_preload_of_many_keys_is_one_trip(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        keys = [f"key {number}" for number in range(300)]
        cache.set_many(dict.fromkeys(keys[::2], "value"))
        with expect_trips(1) as seen, cache.preload(keys):
            for key in keys:
                assert cache.get(key) == (None if int(key[4:]) % 2 else "value")
            for key in keys[::2]:
                assert cache[key] == "value"
                assert key in cache
            assert len(cache.get_many(keys[::2])) == 150
        [trip] = seen.records
        assert len(trip) == 300

    def test_preload_is_one_command(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        cache.set_many({"a": 1, "b": 2})
        redis_server.reset_stats()
        with cache.preload("a", ["b", "c"], "a"):
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert "c" not in cache
        assert redis_server.commandstats() == {"mget": 1}
        assert redis_server.reads() == 1

    def test_absent_key_stays_absent(
        self, cache: Cache, other: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(1), cache.preload("a"):
            for _ in range(3):
                assert "a" not in cache
                assert cache.get_many(["a"]) == {}
        other.set("a", 1)
        assert cache["a"] == 1

    def test_absent_key_that_is_set_is_found(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        # Written, and read again: what was held of it ended with the write.
        with expect_trips(3), cache.preload("a"):
            assert cache.get("a") is None
            cache.set("a", 1)
            for _ in range(3):
                assert cache["a"] == 1

    def test_fetched_key_is_not_preloaded_again(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(2), cache.scope():
            for _ in range(3):
                assert cache.get_or_set("a", 0) == 1
                assert cache.get_or_set("b", 0) == 2
            with cache.preload("a", "b"):
                assert cache["b"] == 2

    def test_each_read_without_scope_is_a_trip(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set("a", 1)
        with expect_trips(3):
            for _ in range(3):
                assert cache["a"] == 1

    def test_inner_preload_asks_only_for_missing_keys(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(2) as seen, cache.preload("a"), cache.preload("a", "b"):
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        asked = [("get", "test:a")], [("get", "test:b")]
        assert [trip.ops for trip in seen.records] == [*asked]

    def test_empty_preload_makes_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0), cache.preload(), cache.preload([], iter(())), cache.scope():
            pass

    def test_unentered_preload_makes_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0):
            cache.preload("a")

    def test_scope_can_be_entered_again(
        self, cache: Cache, other: Cache, expect_trips: ExpectTrips
    ) -> None:
        page = cache.preload("a")
        for number in range(3):
            other.set("a", number)
            with expect_trips(1), page:
                assert cache["a"] == number


class TestPosts:
    """Law 3: what fetches compute in a scope is posted."""

    @pytest.fixture
    def face(self) -> type[Cache]:
        """Functions are cached without a loop: see test_cached_aio for coroutines."""
        return Cache

    def test_computed_pieces_are_posted(
        self, cache: Cache, expect_trips: ExpectTrips, other: Cache
    ) -> None:
        piece = cache.cached(key="piece:{number}")(lambda number: number)
        keys = [f"piece:{number}" for number in range(20)]
        with expect_trips(1, posts=20) as seen, cache.preload(keys):
            for number in range(20):
                assert piece(number) == piece(number) == number
        assert {word for trip in seen.records[1:] for word, _ in trip.ops} == {"set"}
        assert other.get_many(keys) == {f"piece:{number}": number for number in range(20)}

    def test_results_of_many_are_one_post(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        piece = cache.cached(key="piece:{number}")(lambda number: number)
        with expect_trips(1, posts=20) as seen, cache.scope():
            for _ in range(2):
                assert piece.many(range(20)) == list(range(20))
        assert [len(trip) for trip in seen.records] == [20, 20]

    def test_outside_of_scopes_stores_are_waited_for(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        piece = cache.cached(key="piece")(lambda: 1)
        with expect_trips(2):
            piece()

    def test_on_error_raise_waits_for_stores(self, open_cache: OpenCache) -> None:
        cache = open_cache(on_error="raise")
        piece = cache.cached(key="piece")(lambda: 1)
        with cache.watch() as seen, cache.scope():
            piece()
        assert (seen.trips, seen.posted) == (2, 0)

    def test_page_without_writes_sends_nothing(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set("a", 1)
        with expect_trips(1), cache.preload("a"):
            assert cache["a"] == 1

    def test_failing_page_keeps_its_posts(self, cache: Cache, other: Cache) -> None:
        piece = cache.cached(key="piece")(lambda: 1)
        with contextlib.suppress(ZeroDivisionError), cache.scope():
            piece()
            raise ZeroDivisionError
        assert other["piece"] == 1

    def test_posts_are_counted(self, redis_url: str) -> None:
        cache = Cache(redis_url)
        piece = cache.cached(key="piece:{number}")(lambda number: number)
        with cache.watch() as seen, cache.scope():
            piece(1)
            piece(2)
        assert (seen.trips, seen.posted) == (2, 2)
        assert [trip.posted for trip in seen.records] == [False, True] * 2
        stats = cache.stats()
        assert (stats.trips, stats.posted, stats.writes) == (2, 2, 2)


class TestPreloadArguments:
    def test_strings_and_iterables_of_them(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        keys = {name: name for name in "abcdefgh"}
        cache.set_many(keys)
        page = cache.preload(
            "a", ["b"], ("c",), {"d"}, (key for key in "e"), {"f": 0}, [["g", [iter("h")]]]
        )
        with expect_trips(1), page:
            assert cache.get_many("abcdefgh"[i] for i in range(8)) == keys

    def test_single_string_is_one_key(self, cache: Cache) -> None:
        with cache.watch() as seen, cache.preload("abc"):
            pass
        assert seen.records[0].ops == [("get", "test:abc")]

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            (5, "int"),
            (None, "NoneType"),
            (b"a", "bytes"),
            ([b"a"], "bytes"),
            (True, "bool"),
            (object(), "object"),
            (len, "builtin_function_or_method"),
            (functools.partial(len), "functools.partial"),
        ],
        ids=repr,
    )
    def test_other_types_raise(self, cache: Cache, wrong: Any, named: str) -> None:
        with pytest.raises(BadKeyError, match=rf"not {named}; for anything else pass its \.key"):
            cache.preload("a", wrong)

    def test_damaged_entry_is_a_miss(self, cache: Cache) -> None:
        with cache.preload("a"):
            assert cache.get("a", MISSING) is MISSING

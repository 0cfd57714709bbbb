"""Scopes: what they hold, what leaves them and when, and whom they belong to."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import BadKeyError, Cache, ConfigurationError
from tests.awaited import Awaited
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

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


class TestTransparent:
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
    def test_a_clear_takes_all(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2})
        with cache.preload("a", "c"):
            cache.set("d", 4)
            assert cache.clear() >= 2
            assert cache.get_many(["a", "b", "c", "d"]) == {}
            cache.set("e", 5)
        assert cache.get_many(["a", "b", "c", "d", "e"]) == {"e": 5}

    @stores_that_clear
    def test_a_clear_of_another_prefix_takes_nothing(
        self, cache: Cache, open_cache: OpenCache
    ) -> None:
        cache.set("a", 1)
        with cache.preload("a"):
            assert open_cache(prefix="else").clear() == 0
            assert cache["a"] == 1

    def test_add_sees_a_write_that_waits(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            assert cache.add("a", 2) is False
            assert cache["a"] == 1
        assert cache["a"] == 1

    def test_numbers_are_those_that_wait(self, cache: Cache) -> None:
        cache.set("n", 1)
        with cache.preload("n"):
            cache.set("n", 10)
            assert cache.incr("n") == 11
            assert cache.decr("n", 2) == 9
            assert cache["n"] == 9
        assert cache["n"] == 9

    def test_touch_sees_a_write_that_waits(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            assert cache.touch("a", 60) is True
            assert cache.touch_many(["a", "b"], None) == 1
        assert cache["a"] == 1

    def test_a_write_in_an_inner_scope_is_not_lost(self, cache: Cache, other: Cache) -> None:
        with cache.scope():
            with cache.scope():
                cache.set("a", 1)
                with cache.preload("a", "b"):
                    cache.set("b", 2)
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            with cache.preload("a"):
                assert cache["a"] == 1
        assert other.get_many(["a", "b"]) == {"a": 1, "b": 2}

    def test_a_delete_in_an_inner_scope_is_seen_outside(self, cache: Cache) -> None:
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
    def test_a_clear_in_an_inner_scope_is_seen_outside(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2})
        with cache.preload("a"):
            cache.set("c", 3)
            with cache.scope():
                cache.clear()
            assert cache.get_many(["a", "b", "c"]) == {}

    def test_an_outer_write_is_seen_inside(self, cache: Cache) -> None:
        with cache.scope():
            cache.set("a", 1)
            with cache.preload("a"):
                assert cache["a"] == 1
                cache.set("a", 2)
            assert cache["a"] == 2

    def test_a_later_write_replaces_an_earlier_one(self, cache: Cache, other: Cache) -> None:
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

    def test_a_loop_that_waits_for_a_key_ends(self, cache: Cache, other: Cache) -> None:
        with cache.preload("flag"):
            assert "flag" not in cache
            other.set("flag", 1)
            assert cache["flag"] == 1

    def test_a_value_that_cannot_be_held_raises_at_once(self, cache: Cache) -> None:
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

    def test_an_exception_ends_it_as_well(self, cache: Cache, other: Cache) -> None:
        self.fail_within(cache)
        assert other["a"] == 1

    def test_no_answer_of_one_scope_is_found_in_the_next(self, cache: Cache, other: Cache) -> None:
        cache.set("a", 1)
        with cache.preload("a", "b"):
            assert cache["a"] == 1
        other.set_many({"a": 2, "b": 2})
        with cache.scope():
            assert cache.get_many(["a", "b"]) == {"a": 2, "b": 2}


class TestOneTrip:
    """Law 2: what a page needs comes in one trip."""

    def test_for_any_number_of_keys(self, cache: Cache, expect_trips: ExpectTrips) -> None:
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

    def test_is_one_command(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        cache.set_many({"a": 1, "b": 2})
        redis_server.reset_stats()
        with cache.preload("a", ["b", "c"], "a"):
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert "c" not in cache
        assert redis_server.commandstats() == {"mget": 1}
        assert redis_server.reads() == 1

    def test_an_absent_key_costs_none_when_read_once_and_set(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(2), cache.preload("a", "b", "c"):
            assert cache.get("a") is None
            cache.set("a", 1)
            assert cache["a"] == 1
            assert cache.get_or_set("b", 2) == 2
            assert cache.get_many(["c"]) == {}
            cache.set("c", 3)
            assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}

    def test_an_absent_key_is_asked_for_again(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(3), cache.preload("a"):
            for _ in range(3):
                assert "a" not in cache

    def test_what_was_read_is_not_asked_for_again(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(2), cache.scope():
            for _ in range(3):
                assert cache["a"] == 1
                assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
                assert "b" in cache
            with cache.preload("a", "b"):
                assert cache["b"] == 2

    def test_without_a_scope_each_read_is_a_trip(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set("a", 1)
        with expect_trips(3):
            for _ in range(3):
                assert cache["a"] == 1

    def test_only_what_is_missing_is_asked_for(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(2) as seen, cache.preload("a"), cache.preload("a", "b"):
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert [trip.ops for trip in seen.records] == [
            [("get", "test:a")],
            [("get", "test:b")],
        ]

    def test_of_nothing_is_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0), cache.preload(), cache.preload([], iter(())), cache.scope():
            pass

    def test_keys_that_wait_to_be_written_are_not_asked_for(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(1), cache.scope():
            cache.set("a", 1)
            with cache.preload("a"):
                assert cache["a"] == 1

    def test_making_a_preload_is_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0):
            cache.preload("a")

    def test_a_scope_may_be_entered_anew(
        self, cache: Cache, other: Cache, expect_trips: ExpectTrips
    ) -> None:
        page = cache.preload("a")
        for number in range(3):
            other.set("a", number)
            with expect_trips(1), page:
                assert cache["a"] == number


class TestOneTripOut:
    """Law 3: writes made in a scope leave it together."""

    def test_when_it_closes(self, cache: Cache, other: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(1) as seen, cache.scope():
            for number in range(30):
                cache.set(str(number), number)
            cache.set_many({"x": 1, "y": 2})
            cache["z"] = 3
            cache.set("0", "again")
        [trip] = seen.records
        assert {word for word, _ in trip.ops} == {"set"}
        assert len(trip) == 33
        assert other.get_many(["0", "29", "y"]) == {"0": "again", "29": 29, "y": 2}

    def test_when_the_outermost_closes(
        self, cache: Cache, other: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(1), cache.scope():
            for number in range(5):
                with cache.scope(), cache.preload():
                    cache.set(str(number), number)
        assert len(other.get_many(map(str, range(5)))) == 5

    def test_a_cold_page_takes_two_trips(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        cache.get("warm")
        redis_server.reset_stats()
        keys = [f"piece:{number}" for number in range(50)]
        with cache.preload(keys):
            for key in keys:
                assert cache.get_or_set(key, "rendered") == "rendered"
        assert redis_server.commandstats() == {"mget": 1, "set": 50}
        assert redis_server.reads() == 2

    def test_a_page_that_writes_nothing_sends_nothing(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set("a", 1)
        with expect_trips(1), cache.preload("a"):
            assert cache["a"] == 1

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            # What removes an entry removes its write, too.
            (lambda cache: cache.delete("a"), ["delete"]),
            (lambda cache: cache.delete_many(["a"]), ["delete"]),
            (lambda cache: cache.touch("a", 0), ["delete"]),
            (lambda cache: cache.set("a", 1, 0), ["delete"]),
            # What stands on an entry goes with its write, behind it.
            (lambda cache: cache.add("a", 1), ["set", "add"]),
            (lambda cache: cache.incr("a"), ["set", "incr"]),
            (lambda cache: cache.touch("a", 60), ["set", "touch"]),
        ],
        ids=["delete", "delete_many", "touch 0", "set 0", "add", "incr", "touch"],
    )
    def test_all_else_goes_at_once(
        self, cache: Cache, call: Callable[[Cache], object], words: list[str]
    ) -> None:
        with cache.watch() as seen:
            with cache.scope():
                cache.set("a", 7)
                assert seen.trips == 0
                call(cache)
                [trip] = seen.records
                assert [word for word, _ in trip.ops] == words
            # The write went with it, and does not leave again.
            assert seen.trips == 1

    @stores_that_clear
    def test_a_clear_goes_at_once(self, cache: Cache) -> None:
        self.test_all_else_goes_at_once(cache, lambda cache: cache.clear(), ["set", "clear"])

    def test_a_page_that_fails_loses_nothing(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(1):
            TestTransparent.fail_within(cache)
        assert cache["a"] == 1


class TestBelonging:
    """Law 5: a scope belongs to one thread or task, and the tasks it starts."""

    @pytest.fixture
    def face(self) -> type[Cache]:
        """What runs in threads and loops of its own drives no other loop: see test_aio."""
        return Cache

    @staticmethod
    def is_in_a_scope(cache: Cache) -> bool:
        """Whether a write made here waits for a scope to close."""
        with cache.watch() as seen:
            cache.set("probe", 1)
        return seen.trips == 0

    def test_not_to_other_threads(self, cache: Cache) -> None:
        cache.set("a", "shared")
        entered, done = threading.Event(), threading.Event()
        seen: list[object] = []

        def stranger() -> None:
            entered.wait(10)
            seen.append(self.is_in_a_scope(cache))
            seen.append(cache.get("mine"))
            cache.set("theirs", 1)
            done.set()

        thread = threading.Thread(target=stranger)
        thread.start()
        with cache.preload("a", "theirs"):
            cache.set("mine", 1)
            entered.set()
            done.wait(10)
            assert "mine" in cache
        thread.join()
        assert seen == [False, None]
        assert "theirs" in cache

    def test_not_to_threads_of_a_pool(self, cache: Cache) -> None:
        with ThreadPoolExecutor(2) as pool, cache.scope():
            assert self.is_in_a_scope(cache)
            assert not any(pool.map(lambda _: self.is_in_a_scope(cache), range(10)))

    def test_to_what_runs_in_a_copy_of_its_context(self, cache: Cache) -> None:
        with ThreadPoolExecutor(1) as pool, cache.scope():
            cache.set("a", 1)
            context = contextvars.copy_context()
            assert pool.submit(context.run, cache.get, "a").result() == 1
            pool.submit(context.run, cache.set, "b", 2).result()
            assert cache["b"] == 2

    def test_not_to_other_tasks(self, cache: Cache, other: Cache) -> None:
        open_pages = 0

        async def page(number: int, all_open: asyncio.Event) -> None:
            nonlocal open_pages
            with cache.preload(f"{number}"):
                cache.set("shared", number)
                open_pages += 1
                if open_pages == 5:
                    all_open.set()
                await all_open.wait()
                # All pages are open, and each sees its own.
                assert cache["shared"] == number
            assert not self.is_in_a_scope(cache)

        async def main() -> None:
            all_open = asyncio.Event()
            await asyncio.gather(*(page(number, all_open) for number in range(5)))

        asyncio.run(main())
        assert other["shared"] in range(5)

    def test_to_the_tasks_it_starts(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        cache.set("a", 1)

        async def piece(number: int) -> None:
            await asyncio.sleep(0)
            assert cache["a"] == 1
            cache.set(f"piece {number}", number)

        async def main() -> None:
            with cache.preload("a"):
                await asyncio.gather(*map(piece, range(5)))
                await asyncio.to_thread(lambda: cache.set("piece 5", 5))
                assert len(cache.get_many(f"piece {number}" for number in range(6))) == 6

        with expect_trips(2):
            asyncio.run(main())

    def test_a_task_outlives_it(self, cache: Cache, other: Cache) -> None:
        async def late(closed: asyncio.Event) -> None:
            cache.set("early", 1)
            await closed.wait()
            # What was held is forgotten, and a write no longer waits for anything.
            assert cache["a"] == "new"
            assert not self.is_in_a_scope(cache)
            cache.set("late", 2)
            assert other["late"] == 2
            with cache.preload("late"):
                assert self.is_in_a_scope(cache)
                cache.set("later", 3)
            assert other["later"] == 3

        async def main() -> None:
            closed = asyncio.Event()
            with cache.preload("a"):
                task = asyncio.create_task(late(closed))
                await asyncio.sleep(0)
            assert other["early"] == 1
            other.set("a", "new")
            closed.set()
            await task

        cache.set("a", "old")
        asyncio.run(main())

    def test_a_task_that_is_cancelled_closes_it(self, cache: Cache, other: Cache) -> None:
        async def page() -> None:
            with cache.scope():
                cache.set("a", 1)
                await asyncio.sleep(60)

        async def main() -> None:
            task = asyncio.create_task(page())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert other["a"] == 1

    @staticmethod
    def streaming(cache: Cache) -> Generator[object]:
        with cache.preload("a"):
            cache.set("streamed", 1)
            yield cache.get("a")
        yield "closed"

    def test_a_generator_may_be_finished_elsewhere(self, cache: Cache, other: Cache) -> None:
        cache.set("a", 1)
        stream = self.streaming(cache)
        began = contextvars.copy_context()
        assert began.run(next, stream) == 1
        assert not self.is_in_a_scope(cache)
        with cache.scope():
            cache.set("here", 1)
            # The scope of the generator closes; that around us stays as it is.
            assert next(stream) == "closed"
            assert other["streamed"] == 1
            assert self.is_in_a_scope(cache)
            assert cache["here"] == 1
        assert not self.is_in_a_scope(cache)
        # Where it began, its scope is closed now.
        assert not began.run(self.is_in_a_scope, cache)

    def test_a_generator_may_be_finished_by_another_thread(
        self, cache: Cache, other: Cache
    ) -> None:
        stream = self.streaming(cache)
        contextvars.copy_context().run(next, stream)
        thread = threading.Thread(target=stream.close)
        thread.start()
        thread.join()
        assert other["streamed"] == 1
        assert not self.is_in_a_scope(cache)

    def test_scopes_may_close_in_any_order(self, cache: Cache, other: Cache) -> None:
        first, second = cache.scope(), cache.scope()
        first.__enter__()
        second.__enter__()
        cache.set("a", 1)
        first.__exit__(None, None, None)
        assert other["a"] == 1
        cache.set("b", 2)
        assert other["b"] == 2
        second.__exit__(None, None, None)
        assert not self.is_in_a_scope(cache)

    def test_caches_have_scopes_of_their_own(self, cache: Cache, other: Cache) -> None:
        with cache.scope():
            assert not self.is_in_a_scope(other)
            with other.scope():
                cache.set("a", "cache")
                other.set("a", "other")
                assert (cache["a"], other["a"]) == ("cache", "other")
            assert cache["a"] == "cache"
        assert other["a"] == "cache"


class TestWhatIsPreloaded:
    def test_strings_and_iterables_of_them(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        keys = {name: name for name in "abcdefgh"}
        cache.set_many(keys)
        page = cache.preload(
            "a", ["b"], ("c",), {"d"}, (key for key in "e"), {"f": 0}, [["g", [iter("h")]]]
        )
        with expect_trips(1), page:
            assert cache.get_many("abcdefgh"[i] for i in range(8)) == keys

    def test_a_lone_string_is_one_key(self, cache: Cache) -> None:
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
    def test_nothing_else(self, cache: Cache, wrong: Any, named: str) -> None:
        with pytest.raises(
            BadKeyError, match=rf"not {named}; the key of anything else is its \.key"
        ):
            cache.preload("a", wrong)

    def test_what_is_damaged_is_a_miss(self, cache: Cache) -> None:
        with cache.preload("a"):
            assert cache.get("a", MISSING) is MISSING


class TestTheScopeItself:
    @pytest.fixture
    def face(self) -> type[Cache]:
        """What runs in threads and loops of its own drives no other loop: see test_aio."""
        return Cache

    def test_is_entered_once_at_a_time(self, cache: Cache) -> None:
        scope = cache.scope()
        with scope as entered:
            assert entered is scope
            with pytest.raises(ConfigurationError, match="open already; make another with"):
                scope.__enter__()
            cache.set("a", 1)
        assert cache["a"] == 1

    def test_may_be_left_without_being_entered(self, cache: Cache) -> None:
        scope = cache.scope()
        scope.__exit__(None, None, None)
        with scope:
            pass
        scope.__exit__(None, None, None)

    def test_lets_exceptions_pass(self, cache: Cache) -> None:
        assert cache.scope().__exit__(ValueError, ValueError(), None) is None  # type: ignore[func-returns-value]

    def test_works_as_a_decorator_would(self, cache: Cache, other: Cache) -> None:
        @contextmanager
        def request() -> Iterator[None]:
            with ExitStack() as stack:
                stack.enter_context(cache.scope())
                yield

        @request()
        def view(number: int) -> None:
            cache.set("a", number)
            assert other.get("a") != number

        for number in range(3):
            view(number)
            assert other["a"] == number

    def test_shows_what_it_holds(self, cache: Cache) -> None:
        scope = cache.preload("a", "b")
        assert repr(scope) == "<Scope of 2 preloaded keys, not open>"
        with scope:
            assert repr(scope) == "<Scope of 2 preloaded keys, open>"

    def test_is_bounded(self, redis_url: str) -> None:
        """A page that writes without end does not keep it all in memory."""
        cache, other = (Cache(redis_url, trip_timeout=60, on_error="raise") for _ in range(2))
        names = [str(number) for number in range(5)]
        with cache.scope():
            for name in names:
                cache.set(name, b"x" * (16 << 20))
            sent = sum(name in other for name in names)
            assert 0 < sent < 5
            assert all(name in cache for name in names)
        assert all(name in other for name in names)

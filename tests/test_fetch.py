"""Law 13: callers of a process that miss the same key at the same time compute it once."""

from __future__ import annotations

import contextvars
import os
import secrets
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_threads import in_a_child, succeed, together

if TYPE_CHECKING:
    from collections.abc import Callable

    from onetrip import Cache
    from tests.conftest import ExpectTrips, OpenCache, Raw

MANY = 50


@pytest.fixture
def name() -> str:
    """A key whose cost nobody knows: it says how long others wait for it."""
    return secrets.token_hex(16)


class Computing:
    """A function that takes its time, until all others wait for it, and counts its calls."""

    def __init__(self, seconds: float = 0.3) -> None:
        self.seconds = seconds
        self.calls: list[Any] = []
        self.began = threading.Event()

    def __call__(self, value: Any = 1) -> Any:
        self.calls.append(value)
        self.began.set()
        time.sleep(self.seconds)
        return value

    def cached(self, cache: Cache, name: str) -> Any:
        """This as a cached function of one argument, under `name` and that."""
        return cache.cached(key=name + "{value}")(lambda value=1: self(value))


class TestThreads:
    def test_compute_once(self, cache: Cache, name: str) -> None:
        computing = Computing()
        cached = computing.cached(cache, name)
        together(lambda _: cached(), threads=MANY)
        assert computing.calls == [1]
        assert cache[name + "1"] == 1

    @pytest.mark.parametrize(
        "fetch",
        [
            lambda cache, name, compute: cache.get_or_set(name, compute),
            lambda cache, name, compute: cache._fragment(name, 60, lambda: str(compute())),
            lambda cache, name, compute: compute.cached(cache, name).many([1]),
        ],
        ids=["get_or_set", "fragment", "many"],
    )
    def test_every_way_to_fetch_computes_once(
        self, cache: Cache, name: str, fetch: Callable[[Cache, str, Computing], Any]
    ) -> None:
        computing = Computing()
        together(lambda _: fetch(cache, name, computing), threads=8)
        assert computing.calls == [1]

    def test_cached_property_is_computed_once(self, cache: Cache, name: str) -> None:
        computing = Computing()

        class Note:
            id = name

            @cache.cached_property(key="note:{self.id}")
            def markup(self) -> Any:
                return computing()

        together(lambda _: Note().markup, threads=8)
        assert computing.calls == [1]

    def test_different_keys_are_computed_in_parallel(self, cache: Cache) -> None:
        barrier = threading.Barrier(8)

        @cache.cached(key="{number}")
        def cached(number: int) -> int:
            barrier.wait(10)
            return number

        together(cached, threads=8)

    def test_none_is_shared(self, cache: Cache, name: str) -> None:
        computing = Computing()
        found = []
        together(lambda _: found.append(cache.get_or_set(name, lambda: computing(None))), threads=8)
        assert (found, computing.calls) == ([None] * 8, [None])

    def test_each_thread_gets_its_own_object(self, cache: Cache, name: str) -> None:
        computing = Computing()
        cached = cache.cached(key=name)(lambda: computing([1]))
        found: list[list[int]] = []

        def work(number: int) -> None:
            mine = cached()
            mine.append(number)
            found.append(mine)

        together(work, threads=8)
        assert len(computing.calls) == 1
        assert sorted(found) == sorted([1, number] for number in range(8))

    def test_waiters_compute_if_the_first_raises(self, cache: Cache, name: str) -> None:
        attempts: list[int] = []

        def flaky() -> int:
            attempts.append(len(attempts))
            time.sleep(0.2)
            if attempts[0] == threading.get_ident():
                raise AssertionError
            if len(attempts) == 1:
                raise ZeroDivisionError
            return 5

        def work(_: int) -> Any:
            try:
                return cache.get_or_set(name, flaky)
            except ZeroDivisionError:
                return "raised"

        with ThreadPoolExecutor(4) as pool:
            answers = sorted(map(str, pool.map(work, range(4))))
        assert answers == ["5", "5", "5", "raised"]
        assert cache[name] == 5

    def test_waiters_give_up_after_a_while(self, cache: Cache, name: str) -> None:
        """Twice what it cost the last time: then they compute."""

        def cheap() -> int:
            time.sleep(0.02)
            return 1

        cached = cache.cached(key=name)(cheap)
        cached()
        cache.delete(name)
        stuck, began = threading.Event(), threading.Event()

        def slow() -> int:
            began.set()
            stuck.wait(20)
            return 2

        with ThreadPoolExecutor(1) as pool:
            owner = pool.submit(cache.get_or_set, name, slow)
            began.wait(10)
            begun = time.monotonic()
            assert cached() == 1
            assert time.monotonic() - begun < 5
            stuck.set()
            # It agrees with what is there by then.
            assert owner.result() == 1

    def test_late_waiters_wait_less(self, cache: Cache, name: str) -> None:
        stuck, began = threading.Event(), threading.Event()

        def slow() -> int:
            began.set()
            stuck.wait(20)
            return 2

        with ThreadPoolExecutor(1) as pool:
            owner = pool.submit(cache.get_or_set, name, slow)
            began.wait(10)
            time.sleep(1.1)
            begun = time.monotonic()
            assert cache.get_or_set(name, 1) == 1
            assert time.monotonic() - begun < 0.9
            stuck.set()
            owner.result()

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    def test_waiting_thread_can_be_interrupted(self, cache: Cache, name: str) -> None:
        stuck, began = threading.Event(), threading.Event()

        def slow() -> int:
            began.set()
            stuck.wait(20)
            return 2

        owner = threading.Thread(target=cache.get_or_set, args=(name, slow))
        owner.start()
        began.wait(10)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            cache.get_or_set(name, 1)
        # It was interrupted while it waited: after that it would have stored its own value.
        assert name not in cache
        stuck.set()
        owner.join()
        assert cache[name] == 2


class TestRecursion:
    def test_recursive_function(self, cache: Cache) -> None:
        @cache.cached(key="fibonacci:{n}")
        def fibonacci(n: int) -> int:
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        assert fibonacci(20) == 6765

    def test_key_that_needs_itself_does_not_deadlock(self, cache: Cache, name: str) -> None:
        depth: list[int] = []

        @cache.cached(key=name)
        def cached() -> int:
            depth.append(1)
            return 5 if len(depth) > 3 else cached() + 1

        begun = time.monotonic()
        assert cached() == 8
        assert time.monotonic() - begun < 0.9
        assert len(depth) == 4

    def test_two_threads_in_a_cycle_do_not_deadlock(self, cache: Cache, name: str) -> None:
        barrier = threading.Barrier(2)
        met = threading.Event()

        def compute(own: str, other: str) -> str:
            if not met.is_set():
                barrier.wait(10)
                met.set()
            return own + cache.get_or_set(other, other.upper)

        def work(number: int) -> str:
            own, other = (name + "a", name + "b")[:: 1 if number else -1]
            return str(cache.get_or_set(own, lambda: compute(own, other)))

        begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(work, range(2)))
        # One waits for the other, which computes for itself what the first is at.
        assert time.monotonic() - begun < 0.9
        assert answers == [cache[name + "b"], cache[name + "a"]]

    def test_many_threads_in_a_cycle_do_not_deadlock(self, cache: Cache) -> None:
        size = 6

        def compute(number: int, depth: int) -> int:
            time.sleep(0.01)
            if depth == size:
                return number
            return int(
                cache.get_or_set(
                    f"{(number + 1) % size}", lambda: compute((number + 1) % size, depth + 1)
                )
            )

        begun = time.monotonic()
        together(lambda n: cache.get_or_set(f"{n}", lambda: compute(n, 0)), threads=size)
        assert time.monotonic() - begun < 10

    def test_helper_thread_does_not_wait_for_its_caller(self, cache: Cache, name: str) -> None:
        """As a pool that computes in parallel does: it knows whom it works for by its context."""

        def compute() -> int:
            context = contextvars.copy_context()
            with ThreadPoolExecutor(1) as pool:
                inner = pool.submit(context.run, lambda: cache.get_or_set(name, 5))
                return inner.result()

        begun = time.monotonic()
        assert cache.get_or_set(name, compute) == 5
        assert time.monotonic() - begun < 0.9


class TestForks:
    def test_child_of_a_computing_process_computes_itself(self, cache: Cache) -> None:
        def compute() -> int:
            succeed([in_a_child(lambda: check(cache.get_or_set("one", 5), 5))])
            return 6

        def check(found: Any, expected: Any) -> None:
            assert found == expected

        assert cache.get_or_set("one", compute) in {5, 6}

    def test_child_does_not_wait_for_a_thread_of_its_parent(self, cache: Cache, name: str) -> None:
        stuck, began = threading.Event(), threading.Event()

        def slow() -> int:
            began.set()
            stuck.wait(20)
            return 1

        def work() -> None:
            begun = time.monotonic()
            assert cache.get_or_set(name, 2) == 2
            assert time.monotonic() - begun < 0.9

        with ThreadPoolExecutor(1) as pool:
            owner = pool.submit(cache.get_or_set, name, slow)
            began.wait(10)
            succeed([in_a_child(work)])
            stuck.set()
            owner.result()


class TestGetOrSet:
    def test_value_stored_by_another_process_wins(
        self, cache: Cache, open_cache: OpenCache, store_url: str
    ) -> None:
        """Two processes agree on one token."""

        def compute() -> str:
            succeed([in_a_child(lambda: open_cache().set("token", "theirs"))])
            return "ours"

        # In its own memory a child leaves nothing to its parent.
        agreed = "ours" if store_url.startswith("memory") else "theirs"
        assert cache.get_or_set("token", compute) == agreed
        assert cache["token"] == agreed

    @pytest.mark.parametrize(
        "store",
        [lambda cache: cache.set("token", "theirs"), lambda cache: cache.add("token", "theirs")],
        ids=["set", "add"],
    )
    def test_value_stored_by_another_thread_wins(
        self, cache: Cache, store: Callable[[Cache], object]
    ) -> None:
        def compute() -> str:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(store, cache).result()
            return "ours"

        assert cache.get_or_set("token", compute) == "theirs"
        assert cache["token"] == "theirs"

    def test_value_stored_by_another_program_wins(self, cache: Cache, raw: Raw) -> None:
        cache.set("token", "theirs")
        entry = raw["test:token"]
        cache.delete("token")

        def compute() -> str:
            raw["test:token"] = entry
            return "ours"

        for scope in (cache.scope(), cache.preload("token")):
            with scope:
                assert cache.get_or_set("token", compute) == "theirs"
                assert cache.get_or_set("token", compute) == "theirs"
            assert cache["token"] == "theirs"
            cache.delete("token")

    def test_one_trip_to_read_and_one_to_store(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(2), cache.scope():
            assert cache.get_or_set("a", 1) == 1
            assert cache.get_or_set("a", 2) == 1


class TestMany:
    def test_waits_for_other_computations(self, cache: Cache, name: str) -> None:
        computing = Computing(0.2)
        cached = computing.cached(cache, name)
        found: list[list[int]] = []
        together(lambda _: found.append(cached.many(range(4))), threads=4)
        assert found == [[0, 1, 2, 3]] * 4
        assert sorted(computing.calls) == [0, 1, 2, 3]

    def test_opposite_orders_do_not_deadlock(self, cache: Cache, name: str) -> None:
        computing = Computing(0.05)
        cached = computing.cached(cache, name)
        begun = time.monotonic()
        together(lambda turn: cached.many(range(4)[:: 1 if turn % 2 else -1]), threads=8)
        assert time.monotonic() - begun < 5
        assert sorted(computing.calls) == [0, 1, 2, 3]

    def test_repeated_key_gives_separate_objects(self, cache: Cache) -> None:
        cached = cache.cached(key="{number}")(lambda number: [number])
        for _ in range(2):
            first, second, third = cached.many([1, 2, 1])
            first.append("changed")
            assert (second, third) == ([2], [1])

    def test_results_before_a_failure_are_stored(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        inverse = cache.cached(key="{number}")(lambda number: 1 / number)
        with expect_trips(2), pytest.raises(ZeroDivisionError):
            inverse.many([1, 2, 0, 4])
        assert cache.get_many(["1", "2", "0", "4"]) == {"1": 1.0, "2": 0.5}

    def test_keys_after_a_failure_are_released(self, cache: Cache) -> None:
        inverse = cache.cached(key="{number}")(lambda number: 1 / number)
        with pytest.raises(ZeroDivisionError):
            inverse.many([0, 4])
        begun = time.monotonic()
        assert inverse(4) == 0.25
        assert time.monotonic() - begun < 0.9


class TestRefresh:
    def test_computes_even_if_others_compute(self, cache: Cache, name: str) -> None:
        computing = Computing(0.1)
        cached = computing.cached(cache, name)
        together(lambda _: cached.refresh(), threads=4)
        assert computing.calls == [1] * 4

    def test_scope_sees_the_new_value(self, cache: Cache) -> None:
        numbers = iter(range(5))
        cached = cache.cached(key="one")(lambda: next(numbers))
        with cache.scope():
            assert (cached(), cached()) == (0, 0)
            assert cached.refresh() == 1
            assert (cached(), cache["one"]) == (1, 1)

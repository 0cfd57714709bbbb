"""Law 13 in tasks: those that miss the same key at the same time compute it once."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_aio import run
from tests.test_fetch import MANY, name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from onetrip import Cache
    from tests.conftest import OpenCache
    from tests.test_aio import Run

__all__ = ["name", "run"]


class Computing:
    """A coroutine function that takes its time and counts its calls."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.calls: list[Any] = []

    async def __call__(self, value: Any = 1) -> Any:
        self.calls.append(value)
        await asyncio.sleep(self.seconds)
        return value

    def cached(self, cache: Cache, name: str) -> Any:
        """This as a cached function of one argument, under `name` and that."""

        @cache.cached(key=name + "{value}")
        async def cached(value: Any = 1) -> Any:
            return await self(value)

        return cached


class TestTasks:
    def test_compute_once(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing()

        async def work() -> list[Any]:
            return list(
                await asyncio.gather(*(computing.cached(cache, name)() for _ in range(MANY)))
            )

        assert run(work()) == [1] * MANY
        assert computing.calls == [1]
        assert cache[name + "1"] == 1

    @pytest.mark.parametrize(
        "fetch",
        [
            lambda cache, name, compute: cache.aget_or_set(name, compute),
            lambda cache, name, compute: cache._afragment(name, 60, lambda: compute("<p>")),
            lambda cache, name, compute: compute.cached(cache, name).many([1]),
        ],
        ids=["get_or_set", "fragment", "many"],
    )
    def test_every_way_to_fetch_computes_once(
        self,
        cache: Cache,
        name: str,
        run: Run,
        fetch: Callable[[Cache, str, Computing], Coroutine[Any, Any, Any]],
    ) -> None:
        computing = Computing()

        async def work() -> None:
            await asyncio.gather(*(fetch(cache, name, computing) for _ in range(8)))

        run(work())
        assert len(computing.calls) == 1

    def test_each_task_gets_its_own_object(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing()

        async def work(number: int) -> list[int]:
            mine: list[int] = await cache.aget_or_set(name, lambda: computing([1]))
            mine.append(number)
            return mine

        async def together() -> list[list[int]]:
            return list(await asyncio.gather(*map(work, range(8))))

        assert run(together()) == [[1, number] for number in range(8)]
        assert len(computing.calls) == 1

    def test_none_is_shared(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing()

        async def work() -> list[Any]:
            fetches = (cache.aget_or_set(name, lambda: computing(None)) for _ in range(8))
            return list(await asyncio.gather(*fetches))

        assert run(work()) == [None] * 8
        assert computing.calls == [None]

    def test_several_loops_compute_once(self, cache: Cache, name: str) -> None:
        computing = Computing(0.3)
        barrier = threading.Barrier(4)

        async def work() -> Any:
            return await computing.cached(cache, name)()

        def begin(_: int) -> Any:
            barrier.wait()
            return asyncio.run(work())

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(begin, range(4))) == [1] * 4
        assert computing.calls == [1]

    def test_waiters_compute_if_the_first_raises(self, cache: Cache, name: str, run: Run) -> None:
        calls: list[int] = []

        async def flaky() -> int:
            calls.append(1)
            first = len(calls) == 1
            await asyncio.sleep(0.1)
            if first:
                raise ZeroDivisionError
            return 5

        async def work() -> list[Any]:
            fetches = (cache.aget_or_set(name, flaky) for _ in range(4))
            return list(await asyncio.gather(*fetches, return_exceptions=True))

        first, *others = run(work())
        assert isinstance(first, ZeroDivisionError)
        assert others == [5] * 3

    def test_waiters_compute_if_the_first_is_cancelled(
        self, cache: Cache, name: str, run: Run
    ) -> None:
        computing = Computing(60)

        async def fetch() -> Any:
            return await cache.aget_or_set(name, computing)

        async def work() -> None:
            owner = asyncio.create_task(fetch())
            while not computing.calls:  # noqa: ASYNC110 - what begins has no event
                await asyncio.sleep(0.001)
            waiter = asyncio.create_task(fetch())
            await asyncio.sleep(0.05)
            computing.seconds = 0
            owner.cancel()
            begun = time.monotonic()
            assert await waiter == 1
            assert time.monotonic() - begun < 0.9
            with pytest.raises(asyncio.CancelledError):
                await owner

        run(work())
        assert computing.calls == [1, 1]

    def test_waiting_task_can_be_cancelled(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing(0.3)

        async def work() -> None:
            tasks = [asyncio.ensure_future(cache.aget_or_set(name, computing)) for _ in range(5)]
            await asyncio.sleep(0.1)
            for task in tasks[1:4]:
                task.cancel()
            told = await asyncio.gather(*tasks, return_exceptions=True)
            kinds = [type(answer).__name__ for answer in told]
            assert kinds == ["int", *["CancelledError"] * 3, "int"]

        run(work())
        assert computing.calls == [1]

    def test_waiters_give_up_after_a_while(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing(60)

        async def work() -> None:
            assert await cache.aget_or_set(name, lambda: Computing(0.02)(1)) == 1
            await cache.adelete(name)
            owner = asyncio.ensure_future(cache.aget_or_set(name, computing))
            await asyncio.sleep(0.01)
            begun = time.monotonic()
            assert await cache.aget_or_set(name, 2) == 2
            assert time.monotonic() - begun < 5
            owner.cancel()
            await asyncio.wait([owner])

        run(work())


class TestCycles:
    def test_key_that_needs_itself_does_not_deadlock(
        self, cache: Cache, name: str, run: Run
    ) -> None:
        depth: list[int] = []

        async def compute() -> int:
            depth.append(1)
            if len(depth) > 3:
                return 5
            return 1 + int(await cache.aget_or_set(name, compute))

        async def work() -> Any:
            return await cache.aget_or_set(name, compute)

        begun = time.monotonic()
        run(work())
        assert time.monotonic() - begun < 0.9
        assert len(depth) == 4

    def test_two_tasks_in_a_cycle_do_not_deadlock(self, cache: Cache, name: str, run: Run) -> None:
        async def compute(own: str, other: str) -> str:
            await asyncio.sleep(0.05)
            return own + str(await cache.aget_or_set(other, other.upper()))

        async def work() -> list[Any]:
            a, b = name + "a", name + "b"
            fetches = (
                cache.aget_or_set(a, lambda: compute(a, b)),
                cache.aget_or_set(b, lambda: compute(b, a)),
            )
            return list(await asyncio.gather(*fetches))

        begun = time.monotonic()
        answers = run(work())
        assert time.monotonic() - begun < 0.9
        assert answers == [cache[name + "a"], cache[name + "b"]]

    def test_subtask_does_not_wait_for_its_parent(self, cache: Cache, name: str, run: Run) -> None:
        async def compute() -> Any:
            return await asyncio.create_task(inner())

        async def inner() -> Any:
            return await cache.aget_or_set(name, 5)

        async def work() -> Any:
            return await cache.aget_or_set(name, compute)

        begun = time.monotonic()
        assert run(work()) == 5
        assert time.monotonic() - begun < 0.9


class TestThreadsAndTasks:
    def test_task_waits_for_a_thread(self, cache: Cache, name: str, run: Run) -> None:
        calls: list[str] = []
        began = threading.Event()

        def slow() -> int:
            calls.append("thread")
            began.set()
            time.sleep(0.3)
            return 1

        async def work() -> Any:
            while not began.is_set():  # noqa: ASYNC110 - what begins has no event
                await asyncio.sleep(0.001)
            return await cache.aget_or_set(name, 2)

        with ThreadPoolExecutor(1) as pool:
            owner = pool.submit(cache.get_or_set, name, slow)
            assert run(work()) == 1
            assert owner.result() == 1
        assert calls == ["thread"]

    def test_thread_does_not_wait_for_a_task(self, cache: Cache, name: str, run: Run) -> None:
        """It may be the thread of its loop."""
        computing = Computing(60)

        async def work() -> None:
            owner = asyncio.ensure_future(cache.aget_or_set(name, computing))
            while not computing.calls:  # noqa: ASYNC110 - what begins has no event
                await asyncio.sleep(0.001)
            begun = time.monotonic()
            assert cache.get_or_set(name, 2) == 2
            cache.delete(name)
            assert await asyncio.to_thread(cache.get_or_set, name, 3) == 3
            assert time.monotonic() - begun < 0.9
            owner.cancel()
            await asyncio.wait([owner])

        run(work())

    def test_nested_loop_does_not_wait_for_its_own_thread(self, cache: Cache, name: str) -> None:
        """As under SQLAlchemy's asyncio: a greenlet of the loop's thread calls what blocks."""
        greenlet = pytest.importorskip("greenlet")
        calls: list[int] = []

        async def spawn(function: Callable[[], Any]) -> Any:
            child = greenlet.greenlet(function)
            wanted = child.switch()
            while not child.dead:
                await wanted
                wanted = child.switch()
            return wanted

        def query() -> int:
            calls.append(1)
            greenlet.getcurrent().parent.switch(asyncio.sleep(0.05))
            return 1

        async def work() -> None:
            begun = time.monotonic()
            fetches = [spawn(lambda: cache.get_or_set(name, query)) for _ in range(2)]
            assert await asyncio.gather(*fetches) == [1, 1]
            assert time.monotonic() - begun < 0.5

        asyncio.run(work())


class TestMany:
    def test_waits_for_other_computations(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing()

        async def work() -> list[Any]:
            many = (computing.cached(cache, name).many(range(4)) for _ in range(4))
            return list(await asyncio.gather(*many))

        assert run(work()) == [[0, 1, 2, 3]] * 4
        assert sorted(computing.calls) == [0, 1, 2, 3]

    def test_results_beside_a_failure_are_stored(
        self, cache: Cache, open_cache: OpenCache, name: str, run: Run
    ) -> None:
        @cache.cached(key=name + "{number}")
        async def inverse(number: int) -> float:
            await asyncio.sleep(0)
            return 1 / number

        async def work() -> None:
            with pytest.raises(ZeroDivisionError):
                await inverse.many([1, 0, 2])
            begun = time.monotonic()
            with pytest.raises(ZeroDivisionError):
                await inverse(0)
            assert time.monotonic() - begun < 0.9

        run(work())
        stored = open_cache().get_many([f"{name}{number}" for number in range(3)])
        assert sorted(stored.values()) == [0.5, 1.0]

    def test_repeated_key_gives_separate_objects(self, cache: Cache, name: str, run: Run) -> None:
        computing = Computing(0)
        cached = cache.cached(key=name + "{number}")(lambda number: [number])

        async def work() -> None:
            assert computing.calls == []

        run(work())
        for _ in range(2):
            first, second = cached.many([1, 1])
            first.append("changed")
            assert second == [1]

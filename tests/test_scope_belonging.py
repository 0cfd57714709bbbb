"""Law 5: a scope belongs to one thread or task, and the tasks it starts. And the scope itself."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from onetrip import Cache, ConfigurationError
from tests.pieces import fetch, is_held, is_in_a_scope

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.conftest import OpenCache


@pytest.fixture
def other(open_cache: OpenCache) -> Cache:
    """Another client of the same entries, which sees what is in the store and no scope."""
    return open_cache()


class TestScopeOwnership:
    def test_other_threads_have_no_scope(self, cache: Cache) -> None:
        entered, done = threading.Event(), threading.Event()
        seen: list[object] = []

        def stranger() -> None:
            entered.wait(10)
            seen.append(is_in_a_scope(cache))
            seen.append(is_held(cache, "mine"))
            done.set()

        thread = threading.Thread(target=stranger)
        thread.start()
        with cache.scope():
            fetch(cache, "mine")
            entered.set()
            done.wait(10)
            assert is_held(cache, "mine")
        thread.join()
        assert seen == [False, False]

    def test_pool_threads_have_no_scope(self, cache: Cache) -> None:
        with ThreadPoolExecutor(2) as pool, cache.scope():
            assert is_in_a_scope(cache)
            assert not any(pool.map(lambda _: is_in_a_scope(cache), range(10)))

    def test_copied_context_has_the_scope(self, cache: Cache) -> None:
        with ThreadPoolExecutor(1) as pool, cache.scope():
            fetch(cache, "a")
            context = contextvars.copy_context()
            assert pool.submit(context.run, is_held, cache, "a").result()
            assert not pool.submit(context.run, is_held, cache, "b").result()
            assert is_held(cache, "b")

    def test_other_tasks_have_no_scope(self, cache: Cache) -> None:
        async def page(number: int, all_open: Gate) -> None:
            with cache.scope():
                fetch(cache, number)
                await all_open.wait()
                # All pages are open, and each holds its own.
                assert is_held(cache, number)
                assert not is_held(cache, (number + 1) % 5)
            assert not is_in_a_scope(cache)

        async def main() -> None:
            gate = Gate(5)
            await asyncio.gather(*(page(number, gate) for number in range(5)))

        asyncio.run(main())

    def test_subtasks_have_the_scope(self, cache: Cache) -> None:
        async def part(number: int) -> None:
            await asyncio.sleep(0)
            assert is_held(cache, "a")
            fetch(cache, number)

        async def main() -> None:
            with cache.scope():
                fetch(cache, "a")
                await asyncio.gather(*map(part, range(5)))
                await asyncio.to_thread(fetch, cache, 5)
                assert all(is_held(cache, number) for number in range(6))

        asyncio.run(main())

    def test_task_that_outlives_the_scope(self, cache: Cache, other: Cache) -> None:
        async def late(closed: asyncio.Event) -> None:
            assert is_held(cache, "a")
            await closed.wait()
            # What was held is forgotten, and nothing is held any more.
            assert not is_held(cache, "a")
            assert not is_in_a_scope(cache)
            fetch(cache, "late")
            assert other["piece:late"] == "late"
            with cache.scope():
                assert is_in_a_scope(cache)

        async def main() -> None:
            closed = asyncio.Event()
            with cache.scope():
                fetch(cache, "a")
                task = asyncio.create_task(late(closed))
                await asyncio.sleep(0)
            closed.set()
            await task

        asyncio.run(main())

    def test_cancelled_task_closes_the_scope(self, cache: Cache, other: Cache) -> None:
        contexts = []

        async def page() -> None:
            contexts.append(contextvars.copy_context())
            with cache.scope():
                contexts.append(contextvars.copy_context())
                fetch(cache, "a")
                await asyncio.sleep(60)

        async def main() -> None:
            task = asyncio.create_task(page())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert other["piece:a"] == "a"
        assert not contexts[1].run(is_in_a_scope, cache)

    @staticmethod
    def streaming(cache: Cache) -> Generator[object]:
        with cache.preload("a"):
            yield fetch(cache, "streamed")
        yield "closed"

    def test_generator_can_be_finished_elsewhere(self, cache: Cache, other: Cache) -> None:
        stream = self.streaming(cache)
        began = contextvars.copy_context()
        assert began.run(next, stream) == "streamed"
        assert not is_in_a_scope(cache)
        with cache.scope():
            fetch(cache, "here")
            # The scope of the generator closes; that around us stays as it is.
            assert next(stream) == "closed"
            assert other["piece:streamed"] == "streamed"
            assert is_in_a_scope(cache)
            assert is_held(cache, "here")
        assert not is_in_a_scope(cache)
        # Where it began, its scope is closed now.
        assert not began.run(is_in_a_scope, cache)

    def test_generator_can_be_finished_by_another_thread(self, cache: Cache, other: Cache) -> None:
        stream = self.streaming(cache)
        contextvars.copy_context().run(next, stream)
        thread = threading.Thread(target=stream.close)
        thread.start()
        thread.join()
        assert other["piece:streamed"] == "streamed"
        assert not is_in_a_scope(cache)

    def test_scopes_may_close_in_any_order(self, cache: Cache) -> None:
        first, second = cache.scope(), cache.scope()
        first.__enter__()
        second.__enter__()
        fetch(cache, "a")
        # They share what they hold, and the outermost ends it.
        first.__exit__(None, None, None)
        assert not is_held(cache, "a")
        second.__exit__(None, None, None)
        assert not is_in_a_scope(cache)

    def test_each_cache_has_its_own_scope(self, cache: Cache, other: Cache) -> None:
        with cache.scope():
            assert not is_in_a_scope(other)
            with other.scope():
                fetch(cache, "a")
                assert not is_held(other, "a")
                assert is_held(other, "a")


class Gate:
    """Lets nobody go on before so many tasks have come."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._complete = asyncio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()
        await self._complete.wait()


class TestScopeObject:
    def test_entering_twice_raises(self, cache: Cache) -> None:
        scope = cache.scope()
        with scope as entered:
            assert entered is scope
            with pytest.raises(ConfigurationError, match="open already; make another with"):
                scope.__enter__()
            assert is_in_a_scope(cache)
        assert not is_in_a_scope(cache)

    def test_exit_without_enter_does_nothing(self, cache: Cache) -> None:
        scope = cache.scope()
        scope.__exit__(None, None, None)
        with scope:
            pass
        scope.__exit__(None, None, None)

    def test_exceptions_pass_through(self, cache: Cache) -> None:
        assert cache.scope().__exit__(ValueError, ValueError(), None) is None  # type: ignore[func-returns-value]

    def test_wraps_a_function_call(self, cache: Cache) -> None:
        @contextmanager
        def request() -> Iterator[None]:
            with ExitStack() as stack:
                stack.enter_context(cache.scope())
                yield

        @request()
        def view(number: int) -> None:
            assert not is_held(cache, number)
            assert is_held(cache, number)

        for number in range(3):
            view(number)
            assert not is_in_a_scope(cache)

    def test_repr_shows_the_number_of_keys(self, cache: Cache) -> None:
        scope = cache.preload("a", "b")
        assert repr(scope) == "<Scope of 2 preloaded keys, not open>"
        with scope:
            assert repr(scope) == "<Scope of 2 preloaded keys, open>"
